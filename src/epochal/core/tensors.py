"""Scalars of any framework, told apart without importing one: detach them, read many in one go, copy them aside."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from epochal.core.errors import ArgumentError

Scalar = Any  # float, int, bool, a NumPy scalar, or a tensor with one element


def scalar(value: Any, name: str, now: bool = False) -> Scalar:
    """Return what is kept of a logged value: a number as a float, a tensor detached and neither copied nor read.

    ``now``: it is needed at once, so what does not have to be waited for is read, without detaching it first.

    >>> scalar(3, "n")
    3.0
    """
    try:
        if value.numel() == 1:
            if now and not is_remote(value):
                return float(value.item())
            return value.detach() if value.requires_grad else value
    except AttributeError:
        return number(value, name)
    raise ArgumentError(f"{name!r} was logged with a tensor of shape {tuple(value.shape)}; log one number")


def scalars(values: Mapping[str, Any]) -> dict[str, Scalar]:
    """Return what is kept of logged values.

    >>> scalars({"n": 3, "loss": 0.5})
    {'n': 3.0, 'loss': 0.5}
    """
    return {name: value if type(value) is float else scalar(value, name) for name, value in values.items()}


def are_plain(values: Iterable[Any]) -> bool:
    """Say whether all values are numbers of Python's own that a float can hold.

    >>> are_plain([0.5, 3]), are_plain([0.5, "low"]), are_plain([10**400])
    (True, False, False)
    """
    try:
        return type(sum(values, 0.0)) is float  # a fifth of the time that a look at each type takes
    except Exception:
        return False


def number(value: Any, name: str) -> Scalar:
    """Return what is kept of a logged value that is no torch tensor.

    >>> number(True, "n")
    1.0
    """
    if isinstance(value, (int, float)):
        try:
            return float(value)
        except OverflowError:
            raise ArgumentError(f"{name!r} was logged with an int above 1.8e308; log what a float can hold") from None
    if not hasattr(value, "__float__"):
        raise ArgumentError(f"{name!r} was logged with {value!r} ({type(value).__name__}); log one number")
    if type(value).__module__ == "numpy":
        if value.size != 1:
            raise ArgumentError(f"{name!r} was logged with an array of shape {value.shape}; log one number")
        return float(value.item())
    return value


def is_remote(value: Scalar) -> bool:
    """Say whether reading the value would make the host wait for a device."""
    on_cpu = getattr(value, "is_cpu", None)  # torch's; four times faster than asking for the device's type
    if on_cpu is not None:
        return not on_cpu
    device = getattr(value, "device", None)
    return device is not None and getattr(device, "type", "cpu") != "cpu"


def is_local(value: Scalar) -> bool:
    """Say whether the value is known to be on the host already.

    >>> is_local(0.5)
    True
    """
    return type(value) is float or getattr(value, "is_cpu", False)


def read(values: Sequence[Scalar]) -> list[float]:
    """Return the values as floats; tensors of one device are brought to the host in one copy.

    >>> read([1.0, 2])
    [1.0, 2.0]
    """
    numbers: list[float] = [0.0] * len(values)
    remote: dict[str, list[int]] = {}
    for index, value in enumerate(values):
        if type(value) is float:
            numbers[index] = value
        elif is_remote(value):
            remote.setdefault(str(value.device), []).append(index)
        else:
            numbers[index] = float(value)
    if remote:
        torch: Any = sys.modules["torch"]
        for places in remote.values():
            stacked = torch.stack([values[place].reshape(()).double() for place in places])
            for place, number in zip(places, stacked.tolist(), strict=True):
                numbers[place] = number
    return numbers


class HostCopy:
    """A device tensor on its way to the host: the copy is queued now and asked for later, without waiting."""

    __slots__ = ("event", "host", "value")

    def __init__(self, value: Scalar) -> None:
        self.value = value
        self.event: Any = None
        self.host: Any = None
        if value.device.type == "cuda":
            torch: Any = sys.modules["torch"]
            self.host = torch.empty(1, dtype=value.dtype, pin_memory=True)
            self.host.copy_(value.reshape(1), non_blocking=True)
            self.event = torch.cuda.Event()
            self.event.record(torch.cuda.current_stream(value.device))

    def arrived(self) -> bool:
        """Say whether the number has reached the host."""
        return self.event is None or bool(self.event.query())

    def number(self) -> float:
        """Return the number, waiting for it if it is still on its way."""
        if self.event is None:
            return float(self.value)
        self.event.synchronize()
        return float(self.host[0])
