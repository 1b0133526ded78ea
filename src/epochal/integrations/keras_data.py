"""Where a training of Keras stands in its data."""

from collections.abc import Callable, Mapping
from typing import Any


class Data:
    """The data of a ``fit``, as Keras iterates over it."""

    def __init__(self) -> None:
        self.iterator: Any = None

    @property
    def num_batches(self) -> int | None:
        """How many batches an epoch has, where Keras knows."""
        return None if self.iterator is None else self.iterator.num_batches

    def meeting(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Come to know the iterator over the training data, the first that ``fit`` makes."""

        def build(*args: Any, iterator: Any = None, **options: Any) -> Any:
            result = original(*args, iterator=iterator, **options)
            if self.iterator is None:
                self.iterator = iterator
            return result

        return build

    def done(self, batches: int) -> None:
        """So many batches of the epoch are done."""

    def state_dict(self, *, inside: bool) -> dict[str, Any]:
        """Return the place."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take a place."""
