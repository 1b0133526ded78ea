"""`epochal export`: files that others read, written whole or not at all, and never over another one."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from epochal.checkpointing.store import CheckpointStore


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.body.weight
        self.turned = nn.Parameter(torch.randn(3, 2).T)


@pytest.fixture
def nets(tmp_path):
    """A run `runs/mnist` whose checkpoints hold these two networks; the first is the better one."""
    store = CheckpointStore(tmp_path / "runs" / "mnist" / "checkpoints")
    nets = [Net(), Net()]
    for epoch, net in enumerate(nets):
        optimizer = torch.optim.AdamW(net.parameters())
        parts = {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "ema": net.state_dict()}
        store.save(parts, epoch=epoch, step=epoch, fitness=1.0 - epoch)
    (store.directory.parent / "run.json").write_text('{"name": "mnist"}')
    return nets


def assert_loads(tensors, net):
    fresh = Net()
    fresh.load_state_dict(tensors)
    for name, tensor in net.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], tensor)


def test_pt_is_a_state_dict_that_torch_loads_without_executing_anything(nets, epochal):
    done = epochal("export", "mnist", "--to", "pt")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "mnist-best.pt: model of epoch-0000-step-000000, fitness 1\n"
    assert_loads(torch.load("mnist-best.pt", weights_only=True), nets[0])


def test_safetensors_is_read_by_the_library_of_the_format(nets, epochal):
    assert epochal("export", "mnist", "--to", "safetensors", "--which", "last").returncode == 0
    assert_loads(load_file("mnist-last.safetensors"), nets[1])


def test_one_may_be_named_and_the_file_chosen(nets, epochal, tmp_path):
    out = tmp_path / "a" / "b.pt"
    name = "epoch-0001-step-000001"
    assert epochal("export", "mnist", "--to", "pt", "--which", name, "--out", str(out)).returncode == 0
    assert_loads(torch.load(out, weights_only=True), nets[1])


def test_another_part_may_be_chosen(nets, epochal):
    assert epochal("export", "mnist", "--to", "pt", "--part", "optimizer").returncode == 0
    torch.optim.AdamW(Net().parameters()).load_state_dict(torch.load("mnist-best.pt", weights_only=True))
    done = epochal("export", "mnist", "--to", "safetensors", "--part", "optimizer")
    assert (done.returncode, "use --to pt" in done.stderr) == (2, True)
    done = epochal("export", "mnist", "--to", "pt", "--part", "weights", "--force")
    assert "no part 'weights', only model, optimizer, ema" in done.stderr


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_nothing_is_replaced_without_force(nets, epochal, tmp_path, kind):
    out = tmp_path / "x"
    out.write_text("mine")
    done = epochal("export", "mnist", "--to", kind, "--out", "x")
    assert done.returncode == 2
    assert "x is there already; choose another with --out, or --force" in done.stderr
    assert out.read_text() == "mine"
    assert epochal("export", "mnist", "--to", kind, "--out", "x", "--force").returncode == 0
    assert out.stat().st_size > 100


def test_an_export_that_fails_leaves_nothing(nets, epochal, tmp_path):
    before = sorted(tmp_path.iterdir())
    done = epochal("export", "mnist", "--to", "ultralytics")
    assert done.returncode == 2
    assert "no YOLO" in done.stderr
    (tmp_path / "folder").mkdir()
    assert "is there already" in epochal("export", "mnist", "--to", "pt", "--out", "folder", "--force").stderr
    assert sorted(tmp_path.iterdir()) == [*before[:0], tmp_path / "folder", *before]


def test_a_damaged_checkpoint_is_not_exported(nets, epochal, tmp_path):
    victim = tmp_path / "runs/mnist/checkpoints/epoch-0000-step-000000/model.safetensors"
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(data)
    done = epochal("export", "mnist", "--to", "pt")
    assert done.returncode == 2
    assert "model.safetensors is damaged" in done.stderr
