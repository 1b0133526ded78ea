"""The codec: any tree of state to JSON and tensors, and back exactly, types included; nothing is ever executed."""

import base64
import math
import sys
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Mapping
from enum import Enum
from typing import Any, cast

from epochal.checkpointing.blob import Blob
from epochal.checkpointing.tensorfile import TensorFile
from epochal.checkpointing.tensorfiles import TensorFiles
from epochal.core.errors import CheckpointError

TAG = "$"
_SAFE_INT = 1 << 63

Path = tuple[object, ...]  # the keys that lead to a value


class Encoder:
    """Turns one part's tree into JSON nodes; its tensors gather in ``blobs``, each under a name of its own.

    >>> encoder = Encoder("run")
    >>> encoder.encode({"best": (0.5, None)})
    {'best': {'$': 'tuple', 'items': [0.5, None]}}
    """

    def __init__(self, part: str) -> None:
        self.part = part
        self.blobs: dict[str, Blob] = {}
        self.shared: dict[object, str] = {}  # storage, shape -> name of the blob that already holds it
        self._open: set[int] = set()

    def encode(self, tree: object) -> Any:
        """Return the JSON node of a whole tree; `CheckpointError` names the place of what cannot be saved."""
        try:
            return self.node(tree, ())
        except RecursionError:
            raise CheckpointError(f"cannot save {self.part!r}: it is nested too deep") from None

    def node(self, value: object, path: Path) -> Any:
        """Return the JSON node of one value at ``path``."""
        kind = type(value)
        if value is None or kind is bool or kind is str:
            return value
        container = _CONTAINERS.get(kind)
        if container is not None:
            return self._contained(container, value, path)
        leaf = _LEAVES.get(kind)
        if leaf is not None:
            return leaf(value)
        return self._foreign(value, path)

    def nodes(self, values: Collection[object], path: Path) -> list[Any]:
        """Return the nodes of values that stand in a row; a generator's state is hundreds of whole numbers."""
        if set(map(type, values)) == {int}:
            numbers = cast("list[int]", list(values))
            if min(numbers) >= -_SAFE_INT and max(numbers) < _SAFE_INT:
                return numbers
        return [self.node(value, (*path, index)) for index, value in enumerate(values)]

    def add(self, path: Path, blob: Blob) -> str:
        """Keep the bytes of a tensor under a name made of its path, and return that name."""
        name = plain = ".".join(map(str, path)).encode("utf-8", "replace").decode() or "value"
        count = 1
        while name in self.blobs or name == "__metadata__":
            count += 1
            name = f"{plain}#{count}"
        self.blobs[name] = blob
        return name

    def refuse(self, value: object, path: Path, cure: str) -> CheckpointError:
        """Return the error for a value that cannot be saved: where it is, what it is, what to do."""
        where = self.part + "".join(f"[{key!r}]" for key in path)
        kind = type(value)
        return CheckpointError(f"cannot save {where}: {kind.__module__}.{kind.__qualname__}; {cure}")

    def _contained(self, encode: "Callable[[Encoder, Any, Path], Any]", value: object, path: Path) -> Any:
        if id(value) in self._open:
            raise self.refuse(value, path, "it contains itself; leave it out of state_dict()")
        self._open.add(id(value))
        try:
            return encode(self, value, path)
        finally:
            self._open.discard(id(value))

    def _foreign(self, value: object, path: Path) -> Any:
        # what is not imported cannot be in the tree, so nothing is imported here
        if "torch" in sys.modules:
            from epochal.checkpointing.codec_torch import encode_torch

            node = encode_torch(self, value, path)
            if node is not None:
                return node
        if "numpy" in sys.modules:
            from epochal.checkpointing.codec_numpy import encode_numpy

            node = encode_numpy(self, value, path)
            if node is not None:
                return node
        from epochal.checkpointing.codec_standard import encode_standard

        node = encode_standard(value)
        if node is not None:
            return node
        raise self.refuse(value, path, _cure(value))


class Decoder:
    """Turns JSON nodes back into the tree; tensors are read from ``tensors``.

    >>> Decoder("run", None).decode({"best": {"$": "tuple", "items": [0.5, None]}})
    {'best': (0.5, None)}
    """

    def __init__(self, part: str, tensors: TensorFile | TensorFiles | None) -> None:
        self.part = part
        self._tensors = tensors
        self.made: dict[object, object] = {}  # tied tensors come back tied

    @property
    def tensors(self) -> TensorFile | TensorFiles:
        """The open tensor files of this part."""
        if self._tensors is None:
            raise CheckpointError(f"part {self.part!r} has tensors in state.json, and no tensor file")
        return self._tensors

    def decode(self, node: Any) -> Any:
        """Return the tree of a whole part; `CheckpointError` when the nodes are not ours."""
        try:
            return self.value(node)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            raise CheckpointError(f"part {self.part!r} in state.json cannot be read: {error!r}") from error

    def value(self, node: Any) -> Any:
        """Return the value of one node."""
        if isinstance(node, list):
            return [self.value(one) for one in cast("list[Any]", node)]
        if not isinstance(node, dict):
            return node
        fields = cast("dict[str, Any]", node)
        tag = fields.get(TAG)
        if tag is None:
            return {name: self.value(one) for name, one in fields.items()}
        known = _VALUES.get(tag)
        if known is not None:
            return known(self, fields)
        return self._foreign(tag, fields)

    def _foreign(self, tag: str, node: dict[str, Any]) -> Any:
        if tag in ("tensor", "torch"):
            from epochal.checkpointing.codec_torch import decode_torch

            return decode_torch(self, node)
        if tag in ("array", "scalar"):
            from epochal.checkpointing.codec_numpy import decode_numpy

            return decode_numpy(self, node)
        from epochal.checkpointing.codec_standard import decode_standard

        return decode_standard(tag, node)


