"""A frozen mapping: what a finished epoch measured."""

from typing import Any, NoReturn


class Row(dict[str, float]):
    """A mapping that cannot be changed, and, other than a ``MappingProxyType``, can be pickled and written as JSON.

    >>> row = Row({"val/loss": 0.5})
    >>> row["val/loss"] = 0.0
    Traceback (most recent call last):
    TypeError: a finished epoch cannot be changed; dict(row) makes a copy that can
    """

    def refuse(self, *_: Any, **__: Any) -> NoReturn:
        """Raise TypeError: internal, stands for every method that would change it."""
        raise TypeError("a finished epoch cannot be changed; dict(row) makes a copy that can")

    __setitem__ = __delitem__ = __ior__ = refuse  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride, reportUnannotatedClassAttribute]
    update = clear = pop = popitem = setdefault = refuse  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride, reportUnannotatedClassAttribute]

    def __reduce__(self) -> tuple[Any, ...]:
        return Row, (dict(self),)
