"""Norms of many tensors in few calls, as a vector that stays on the device."""

import math
from collections.abc import Callable, Sequence
from typing import Any


def norms(tensors: Sequence[Any]) -> Any:
    """Return the L2 norms of tensors of one device as a vector, in at least float32, without reading a number.

    >>> import torch
    >>> norms([torch.tensor([3.0, 4.0]), torch.tensor([2.0])])
    tensor([5., 2.])
    """
    import torch

    dense = [one.coalesce().values() if one.is_sparse else one for one in tensors]
    kinds = {one.dtype for one in dense}
    wide = torch.float64 if torch.float64 in kinds else torch.float32
    foreach: Any = getattr(torch, "_foreach_norm")  # noqa: B009  listed in torch's documentation, not in its stubs
    return torch.stack(foreach(dense, 2) if kinds == {wide} else foreach(dense, 2, wide))


def size(tensor: Any) -> Any:
    """Return the L2 norm of a tensor, or on the CPU its square, in at least float32, as a number on its device.

    BLAS' dot product reads memory twice as fast as ``vector_norm``; ``sizes`` takes the roots of all at once.

    >>> import torch
    >>> size(torch.tensor([3.0, 4.0]))
    tensor(25.)
    """
    import torch

    if tensor.is_cpu and tensor.dtype in (torch.float32, torch.float64) and tensor.is_contiguous():
        flat = tensor.view(-1)
        return torch.dot(flat, flat)
    wide = torch.float32 if tensor.dtype in (torch.float16, torch.bfloat16) else None
    norm = torch.linalg.vector_norm(tensor, dtype=wide)
    return norm.square() if tensor.is_cpu else norm


def sizes(found: list[Any]) -> Any:
    """Return what ``size`` gave for tensors of one device as a vector of norms.

    >>> import torch
    >>> sizes([torch.tensor(25.0), torch.tensor(4.0)])
    tensor([5., 2.])
    """
    import torch

    vector = torch.stack(found)
    return vector.sqrt_() if vector.is_cpu else vector


def on_one_device(names: list[str], tensors: list[Any], vector: Callable[[list[Any]], Any]) -> tuple[list[str], Any]:
    """Return names, and what ``vector`` makes of the tensors of each device; nearly always there is one.

    >>> import torch
    >>> on_one_device(["a", "b"], [torch.tensor(1.0), torch.tensor(2.0)], torch.stack)
    (['a', 'b'], tensor([1., 2.]))
    """
    devices = {tensor.device for tensor in tensors}
    if len(devices) == 1:
        return names, vector(tensors)
    import torch

    first, sorted_names, parts = tensors[0].device, list[str](), list[Any]()
    for device in devices:
        here = [place for place, tensor in enumerate(tensors) if tensor.device == device]
        sorted_names += [names[place] for place in here]
        parts.append(vector([tensors[place] for place in here]).to(first, non_blocking=True))
    return sorted_names, torch.cat(parts)


def combined(names: Sequence[str], numbers: Sequence[float]) -> dict[str, float]:
    """Return name -> norm, where several norms of one name are those of its parts.

    >>> combined(["a", "b", "a"], [3.0, 1.0, 4.0])
    {'a': 5.0, 'b': 1.0}
    """
    found: dict[str, float] = {}
    for name, number in zip(names, numbers, strict=True):
        found[name] = number if name not in found else math.hypot(found[name], number)
    return found
