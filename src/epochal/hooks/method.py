"""A method of one object replaced for the time of a training, and never copied with the object."""

from collections.abc import Callable
from functools import wraps
from types import MethodType
from typing import Any


class Method:
    """Stands in place of a method on one instance until it is removed.

    ``call`` is given the method that was there, then the arguments. What was on the instance before is put back
    exactly; a wrapper that somebody else has put around ours stays, and ours only passes on inside it. A copied or
    unpickled object has the method of its class.

    >>> class Lamp:
    ...     def light(self):
    ...         return "on"
    >>> lamp = Lamp()
    >>> method = Method(lamp, "light", lambda original: original().upper())
    >>> lamp.light()
    'ON'
    >>> method.remove(); lamp.light(), vars(lamp)
    ('on', {})
    """

    def __init__(self, owner: Any, name: str, call: Callable[..., Any]) -> None:
        self.owner, self.name = owner, name
        self.call: Callable[..., Any] | None = call
        self.before = vars(owner).get(name)
        self.original = getattr(owner, name)
        self.placed = MethodType(self.stand_in(), owner)
        vars(owner)[name] = self.placed  # setattr would reach through a wrapper, such as torch.compile's

    def stand_in(self) -> Callable[..., Any]:
        """Return the function that is put in place: like the original to whoever inspects or wraps it."""

        @wraps(getattr(self.original, "__func__", self.original))
        def stand_in(host: Any, *args: Any, **options: Any) -> Any:
            if host is not self.owner:  # a copy of the object
                return getattr(type(host), self.name)(host, *args, **options)
            if self.call is None:
                return self.original(*args, **options)
            return self.call(self.original, *args, **options)

        stand_in.__name__ = self.name  # pickle finds the method of the class by it
        setattr(stand_in, "stands_for", self)  # noqa: B010  a function's own attribute
        return stand_in

    def remove(self) -> None:
        """Put back what was there; one of ours that was removed in the meantime is none."""
        self.call = None
        if vars(self.owner).get(self.name) is not self.placed:
            return
        before = self.before
        while (inner := getattr(before, "stands_for", None)) is not None and inner.call is None:
            before = inner.before
        if before is None:
            del vars(self.owner)[self.name]
        else:
            vars(self.owner)[self.name] = before
