"""Norms of many tensors in few calls, as a vector that stays on the device."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any


def norms(tensors: Sequence[Any]) -> Any:
    """Return the L2 norms of tensors of one device as a vector, in at least float32, without reading a number.

    >>> import torch
    >>> norms([torch.tensor([3.0, 4.0]), torch.tensor([2.0])])
    tensor([5., 2.])
    """
    import torch

    dense = [one.coalesce().values() if one.is_sparse else one for one in tensors]
    wide = torch.float64 if any(one.dtype == torch.float64 for one in dense) else torch.float32
    foreach: Any = getattr(torch, "_foreach_norm")  # noqa: B009  listed in torch's documentation, not in its stubs
    return torch.stack(foreach(dense, 2, wide))


def on_one_device(named: Iterable[tuple[str, Any]], vector: Callable[[list[Any]], Any]) -> tuple[list[str], Any]:
    """Return names, and what ``vector`` makes of the tensors of each device; nearly always there is one.

    >>> import torch
    >>> on_one_device([("a", torch.tensor(1.0)), ("b", torch.tensor(2.0))], torch.stack)
    (['a', 'b'], tensor([1., 2.]))
    """
    import torch

    groups: dict[Any, tuple[list[str], list[Any]]] = {}
    for name, tensor in named:
        names, tensors = groups.setdefault(tensor.device, ([], []))
        names.append(name)
        tensors.append(tensor)
    found = [(names, vector(tensors)) for names, tensors in groups.values()]
    if len(found) == 1:
        return found[0]
    first = next(iter(groups))
    joined = torch.cat([part.to(first, non_blocking=True) for _, part in found])
    return [name for names, _ in found for name in names], joined


def combined(names: Sequence[str], numbers: Sequence[float]) -> dict[str, float]:
    """Return name -> norm, where several norms of one name are those of its parts.

    >>> combined(["a", "b", "a"], [3.0, 1.0, 4.0])
    {'a': 5.0, 'b': 1.0}
    """
    found: dict[str, float] = {}
    for name, number in zip(names, numbers, strict=True):
        found[name] = number if name not in found else math.hypot(found[name], number)
    return found