def _cure(value: object) -> str:
    if callable(getattr(value, "state_dict", None)):
        return "save what its state_dict() returns"
    if isinstance(value, Enum):
        return "save its .value"
    for kind in (dict, list, tuple, set, frozenset, str, bytes, int, float):
        if isinstance(value, kind):
            return f"convert it with {kind.__name__}(...)"
    return "state is made of numbers, strings, containers, arrays and tensors; convert it or leave it out"


def _integer(value: int) -> Any:
    return value if -_SAFE_INT <= value < _SAFE_INT else {TAG: "int", "hex": hex(value)}


def _float(value: float) -> Any:
    return value if math.isfinite(value) else {TAG: "float", "value": str(value)}


def _complex(value: complex) -> Any:
    return {TAG: "complex", "items": [_float(value.real), _float(value.imag)]}


def _bytes(value: bytes | bytearray) -> Any:
    return {TAG: type(value).__name__, "base64": base64.b64encode(value).decode()}


def _mapping(encoder: Encoder, value: Mapping[Any, Any], path: Path) -> Any:
    if type(value) is dict and all(type(key) is str for key in value) and TAG not in value:
        return {key: encoder.node(one, (*path, key)) for key, one in value.items()}
    items = [[encoder.node(key, (*path, key)), encoder.node(one, (*path, key))] for key, one in value.items()]
    node: dict[str, Any] = {TAG: type(value).__name__, "items": items}
    attributes = getattr(value, "__dict__", None)  # a module's state_dict() carries the versions of its layers so
    if attributes:
        node["attributes"] = encoder.node(dict(attributes), path)
    return node


def _row(encoder: Encoder, value: Any, path: Path) -> Any:
    return {TAG: type(value).__name__, "items": encoder.nodes(value, path)}


def _list(encoder: Encoder, value: list[Any], path: Path) -> Any:
    return encoder.nodes(value, path)


def _set(encoder: Encoder, value: Any, path: Path) -> Any:
    return {TAG: type(value).__name__, "items": sorted((encoder.node(one, (*path, one)) for one in value), key=repr)}


def _deque(encoder: Encoder, value: deque[Any], path: Path) -> Any:
    return {**_row(encoder, value, path), "maxlen": value.maxlen}


def _read_mapping(kind: Callable[[], dict[Any, Any]]) -> Callable[[Decoder, dict[str, Any]], Any]:
    def read(decoder: Decoder, node: dict[str, Any]) -> Any:
        made = kind()
        for key, one in node["items"]:
            made[decoder.value(key)] = decoder.value(one)
        if "attributes" in node:
            vars(made).update(decoder.value(node["attributes"]))
        return made

    return read


def _read_row(kind: Callable[[Any], Any]) -> Callable[[Decoder, dict[str, Any]], Any]:
    return lambda decoder, node: kind(decoder.value(node["items"]))


def _read_deque(decoder: Decoder, node: dict[str, Any]) -> Any:
    return deque(decoder.value(node["items"]), node["maxlen"])


_CONTAINERS: dict[type, Callable[[Encoder, Any, Path], Any]] = {
    dict: _mapping,
    OrderedDict: _mapping,
    Counter: _mapping,
    list: _list,
    tuple: _row,
    set: _set,
    frozenset: _set,
    deque: _deque,
}
_LEAVES: dict[type, Callable[[Any], Any]] = {
    int: _integer,
    float: _float,
    complex: _complex,
    bytes: _bytes,
    bytearray: _bytes,
}
_VALUES: dict[str, Callable[[Decoder, dict[str, Any]], Any]] = {
    "dict": _read_mapping(dict),
    "OrderedDict": _read_mapping(OrderedDict),
    "Counter": _read_mapping(Counter),
    "tuple": _read_row(tuple),
    "set": _read_row(set),
    "frozenset": _read_row(frozenset),
    "deque": _read_deque,
    "int": lambda _, node: int(node["hex"], 16),
    "float": lambda _, node: float(node["value"]),
    "complex": lambda decoder, node: complex(*decoder.value(node["items"])),
    "bytes": lambda _, node: base64.b64decode(node["base64"]),
    "bytearray": lambda _, node: bytearray(base64.b64decode(node["base64"])),
}
