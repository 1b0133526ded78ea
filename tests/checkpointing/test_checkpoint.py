"""Opening a checkpoint outside a training, and loading it into a model."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from epochal.checkpointing.checkpoint import checkpoint
from epochal.checkpointing.store import CheckpointStore
from epochal.core.errors import ArgumentError, CheckpointError


class Net(nn.Module):
    def __init__(self, classes=10, extra=False):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 84), nn.BatchNorm1d(84))
        self.fc = nn.Linear(84, classes)
        if extra:
            self.head = nn.Linear(2, 2)


@pytest.fixture
def run(tmp_path):
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    for epoch, fitness in enumerate([0.5, 0.9, 0.7]):
        torch.manual_seed(epoch)
        store.save({"model": Net().state_dict()}, epoch=epoch, step=epoch, fitness=fitness)
    return tmp_path / "run"


def equal(model, other):
    return all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


def expected(epoch):
    torch.manual_seed(epoch)
    return Net()


def test_a_run_its_folders_and_a_checkpoint_can_be_opened(run):
    one = run / "checkpoints" / "epoch-0001-step-000001"
    for where in (run, str(run), run / "checkpoints", SimpleNamespace(dir=run), SimpleNamespace(dir=str(run)), one):
        assert checkpoint(where).manifest.epoch == 1
    assert checkpoint(run, "last").manifest.epoch == 2
    assert checkpoint(one, "last").manifest.epoch == 1


def test_weights_land_in_the_model(run):
    model = Net()
    checkpoint(run, "last").load_into(model)
    assert equal(model, expected(2))


def test_without_a_fitness_best_follows_the_hint_or_says_so(tmp_path):
    store = CheckpointStore(tmp_path)
    store.save({}, epoch=0, step=0)
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* has a fitness.*'last'"):
        checkpoint(tmp_path)
    (tmp_path / "best").write_text("epoch-0000-step-000000\n")
    assert checkpoint(tmp_path).manifest.epoch == 0


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "there is no folder"),
        (lambda path: path.touch(), "is a file"),
        (lambda path: path.mkdir(), "no committed checkpoint in"),
    ],
)
def test_what_is_no_checkpoint_is_an_error_in_words(make, said, tmp_path):
    make(tmp_path / "x")
    with pytest.raises(CheckpointError, match=said):
        checkpoint(tmp_path / "x")


def test_one_can_be_opened_by_its_name(run):
    assert checkpoint(run, "epoch-0001-step-000001").manifest.epoch == 1
    with pytest.raises(ArgumentError, match=r"which='epoch-0001'.*did you mean epoch-0001-step-000001\?"):
        checkpoint(run, "epoch-0001")


def test_a_damaged_one_is_named_with_what_is_wrong(run):
    (run / "checkpoints" / "epoch-0001-step-000001" / "COMMIT").unlink()
    with pytest.raises(CheckpointError, match="COMMIT is missing"):
        checkpoint(run, "epoch-0001-step-000001")


def test_wrong_arguments_are_errors(run):
    with pytest.raises(ArgumentError, match=r"which='newest'.*epoch-0002-step-000002"):
        checkpoint(run, "newest")
    with pytest.raises(ArgumentError, match="which=3"):
        checkpoint(run, 3)
    with pytest.raises(ArgumentError, match="not int"):
        checkpoint(3)


def test_another_model_is_named_and_nothing_is_loaded(run):
    model = Net(classes=5, extra=True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        checkpoint(run).load_into(model)
    lines = str(caught.value).splitlines()[1:]
    assert lines == [
        "head.weight: missing in the checkpoint",
        "head.bias: missing in the checkpoint",
        "fc.weight: saved (10, 84), model (5, 84)",
        "fc.bias: saved (10,), model (5,)",
    ]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    with pytest.raises(CheckpointError, match=r"fc\.weight"):
        checkpoint(run).load_into(model, strict=False)


def test_many_differences_are_cut_short(run):
    with pytest.raises(CheckpointError, match=r"and 13 more\nstrict=False"):
        checkpoint(run).load_into(nn.Sequential(*(nn.Linear(1, 1) for _ in range(6))))


def test_not_strict_loads_what_both_have(run):
    model = Net(extra=True)
    kept = model.head.weight.clone()
    checkpoint(run).load_into(model, strict=False)
    assert torch.equal(model.fc.weight, expected(1).fc.weight)
    assert torch.equal(model.head.weight, kept)


class DistributedDataParallel(nn.Module):  # stands for torch's own, which needs a process group
    def __init__(self, module):
        super().__init__()
        self.module = module


def test_wrappers_are_taken_off_at_loading_and_at_saving(run, tmp_path):
    for wrap in (
        torch.compile,
        nn.DataParallel,
        DistributedDataParallel,
        lambda net: DistributedDataParallel(torch.compile(net)),
    ):
        model = Net()
        checkpoint(run).load_into(wrap(model))
        assert equal(model, expected(1))
        state = wrap(model).state_dict()
        saved = CheckpointStore(tmp_path / "other").save({"model": state}, epoch=0, step=0)
        fresh = Net()
        saved.load_into(fresh)
        assert equal(fresh, expected(1))


def test_tied_weights_load_and_stay_tied(tmp_path):
    def tied():
        net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
        net[1].weight = net[0].weight
        return net

    saved = CheckpointStore(tmp_path).save({"model": tied().state_dict()}, epoch=0, step=0)
    assert saved.manifest.files["model.safetensors"].size < 200
    model = tied()
    saved.load_into(model)
    assert torch.equal(model[0].weight, saved.load("model")["1.weight"])
    assert model[0].weight is model[1].weight


def test_what_is_no_module_is_told_what_to_do(run):
    with pytest.raises(CheckpointError, match=r"\.load\('model'\)"):
        checkpoint(run).load_into(object())


def test_a_part_that_is_not_there_is_named(run):
    with pytest.raises(CheckpointError, match="no part 'optimizer', only model"):
        checkpoint(run).load("optimizer")
