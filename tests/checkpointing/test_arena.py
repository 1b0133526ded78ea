"""A state in the arena is the state as it was, byte for byte, whatever happens to it afterwards."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from epochal.checkpointing.arena import Arena
from epochal.checkpointing.late import Late, Piece
from epochal.checkpointing.parts import encode_parts
from epochal.checkpointing.snapshot import stepped_by
from epochal.checkpointing.spare import spare_memory


def bytes_of(encoded):
    return {(part, name): bytes(blob.data()) for part, blobs in encoded.tensors.items() for name, blob in blobs.items()}


def odd_state():
    """Tensors and arrays whose memory is not simply their bytes, beside plain ones."""
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    return {
        "plain": base.clone(),
        "transposed": base.T,
        "every_second": base[:, ::2],
        "expanded": torch.ones(1, 3).expand(5, 3),
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "conjugated": torch.randn(3, dtype=torch.complex64).conj(),
        "negated": torch.randn(3, dtype=torch.complex64).conj().imag,
        "complex128": torch.randn(3, dtype=torch.complex128),
        "half": torch.randn(7).to(torch.bfloat16),
        "float8": torch.randn(5).to(torch.float8_e4m3fn),
        "flags": torch.tensor([True, False]),
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(torch.randn(2, 2)),
        "array": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "strided": np.arange(10)[::3],
        "empty_array": np.empty((0, 2)),
    }


def test_every_kind_of_tensor_is_held_as_it_would_be_written():
    encoded = encode_parts({"model": odd_state()})
    held = Arena().hold(encoded)
    assert bytes_of(held.encoded) == bytes_of(encoded)
    assert held.encoded.structures == encoded.structures
    assert not held.open


def test_what_is_held_does_not_follow_the_tensors():
    state = {"w": torch.ones(1000), "strided": torch.ones(10, 10).T, "a": np.ones(10)}
    encoded = encode_parts({"model": state})
    before = bytes_of(encoded)
    held = Arena().hold(encoded)
    state["w"].zero_(), state["strided"].zero_(), state["a"].fill(0)
    assert bytes_of(held.encoded) == before


def test_tied_tensors_are_held_once():
    weight = torch.randn(100, 100)
    encoded = encode_parts({"model": {"in": weight, "out": weight}})
    assert len(encoded.tensors["model"]) == 1
    arena = Arena()
    arena.hold(encoded)
    assert weight.nbytes <= arena.size < 2 * weight.nbytes


sizes = st.lists(st.integers(0, 300), max_size=6)


@settings(deadline=None, max_examples=60)
@given(st.lists(sizes, min_size=1, max_size=4))
def test_one_piece_of_memory_serves_states_of_all_sizes(states):
    arena, largest = Arena(), -1
    for number, lengths in enumerate(states):
        encoded = encode_parts({"a": {str(n): torch.full((n,), float(number)) for n in lengths}})
        assert bytes_of(arena.hold(encoded).encoded) == bytes_of(encoded)
        needed = sum(-(-4 * n // 64) * 64 for n in set(lengths))
        assert arena.size >= max(largest, needed)
        if needed <= largest:
            assert arena.size == largest
        largest = arena.size  # at least a page


def test_what_an_optimizer_steps_is_copied_late_and_nothing_else():
    net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.randn(8, 4)).sum().backward()
    optimizer.step()
    parts = {"model": net.state_dict(), "optimizer": optimizer.state_dict()}
    encoded = encode_parts(parts)
    held = Arena().hold(encoded, stepped_by([optimizer]))
    late = {piece.name for piece in held.late.pieces}
    moments = ("exp_avg", "exp_avg_sq", "step")
    assert late == {f"model: {name}" for name, _ in net.named_parameters()} | {
        f"optimizer: state.{number}.{what}" for number in range(4) for what in moments
    }
    before = bytes_of(encoded)
    held.join()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    assert bytes_of(held.encoded) == before
    assert held.late.changed() == []


def test_a_tensor_that_was_changed_in_place_before_it_was_copied_is_named():
    weight, other = torch.ones(3), torch.ones(3)
    target = torch.zeros(6)
    addresses = (target.data_ptr(), target.data_ptr() + 12)
    pieces = [
        Piece(name, one, one._version, at)
        for (name, one), at in zip((("w", weight), ("o", other)), addresses, strict=True)
    ]
    late = Late(pieces)
    weight.mul_(2)
    late.copy()
    assert late.changed() == ["w"]
    other.mul_(2)  # after the verdict: the copies are made, whatever happens now
    assert late.changed() == ["w"]


def test_both_threads_may_copy_and_each_piece_is_copied_once():
    import threading

    copies = []

    class Counted(Piece):
        def copy(self):
            copies.append(self.name)

    late = Late([Counted(str(n), torch.ones(1), 0, None) for n in range(500)])
    threads = [threading.Thread(target=late.copy) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(copies, key=int) == [str(n) for n in range(500)]


def test_a_state_that_needs_more_than_half_of_what_is_spare_does_not_fit():
    encoded = encode_parts({"model": {"w": torch.ones(1024, 1024)}})  # 4 MB
    assert Arena(spare=lambda: 9 << 20).fits(encoded)
    assert not Arena(spare=lambda: 7 << 20).fits(encoded)
    assert Arena(spare=lambda: None).fits(encoded)
    arena = Arena(spare=lambda: 9 << 20)
    arena.hold(encoded)
    arena.spare = lambda: 0
    assert arena.fits(encoded)  # it has the memory already


def test_spare_memory_is_the_least_of_machine_and_container(tmp_path):
    meminfo, group = tmp_path / "meminfo", tmp_path / "group"
    meminfo.write_text("MemTotal: 100 kB\nMemAvailable:   50 kB\n")
    group.mkdir()
    assert spare_memory(meminfo, group) == 50 * 1024
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("30000\n")
    assert spare_memory(meminfo, group) == 50 * 1024
    (group / "memory.max").write_text("40000\n")
    (group / "memory.stat").write_text("anon 1\ninactive_file 2000\n")
    assert spare_memory(meminfo, group) == 40000 - 30000 + 2000


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("lazy", [False, True])
def test_what_lies_on_a_gpu_is_copied_behind_what_the_gpu_does(lazy):
    weight = torch.randn(1 << 20, device="cuda", requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    encoded = encode_parts({"model": {"w": weight, "half": torch.randn(1000, 1000, device="cuda").T}})
    before = copy.deepcopy(bytes_of(encoded))
    held = Arena().hold(encoded, stepped_by([optimizer]) if lazy else ())
    assert held.open == lazy
    held.join()
    with torch.no_grad():
        weight.zero_()
    held.await_devices()
    assert bytes_of(held.encoded) == before
