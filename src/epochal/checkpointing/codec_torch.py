"""Leaves of the codec from torch: tensors of any dense type, sizes, dtypes and devices."""

import ctypes
from functools import cache
from typing import TYPE_CHECKING, Any

from epochal.checkpointing.blob import Blob
from epochal.core.errors import CheckpointError

if TYPE_CHECKING:
    import torch

    from epochal.checkpointing.codec import Decoder, Encoder, Path


@cache
def _names() -> "dict[torch.dtype, str]":
    import torch

    return {
        torch.bool: "BOOL",
        torch.uint8: "U8",
        torch.int8: "I8",
        torch.uint16: "U16",
        torch.int16: "I16",
        torch.uint32: "U32",
        torch.int32: "I32",
        torch.uint64: "U64",
        torch.int64: "I64",
        torch.float16: "F16",
        torch.bfloat16: "BF16",
        torch.float32: "F32",
        torch.float64: "F64",
        torch.complex64: "C64",
        torch.float8_e4m3fn: "F8_E4M3",
        torch.float8_e5m2: "F8_E5M2",
        torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
        torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    }


def encode_torch(encoder: "Encoder", value: object, path: "Path") -> Any:
    """Return the node of a torch value, its data added to the encoder; None for anything else.

    Tensors that share storage and layout are kept once. The device is not kept: everything comes back on the CPU.
    """
    import torch

    if isinstance(value, torch.Tensor):
        return _tensor(encoder, value, path)
    if isinstance(value, torch.Size):
        return {"$": "torch", "kind": "Size", "items": list(value)}
    if isinstance(value, torch.dtype):
        return {"$": "torch", "kind": "dtype", "value": str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"$": "torch", "kind": "device", "value": str(value)}
    return None


def _tensor(encoder: "Encoder", value: "torch.Tensor", path: "Path") -> Any:
    import torch

    if type(value) not in (torch.Tensor, torch.nn.Parameter):
        raise encoder.refuse(value, path, "only plain tensors can be saved; convert it with .data or .full_tensor()")
    if value.layout is not torch.strided or value.is_quantized or value.is_meta or value.is_nested:
        raise encoder.refuse(
            value, path, f"a {value.layout} tensor on {value.device} has no plain data; use .to_dense()"
        )
    tensor = value.detach()
    node: dict[str, Any] = {"$": "tensor"}
    raw = tensor.dtype not in _names()
    if raw:  # complex128 and the like are unknown to the format: bytes, and the type beside them
        node |= {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}
    stride = list(tensor.stride())
    if not tensor.is_contiguous() and stride == list(torch.empty_like(tensor, device="meta").stride()):
        node["stride"] = stride  # channels_last and transposed tensors come back in their own layout
    if type(value) is torch.nn.Parameter:
        node["parameter"] = True
    if value.requires_grad:
        node["requires_grad"] = True
    node["key"] = _shared(encoder, tensor, path, raw)
    return node


def _shared(encoder: "Encoder", tensor: "torch.Tensor", path: "Path", raw: bool) -> str:
    identity = (
        tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), tensor.device, tensor.is_conj(), tensor.is_neg()
    )  # fmt: skip
    known = encoder.shared.get(identity) if tensor.numel() else None
    if known is not None:
        return known
    size = tensor.numel() * tensor.element_size()
    dtype, shape = ("U8", (size,)) if raw else (_names()[tensor.dtype], tuple(tensor.shape))
    name = encoder.add(path, Blob(dtype, shape, size, lambda: _bytes_of(tensor), tensor))
    encoder.shared[identity] = name
    return name


def _bytes_of(tensor: "torch.Tensor") -> memoryview:
    plain = tensor.cpu().resolve_conj().resolve_neg().contiguous()
    return memory(plain)


def memory(tensor: "torch.Tensor") -> memoryview:
    """Return the bytes of a contiguous CPU tensor without a copy and without numpy; they live as long as the view."""
    size = tensor.numel() * tensor.element_size()
    if not size:
        return memoryview(bytearray())
    array = (ctypes.c_ubyte * size).from_address(tensor.data_ptr())
    array.owner = tensor  # type: ignore[attr-defined]  # from_address alone would not keep the tensor alive
    return memoryview(array)


def decode_torch(decoder: "Decoder", node: dict[str, Any]) -> Any:
    """Return the value of a node that `encode_torch` made, tensors on the CPU."""
    import torch

    if node["$"] == "tensor":
        return _decode_tensor(decoder, node)
    if node["kind"] == "Size":
        return torch.Size(node["items"])
    if node["kind"] == "device":
        return torch.device(node["value"])
    return _dtype(node["value"])


def _decode_tensor(decoder: "Decoder", node: dict[str, Any]) -> "torch.Tensor":
    import torch

    flags = (node["key"], node.get("parameter", False), node.get("requires_grad", False))
    known = decoder.made.get(flags)
    if known is not None:
        assert isinstance(known, torch.Tensor)
        return known
    plain = decoder.made.get(node["key"])
    tensor = plain if isinstance(plain, torch.Tensor) else _read(decoder, node)
    decoder.made[node["key"]] = tensor
    _, parameter, requires_grad = flags
    if parameter:
        tensor = torch.nn.Parameter(tensor, requires_grad=requires_grad)
    elif requires_grad:
        tensor = tensor.detach().requires_grad_()
    decoder.made[flags] = tensor
    return tensor


def _read(decoder: "Decoder", node: dict[str, Any]) -> "torch.Tensor":
    import torch

    entry = decoder.tensors.entry(node["key"])
    if "dtype" in node:
        tensor = torch.empty(node["shape"], dtype=_dtype(node["dtype"]))
    else:
        types = {name: dtype for dtype, name in _names().items()}
        tensor = torch.empty(entry.shape, dtype=types[entry.dtype])
    decoder.tensors.read_into(node["key"], memory(tensor))
    if "stride" in node:
        tensor = torch.empty_strided(tuple(tensor.shape), node["stride"], dtype=tensor.dtype).copy_(tensor)
    return tensor


def _dtype(name: str) -> "torch.dtype":
    import torch

    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise CheckpointError(f"state.json names the type torch.{name}, which this torch {torch.__version__} lacks")
    return found
