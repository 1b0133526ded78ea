"""The machine is measured on a thread that ends with the training."""

import copy
import pickle
import threading
from itertools import count

import pytest

import epochal.callbacks.system_stats
from epochal import Callback, CSVLogger, Loop, SystemStats, attach
from epochal.core.errors import ArgumentError, MissingExtra
from epochal.testing import simulate

psutil = pytest.importorskip("psutil")
torch = pytest.importorskip("torch")
OFTEN = 0.01


def threads():
    return [one for one in threading.enumerate() if one.name == "epochal SystemStats"]


def until_measured(stats, batches=3):
    """Yield batches until something was measured, in each so many times."""
    for batch in range(batches):
        yield batch
        for _ in count():
            if stats.sampling.waiting:
                break
            threading.Event().wait(OFTEN)


def train(stats, *callbacks, epochs=1, **options):
    with Loop(model=torch.nn.Linear(1, 1), callbacks=[stats, *callbacks], **options) as run:
        for _ in run.epochs(epochs):
            for _ in run.batches(until_measured(stats)):
                pass
    return run


def test_what_is_logged_is_what_psutil_says(run_dir):
    run = train(SystemStats(seconds=OFTEN), CSVLogger(), dir=run_dir)
    names = {name for name in run.metrics if name.startswith("system/")}
    assert names == {f"system/{name}" for name in ("cpu", "memory", "disk", "process_cpu", "process_memory_gb")}
    assert run.metrics["system/process_memory_gb"] == pytest.approx(psutil.Process().memory_info().rss / 1e9, rel=0.2)
    assert run.metrics["system/memory"] == pytest.approx(psutil.virtual_memory().percent, abs=20)
    assert run.metrics["system/disk"] == pytest.approx(psutil.disk_usage(str(run_dir)).percent, abs=5)
    assert 0 <= run.metrics["system/cpu"] <= 100
    assert "system/cpu" in (run.dir / "metrics.csv").read_text()
    assert threads() == []


def test_the_value_of_an_epoch_is_the_mean_of_its_batches(monkeypatch):
    numbers = count(1)
    seen = []

    def machine(place):
        return lambda: {"cpu": float(next(numbers))}

    class Sees(Callback):
        def on_train_batch_end(self, run):
            if "system/cpu" in run.metrics:
                seen.append(run.metrics["system/cpu"])

    monkeypatch.setattr(epochal.callbacks.system_stats, "machine", machine)
    run = train(SystemStats(seconds=OFTEN), Sees())
    last = int(seen[-1])
    assert run.history[0]["system/cpu"] == pytest.approx(sum(range(1, last + 1)) / last)


def test_the_thread_ends_when_the_training_fails():
    class Fail(Callback):
        def on_train_batch_end(self, run):
            raise ZeroDivisionError

    stats = SystemStats()
    with pytest.raises(ZeroDivisionError):
        simulate([stats, Fail()], [{}])
    assert threads() == []
    assert stats.sampling is None


def test_a_source_that_fails_is_said_once_and_left_out(monkeypatch, caplog):
    def gpus():
        raise OSError("the driver is gone")

    monkeypatch.setattr(epochal.callbacks.system_stats, "gpus", gpus)
    run = train(SystemStats(seconds=OFTEN))
    assert run.metrics["system/cpu"] >= 0
    assert caplog.text.count("a measurement failed") == 1
    assert run.past[-1].failures == {}


def test_it_can_be_copied_while_it_measures_and_used_again():
    copies = []

    class Copies(Callback):
        def on_train_batch_end(self, run):
            copies.extend((copy.deepcopy(stats), pickle.loads(pickle.dumps(stats))))

    stats = SystemStats(seconds=5)
    for _ in range(2):
        simulate([stats, Copies()], [{}])
    assert all(one.sampling is None and one.seconds == 5 for one in copies)


def test_bad_arguments_and_a_missing_package_are_said_at_construction(monkeypatch):
    with pytest.raises(ArgumentError, match="SystemStats: seconds"):
        SystemStats(seconds=0)
    monkeypatch.setattr(epochal.callbacks.system_stats, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r'pip install "epochal\[system\]"'):
        SystemStats()


def test_a_gpu_is_not_touched_where_nobody_uses_one():
    if torch.cuda.is_initialized():
        pytest.skip("CUDA is in use already")
    assert epochal.callbacks.system_stats.gpus() == {}
    assert not torch.cuda.is_initialized()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_in_use_is_measured():
    held = torch.zeros(25_000_000, device="cuda")
    found = epochal.callbacks.system_stats.gpus()
    used = found.get("gpu0/memory_gb", found.get("gpu0/allocated_gb"))
    assert used >= held.nbytes / 1e9


@pytest.mark.slow
def test_yolo_is_measured_too(yolo, quick):
    model = yolo()
    run = attach(model, SystemStats(seconds=OFTEN))
    model.train(**quick(epochs=1))
    assert run.history[0]["system/process_memory_gb"] > 0
    assert not [name for name in run.metrics if "final/system" in name]
    assert threads() == []
