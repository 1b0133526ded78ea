"""Our tensor files are those of the safetensors library, in both directions, and a poisoned one is refused."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file as load_numpy
from safetensors.torch import load_file, save_file

from epochal.checkpointing.codec import Decoder, Encoder
from epochal.checkpointing.tensorfile import TensorFile, stream
from epochal.core.errors import CheckpointError

STATE = {
    "fc.weight": torch.randn(3, 4), "half": torch.randn(5).bfloat16(), "flag": torch.tensor(True), "none": torch.empty(0, 2),
    "count": torch.tensor(7), "double": torch.randn(2, 2, dtype=torch.float64), "eighth": torch.randn(3).to(torch.float8_e5m2),
    "turned": torch.randn(3, 2).T, "complex": torch.randn(2, dtype=torch.complex64), "ümlaut \n": torch.ones(1),
}  # fmt: skip


def test_the_safetensors_library_reads_what_we_write(tmp_path):
    encoder = Encoder("model")
    encoder.encode(STATE)
    (tmp_path / "m.safetensors").write_bytes(b"".join(stream(encoder.blobs)))
    read = load_file(tmp_path / "m.safetensors")
    assert read.keys() == STATE.keys()
    for name, tensor in STATE.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name].float() if tensor.dtype.itemsize == 1 else read[name],
                           tensor.float() if tensor.dtype.itemsize == 1 else tensor)  # fmt: skip


def test_the_safetensors_library_reads_numpy_arrays(tmp_path):
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([True, False])}
    encoder = Encoder("model")
    encoder.encode(arrays)
    (tmp_path / "m.safetensors").write_bytes(b"".join(stream(encoder.blobs)))
    read = load_numpy(tmp_path / "m.safetensors")
    assert all(np.array_equal(read[name], array) for name, array in arrays.items())


def test_we_read_what_the_safetensors_library_writes(tmp_path):
    state = {name: tensor.contiguous() for name, tensor in STATE.items()}
    save_file(state, tmp_path / "m.safetensors", metadata={"made": "elsewhere"})
    with TensorFile(tmp_path / "m.safetensors") as tensors:
        decoder = Decoder("model", tensors)
        read = {name: decoder.decode({"$": "tensor", "key": name}) for name in state}
    for name, tensor in state.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name].view(torch.uint8) if read[name].dim() else read[name],
                           tensor.view(torch.uint8) if tensor.dim() else tensor)  # fmt: skip


def header(content):
    text = json.dumps(content).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        (1 << 40).to_bytes(8, "little") + b"{}",
        header([]),
        header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}),  # no data
        header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [-8, -4]}}) + b"1234",
        header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}) + b"1234",
        header({"a": {"dtype": "OBJECT", "shape": [1], "data_offsets": [0, 4]}}) + b"1234",
        header({"a": {"dtype": "F32"}}),
    ],
)
def test_a_poisoned_tensor_file_is_refused(content, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError):
        TensorFile(tmp_path / "x.safetensors")
