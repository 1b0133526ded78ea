"""Hooks on modules that are gone with the training, and never copied or saved with the model."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any


class Hook:
    """A function as a hook of a module; a copied or pickled model carries one of the standard library in its place.

    That one takes any arguments and does nothing, so a model that was saved in the middle of a training can be loaded
    where Epochal is not installed.

    >>> import copy
    >>> copy.deepcopy(Hook(print))("module", "args", "output")
    """

    __slots__ = ("call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call

    def __call__(self, *args: Any) -> Any:
        return self.call(*args)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (nullcontext(), "__exit__")

    def __deepcopy__(self, _memo: Any) -> Callable[..., None]:
        return nullcontext().__exit__
