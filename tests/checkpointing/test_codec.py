"""The codec gives back exactly what it was given, types included, and refuses the rest by name."""

import datetime
import json
import math
import pathlib
import random
import struct
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from enum import IntEnum
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from epochal.checkpointing.codec import Decoder, Encoder
from epochal.checkpointing.tensorfile import TensorFile, stream
from epochal.core.errors import CheckpointError


def there_and_back(tree, folder):
    encoder = Encoder("part")
    node = json.loads(json.dumps(encoder.encode(tree), allow_nan=False))
    path = folder / "part.safetensors"
    path.write_bytes(b"".join(stream(encoder.blobs)))
    with TensorFile(path) as tensors:
        return Decoder("part", tensors).decode(node)


def same(a, b):
    """Equal in type, structure, order and every bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or struct.pack("d", a) == struct.pack("d", b)
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, torch.Tensor):
        return (a.dtype, a.shape, a.requires_grad) == (b.dtype, b.shape, b.requires_grad) and raw(a) == raw(b)
    if isinstance(a, np.ndarray):
        layout = (a.flags.c_contiguous, a.flags.f_contiguous)
        return (a.dtype, a.shape, a.tobytes(), layout) == (
            b.dtype, b.shape, b.tobytes(), (b.flags.c_contiguous, b.flags.f_contiguous))  # fmt: skip
    if isinstance(a, np.generic):
        return a.dtype == b.dtype and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return len(a) == len(b) and all(same(x, y) and same(a[x], b[y]) for x, y in zip(a, b, strict=True))
    if isinstance(a, list | tuple | deque):
        return len(a) == len(b) and all(map(same, a, b)) and getattr(a, "maxlen", 0) == getattr(b, "maxlen", 0)
    return a == b


def raw(tensor):
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).tolist()


plain = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers()
    | st.binary().map(bytearray) | st.dates() | st.datetimes() | st.datetimes(timezones=st.just(datetime.UTC))
    | st.timedeltas() | st.builds(pathlib.PurePosixPath, st.just("a/b")) | st.just(pathlib.Path("/x"))
    | st.sampled_from([torch.float32, torch.bfloat16, torch.device("cuda:1"), torch.device("cpu"), torch.Size([2, 3])])
)  # fmt: skip
keys = st.text() | st.integers() | st.none() | st.booleans() | st.tuples(st.text(), st.integers()) | st.just("$")
hashable = st.integers() | st.text() | st.tuples(st.integers(), st.text())
DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64,
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128,
    torch.float8_e4m3fn, torch.float8_e5m2,
]  # fmt: skip


@st.composite
def tensors(draw):
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    size = math.prod(shape) * torch.empty(0, dtype=dtype).element_size()
    data = bytearray(draw(st.binary(min_size=size, max_size=size)))
    if dtype is torch.bool:
        data = bytearray(one & 1 for one in data)
    made = torch.frombuffer(data, dtype=dtype).reshape(shape) if size else torch.empty(shape, dtype=dtype)
    return made.transpose(0, -1) if len(shape) > 1 and draw(st.booleans()) else made


arrays = hnp.arrays(
    st.one_of(
        hnp.boolean_dtypes(), hnp.integer_dtypes(endianness="?"), hnp.floating_dtypes(endianness="?"),
        hnp.complex_number_dtypes(), hnp.datetime64_dtypes(), hnp.unicode_string_dtypes(), hnp.byte_string_dtypes(),
        st.just(np.dtype([("a", "<i4"), ("b", "<f8", (2,))])),
    ),
    hnp.array_shapes(min_dims=0, min_side=0, max_side=3),
)  # fmt: skip
scalars = arrays.filter(lambda one: one.size > 0).map(lambda one: one.reshape(-1)[0])
trees = st.recursive(
    plain | tensors() | arrays | scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys, inner, max_size=4) | st.dictionaries(keys, inner, max_size=4).map(OrderedDict)
        | st.sets(hashable, max_size=4) | st.frozensets(hashable, max_size=4)
        | st.lists(inner, max_size=4).map(lambda items: deque(items, maxlen=9)) | st.lists(hashable).map(Counter)
    ),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(tree=trees)
def test_any_tree_comes_back_exactly(tree, tmp_path_factory):
    assert same(there_and_back(tree, tmp_path_factory.getbasetemp()), tree)


def test_the_comparison_of_these_tests_sees_differences():
    for a, b in [(1, 1.0), (0.0, -0.0), ([1], (1,)), (torch.zeros(1), torch.zeros(1, dtype=torch.int32)), ("a", b"a")]:
        assert not same(a, b)


def test_random_states_come_back(tmp_path):
    for state in (
        random.getstate(),
        np.random.RandomState(3).get_state(),
        np.random.PCG64(3).state,
        np.random.Philox(1).state,
    ):
        assert same(there_and_back(state, tmp_path), state)


def test_named_zones_come_back(tmp_path):
    moment = datetime.datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1)
    back = there_and_back(moment, tmp_path)
    assert back == moment
    assert (back.fold, back.tzinfo.key) == (1, "Europe/Berlin")


def test_tied_tensors_are_kept_once_and_come_back_tied(tmp_path):
    weight = torch.nn.Parameter(torch.randn(4, 3))
    encoder = Encoder("part")
    encoder.encode({"a": weight.detach(), "b": weight.detach(), "part": weight.detach()[:2]})
    assert sorted(encoder.blobs) == ["a", "part"]
    back = there_and_back({"a": weight.detach(), "b": weight.detach(), "p": weight}, tmp_path)
    assert back["a"].data_ptr() == back["b"].data_ptr() == back["p"].data_ptr()
    assert type(back["p"]) is torch.nn.Parameter


def test_views_conjugates_and_expanded_tensors_keep_their_values(tmp_path):
    base = torch.arange(24.0).reshape(2, 3, 4)
    turned = torch.complex(base, base).conj()
    for one in (
        base[:, 1],
        base[::2, ::2],
        base.mT,
        base[0, 0].expand(5, 4),
        turned,
        turned.imag,
        base.permute(2, 0, 1),
    ):
        back = there_and_back(one, tmp_path)
        assert torch.equal(back, one)
        assert back.dtype == one.dtype


def test_dense_layouts_are_kept(tmp_path):
    image = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert there_and_back(image, tmp_path).stride() == image.stride()


def test_a_modules_state_carries_the_versions_of_its_layers(tmp_path):
    state = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)).state_dict()
    back = there_and_back(state, tmp_path)
    assert same(back, state)
    assert back._metadata == state._metadata


def test_names_that_collide_stay_apart(tmp_path):
    tree = {
        "a.b": torch.zeros(1),
        "a": {"b": torch.ones(1)},
        "__metadata__": torch.ones(2),
        1: torch.ones(3),
        "1": torch.ones(4),
    }
    assert same(there_and_back(tree, tmp_path), tree)


SCHEDULERS = {
    "step": lambda o: torch.optim.lr_scheduler.StepLR(o, 2),
    "multistep": lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [1, 2, 2]),
    "lambda": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda epoch: 0.9**epoch),
    "onecycle": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=9),
    "cyclic": lambda o: torch.optim.lr_scheduler.CyclicLR(o, 0.01, 0.1),
    "plateau": lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o),
    "restarts": lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 2),
    "sequential": lambda o: torch.optim.lr_scheduler.SequentialLR(
        o, [torch.optim.lr_scheduler.ConstantLR(o), torch.optim.lr_scheduler.ExponentialLR(o, 0.9)], [2]),
    "swa": lambda o: torch.optim.swa_utils.SWALR(o, 0.05),
}  # fmt: skip
OPTIMIZERS = ["SGD", "Adam", "AdamW", "Adagrad", "Adadelta", "RMSprop", "Rprop", "NAdam", "RAdam", "Adamax", "ASGD"]


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_of_torch_comes_back(name, tmp_path):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=0.1, momentum=0.9)
    scheduler = SCHEDULERS[name](optimizer)
    optimizer.step()
    scheduler.step(*([0.5] if name == "plateau" else []))
    assert same(there_and_back(scheduler.state_dict(), tmp_path), scheduler.state_dict())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_of_torch_comes_back(name, tmp_path):
    net = torch.nn.Linear(3, 2)
    optimizer = getattr(torch.optim, name)(net.parameters(), lr=0.1)
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert same(there_and_back(optimizer.state_dict(), tmp_path), optimizer.state_dict())


class Odd:
    pass


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Odd(), "Odd"),
        (lambda: 0, "function"),
        (defaultdict(int), r"dict\(\.\.\.\)"),
        (namedtuple("Pair", "a b")(1, 2), r"tuple\(\.\.\.\)"),
        (IntEnum("Mode", "A").A, r"its \.value"),
        (torch.nn.Linear(1, 1), r"its state_dict\(\)"),
        (torch.eye(2).to_sparse(), r"\.to_dense\(\)"),
        (torch.empty(2, device="meta"), "no plain data"),
        (np.array([Odd()]), "holds Python objects"),
        (np.ma.masked_array([1]), "numpy.asarray"),
    ],
)
def test_what_cannot_be_saved_is_named_with_its_place(value, said):
    with pytest.raises(CheckpointError, match=said) as caught:
        Encoder("callbacks").encode({"mine": [0, {"deep": value}]})
    assert "callbacks['mine'][1]['deep']" in str(caught.value)


def test_a_tree_that_contains_itself_is_refused():
    tree = {}
    tree["self"] = [tree]
    with pytest.raises(CheckpointError, match="contains itself"):
        Encoder("run").encode(tree)
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(CheckpointError, match="nested too deep"):
        Encoder("run").encode(deep)


def test_the_codec_runs_without_torch_and_numpy(tmp_path):
    import subprocess
    import sys

    script = """
import sys
from epochal.checkpointing.store import CheckpointStore
from epochal.checkpointing.checkpoint import checkpoint
CheckpointStore(sys.argv[1]).save({"run": {"a": [1, (2.0, b"x")]}}, epoch=0, step=0)
assert checkpoint(sys.argv[1], "last").load("run") == {"a": [1, (2.0, b"x")]}
assert not {"torch", "numpy", "safetensors"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
