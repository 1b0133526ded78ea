"""A method of one object replaced for the time of a training, and never copied with the object."""

from collections.abc import Callable
from functools import update_wrapper, wraps
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
        vars(owner)[name] = self.placed = Placed(self)  # setattr would reach through a wrapper as torch.compile's

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call ours, or once it is removed what was there before."""
        return self.original(*args, **options) if self.call is None else self.call(self.original, *args, **options)

    def remove(self) -> None:
        """Put back what was there; one of ours that was removed in the meantime is none."""
        self.call = None
        if vars(self.owner).get(self.name) is not self.placed:
            return
        before = self.before
        while isinstance(before, Placed) and before.method.call is None:
            before = before.method.before
        if before is None:
            del vars(self.owner)[self.name]
        else:
            vars(self.owner)[self.name] = before


class Placed:
    """What ``Method`` puts on the object: like the original to whoever inspects or wraps it."""

    def __init__(self, method: Method) -> None:
        update_wrapper(self, method.original)
        self.method = method

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.method(*args, **options)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self.method.owner, self.method.name)  # a copy of the owner finds the method of its class

    @property
    def __self__(self) -> Any:
        return self.method.owner

    @property
    def __func__(self) -> Callable[..., Any]:
        """The function behind the method: PyTorch's schedulers wrap that of ``optimizer.step``."""

        @wraps(getattr(self.method.original, "__func__", self.method.original))
        def function(_owner: Any, *args: Any, **options: Any) -> Any:
            return self.method(*args, **options)

        return function
