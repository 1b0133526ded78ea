"""What ran out of memory leaves a report that says what was in it."""

import copy
import pickle

import pytest

from epochal import Loop, MemorySnapshot, attach
from epochal.callbacks.memory_snapshot import is_out_of_memory
from epochal.core.errors import ArgumentError
from epochal.testing import simulate

torch = pytest.importorskip("torch")
TOO_MUCH = 2**50  # floats: more than any machine has


def step(net, x):
    hidden = net[0](x)
    return hidden @ torch.empty(TOO_MUCH)


def train(snapshot, run_dir, fail=step, fail_at=2):
    net = torch.nn.Sequential(torch.nn.Linear(50, 40_000), torch.nn.BatchNorm1d(40_000))
    optimizer = torch.optim.Adam(net.parameters())
    loop = Loop(model=net, optimizer=optimizer, callbacks=[snapshot], dir=run_dir)
    with loop as run:
        for _ in run.epochs(1):
            for x in run.batches(torch.zeros(4, 8, 50)):
                optimizer.zero_grad()
                net(x).sum().backward()
                optimizer.step()
                if run.batch == fail_at:
                    fail(net, x)
    return run


def reports(run_dir):
    return sorted(run_dir.glob("*/out-of-memory-*.txt"))


def test_a_real_allocation_that_fails_leaves_what_was_in_memory(run_dir, caplog):
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        train(MemorySnapshot(), run_dir)
    (path,) = reports(run_dir)
    text = path.read_text()
    assert text.startswith("RuntimeError: ")
    assert f"you tried to allocate {4 * TOO_MUCH} bytes" in text
    assert "epoch 0, batch 2, step 3" in text
    assert "batch: (8, 50) float32" in text
    assert "memory of the process: " in text
    rows = [line.strip() for line in text.splitlines() if " MB  (" in line]
    assert len(rows) == 20
    sizes = [float(row.split(" MB")[0].replace(",", "")) for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    for one in (
        "(40000, 50) float32  parameter 0.weight",
        "(40000, 50) float32  gradient of 0.weight",
        "(40000, 50) float32  exp_avg of 0.weight in the optimizer",
    ):
        assert f"8.0 MB  {one}" in rows
    assert any("hidden in step (test_memory_snapshot.py:" in row for row in rows)
    assert f"out of memory in epoch 0, batch 2: see {path}" in caplog.text


def test_the_sizes_are_those_of_memory_not_of_views(run_dir):
    def fail(net, x):
        whole = torch.zeros(30_000_000)
        part = whole[:10]
        raise MemoryError(f"with {len(part)}")

    with pytest.raises(MemoryError):
        train(MemorySnapshot(largest=1), run_dir, fail)
    text = reports(run_dir)[0].read_text()
    assert "120.0 MB  (30000000,) float32  whole in " in text
    assert ", part in " in text


def test_other_errors_leave_nothing(run_dir):
    def fail(net, x):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(MemorySnapshot(), run_dir, fail)
    assert reports(run_dir) == []


def test_a_second_training_writes_beside_the_first(run_dir):
    snapshot = MemorySnapshot()
    for _ in range(2):
        with pytest.raises(RuntimeError):
            train(snapshot, run_dir)
    assert len(reports(run_dir)) == 2


def raised_from(cause):
    try:
        raise ValueError("a step failed") from cause
    except ValueError as error:
        return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"), True),
        (MemoryError(), True),
        (raised_from(MemoryError()), True),
        (raised_from(None), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_errors_for_want_of_memory_are_told_from_others(error, expected):
    assert is_out_of_memory(error) is expected


def test_numpys_and_torchs_own_errors_are_known():
    numpy = pytest.importorskip("numpy")
    for allocate in (lambda: numpy.zeros(2**60, dtype="uint8"), lambda: torch.empty(TOO_MUCH)):
        with pytest.raises((MemoryError, RuntimeError)) as caught:
            allocate()
        assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("options", [{"largest": 0}, {"history": -1}, {"history": 0.5}])
def test_bad_arguments_are_refused_at_construction(options):
    with pytest.raises(ArgumentError, match="MemorySnapshot"):
        MemorySnapshot(**options)


def test_copies_are_whole():
    for one in (copy.deepcopy(MemorySnapshot(history=0)), pickle.loads(pickle.dumps(MemorySnapshot(history=0)))):
        assert simulate([one], [{}]).end_reason == "completed"
        assert one.history == 0


def fail_once(run):
    def fail(*_):
        hook.remove()
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    hook = run.model.register_forward_hook(fail)


def test_yolos_retry_after_out_of_memory_is_written_down(yolo, quick):
    model = yolo()
    run = attach(model, MemorySnapshot(largest=3))
    run.add_callback("on_train_batch_start", fail_once, once=True)
    model.train(**quick(epochs=1))
    assert run.end_reason == "completed"
    (path,) = run.dir.glob("out-of-memory-*.txt")
    text = path.read_text()
    assert "An epoch was given up in the middle of a batch and is tried again" in text
    assert "img: (8, 3, 32, 32) uint8" in text


def test_yolo_out_of_memory_later_is_an_error_with_its_report(yolo, quick):
    model = yolo()
    run = attach(model, MemorySnapshot(largest=3))
    run.add_callback("on_train_batch_start", lambda run: fail_once(run) if run.epoch == 1 else None)
    with pytest.raises(RuntimeError, match="out of memory"):
        model.train(**quick())
    (path,) = run.dir.glob("out-of-memory-*.txt")
    assert path.read_text().startswith(
        "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB.\n\nepoch 1, batch 0"
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda_the_allocators_history_is_written_too(run_dir):
    torch.cuda.init()
    with pytest.raises(torch.OutOfMemoryError):
        train(MemorySnapshot(), run_dir, lambda net, x: torch.empty(TOO_MUCH, device="cuda"))
    (path,) = reports(run_dir)
    assert path.with_suffix(".pickle").stat().st_size > 0
    assert "CUDA memory summary" in path.read_text()
