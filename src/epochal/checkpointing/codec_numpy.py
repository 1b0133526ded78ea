"""Leaves of the codec from numpy: arrays and scalars of every type but object."""

import base64
from importlib import import_module
from typing import TYPE_CHECKING, Any

from epochal.checkpointing.blob import Blob
from epochal.core.errors import CheckpointError

if TYPE_CHECKING:
    import numpy as np

    from epochal.checkpointing.codec import Decoder, Encoder, Path

_NAMES = {
    "|b1": "BOOL", "|u1": "U8", "|i1": "I8", "<u2": "U16", "<i2": "I16", "<u4": "U32", "<i4": "I32", "<u8": "U64",
    "<i8": "I64", "<f2": "F16", "<f4": "F32", "<f8": "F64", "<c8": "C64",
}  # fmt: skip


def encode_numpy(encoder: "Encoder", value: object, path: "Path") -> Any:
    """Return the node of a numpy array or scalar; None for anything else."""
    import numpy as np

    if isinstance(value, np.ndarray):
        return _array(encoder, value, path)
    if isinstance(value, np.str_):
        return {"$": "scalar", "dtype": "str", "value": str(value)}
    if isinstance(value, np.bytes_):
        return {"$": "scalar", "dtype": "bytes", "base64": base64.b64encode(bytes(value)).decode()}
    if isinstance(value, np.generic):
        description = _describe(encoder, value, value.dtype, path)
        return {"$": "scalar", "dtype": description, "base64": base64.b64encode(value.tobytes()).decode()}
    return None


def _array(encoder: "Encoder", value: "np.ndarray[Any, Any]", path: "Path") -> Any:
    import numpy as np

    if type(value) is not np.ndarray:
        raise encoder.refuse(value, path, "only plain arrays can be saved; convert it with numpy.asarray")
    node: dict[str, Any] = {"$": "array", "dtype": _describe(encoder, value, value.dtype, path)}
    if value.flags.f_contiguous and not value.flags.c_contiguous:
        node["order"] = "F"
    name = _NAMES.get(value.dtype.str) if value.dtype.type.__module__ == "numpy" else None
    if name is None:  # types that the format lacks are bytes, their shape stands in the node
        node["shape"] = list(value.shape)
    shape = (value.nbytes,) if name is None else tuple(value.shape)
    node["key"] = encoder.add(path, Blob(name or "U8", shape, value.nbytes, lambda: _bytes_of(value)))
    return node


def _bytes_of(value: "np.ndarray[Any, Any]") -> memoryview:
    import numpy as np

    return np.ascontiguousarray(value).reshape(-1).view(np.uint8).data if value.nbytes else memoryview(b"")


def _describe(encoder: "Encoder", value: object, dtype: "np.dtype[Any]", path: "Path") -> Any:
    import numpy as np

    if dtype.hasobject or dtype.kind == "T":
        raise encoder.refuse(value, path, f"its dtype {dtype} holds Python objects; convert it to a list")
    if dtype.type.__module__.startswith("ml_dtypes"):
        return f"ml_dtypes.{dtype.name}"
    return np.lib.format.dtype_to_descr(dtype)


def decode_numpy(decoder: "Decoder", node: dict[str, Any]) -> Any:
    """Return the value of a node that `encode_numpy` made."""
    import numpy as np

    if node["dtype"] == "str":
        return np.str_(node["value"])
    if node["dtype"] == "bytes":
        return np.bytes_(base64.b64decode(node["base64"]))
    dtype = _dtype(node["dtype"])
    if node["$"] == "scalar":
        return np.frombuffer(base64.b64decode(node["base64"]), dtype=dtype, count=1)[0]
    entry = decoder.tensors.entry(node["key"])
    data = bytearray(entry.stop - entry.start)
    decoder.tensors.read_into(node["key"], memoryview(data))
    shape = tuple(node.get("shape", entry.shape))
    array = np.frombuffer(data, dtype=dtype).reshape(shape) if data else np.empty(shape, dtype)
    return np.asfortranarray(array) if node.get("order") == "F" else array


def _dtype(description: Any) -> "np.dtype[Any]":
    import numpy as np

    if isinstance(description, str) and description.startswith("ml_dtypes."):
        try:
            ml_dtypes = import_module("ml_dtypes")
        except ImportError:
            raise CheckpointError(f"the state has {description} arrays: pip install ml_dtypes") from None
        return np.dtype(getattr(ml_dtypes, description.removeprefix("ml_dtypes.")))
    dtype = np.lib.format.descr_to_dtype(_tuples(description))
    if dtype.hasobject:
        raise CheckpointError(f"state.json names the numpy type {dtype}, which holds Python objects")
    return dtype


def _tuples(description: Any) -> Any:
    """Undo JSON: a record type is a list of tuples, and its shapes are tuples."""
    if not isinstance(description, list):
        return description
    return [(one[0], _tuples(one[1]), *(tuple(rest) for rest in one[2:])) for one in description]  # type: ignore
