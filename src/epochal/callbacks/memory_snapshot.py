"""What was in memory when it ran out."""

import gc
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast, final

from epochal.checkpointing.capture import unwrapped
from epochal.conditions.arguments import check_count
from epochal.core.callback import Callback
from epochal.core.log import log
from epochal.runs.folder import free_file

if TYPE_CHECKING:
    from epochal.core.run import Run

STEM = "out-of-memory"
SAYINGS = ("out of memory", "can't allocate memory", "not enough memory", "unable to allocate", "ALLOC_FAILED")
GIVEN_UP = """An epoch was given up in the middle of a batch and is tried again: its trainer has handled the error and
freed what it could before this was written. Ultralytics does so when memory runs out in its first epoch."""
MB = 1e6


@final
class MemorySnapshot(Callback):
    """Write down what was in memory when a training fails for want of it.

    >>> import contextlib
    >>> from epochal.testing import simulate
    >>> class Hungry(Callback):
    ...     def on_train_batch_end(self, run):
    ...         raise MemoryError("all of it")
    >>> with contextlib.suppress(MemoryError):
    ...     _ = simulate([Hungry(), MemorySnapshot()], [{}], dir="runs")
    >>> Path("runs/simulate/out-of-memory-1.txt").read_text().splitlines()[0]
    'MemoryError: all of it'

    largest
        How many tensors are listed, the largest first, those of one storage together.
    history
        How many allocations and frees on CUDA are remembered with their stacks, for ``out-of-memory-1.pickle``, which
        https://pytorch.org/memory_viz draws; each costs some KB of the host's memory. 0: none.

    ``out-of-memory-1.txt`` in the run's folder tells where the training stood, what the process and the machine used,
    the batch, and the largest tensors with what they are: a parameter, a gradient, a state of the optimizer, a variable
    of the function that failed. It counts as out of memory what PyTorch raises as that, on any device, and MemoryError.
    Ultralytics catches it in the first epoch, frees everything and tries again with half the batch: what is left to see
    at ``on_train_epoch_abort`` is written then, the history of CUDA with it.
    """

    guarded = True

    def __init__(self, *, largest: int = 20, history: int = 100_000, name: str | None = None) -> None:
        check_count(largest, owner="MemorySnapshot", argument="largest")
        if history != 0:
            check_count(history, owner="MemorySnapshot", argument="history")
        self.largest, self.history = largest, history
        if name is not None:
            self.name = name
        self.recording = self.in_batch = False

    def __repr__(self) -> str:
        return f"MemorySnapshot(largest={self.largest}, history={self.history})"

    def on_train_start(self, run: "Run") -> None:
        """Have CUDA remember its allocations, if it is in use."""
        self.in_batch = False
        memory = cuda_memory()
        if memory is not None and self.history:
            memory._record_memory_history(max_entries=self.history)
            self.recording = True

    def on_train_batch_start(self, run: "Run") -> None:
        """Note that a batch is open."""
        self.in_batch = True

    def on_train_batch_end(self, run: "Run") -> None:
        """Note that no batch is open."""
        self.in_batch = False

    def on_train_epoch_abort(self, run: "Run") -> None:
        """Write what is left to see, where an epoch is given up in the middle of a batch and the training goes on."""
        if self.in_batch and run.error is None:
            self.write(run, None)
        self.in_batch = False

    def on_exception(self, run: "Run") -> None:
        """Write what is in memory, if it ran out."""
        if run.error is not None and is_out_of_memory(run.error):
            self.write(run, run.error)

    def teardown(self, run: "Run") -> None:
        """Let CUDA forget."""
        memory = cuda_memory()
        if self.recording and memory is not None:
            memory._record_memory_history(enabled=None)
        self.recording = False

    def write(self, run: "Run", error: BaseException | None) -> None:
        """Write the report, and CUDA's history beside it."""
        if run.folder is None:
            return
        path = free_file(run.folder.make(), STEM, ".txt")
        path.write_text("\n".join(report(run, error, self.largest)) + "\n", encoding="utf-8")
        memory = cuda_memory()
        if self.recording and memory is not None:
            memory._dump_snapshot(str(path.with_suffix(".pickle")))
        log().error("%s: out of memory in epoch %d, batch %d: see %s", run.label(self), run.epoch, run.batch, path)


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error, or what it was raised from, is for want of memory.

    >>> is_out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")), is_out_of_memory(OSError("x"))
    (True, False)
    """
    cause: BaseException | None = error
    while cause is not None:
        named = any(kind.__name__ in ("MemoryError", "OutOfMemoryError") for kind in type(cause).__mro__)
        text = str(cause).lower()
        if named or (isinstance(cause, RuntimeError) and any(saying.lower() in text for saying in SAYINGS)):
            return True
        cause = cause.__cause__
    return False


def cuda_memory() -> Any:
    """Return ``torch.cuda.memory`` if CUDA is in use, else None."""
    torch = sys.modules.get("torch")
    return torch.cuda.memory if torch is not None and torch.cuda.is_initialized() else None


def report(run: "Run", error: BaseException | None, largest: int) -> Iterable[str]:
    """Return the report's lines."""
    yield GIVEN_UP if error is None else f"{type(error).__name__}: {error}"
    yield f"\nepoch {run.epoch}, batch {run.batch}, step {run.step}\nbatch: {shapes(run.data)}\n{process_memory()}"
    named = named_tensors(run, error)
    live = live_tensors([tensor for tensor, _ in named])
    names: dict[int, str] = {}
    for tensor, name in named:
        names.setdefault(id(tensor), name)
    total = sum(one.size for one in live)
    yield f"\n{len(live)} storages of tensors, {total / MB:,.1f} MB in all; the largest:"
    for one in live[:largest]:
        told = dict.fromkeys(names[id(tensor)] for tensor in one.tensors if id(tensor) in names)
        yield f"{one.size / MB:12,.1f} MB  {shapes(one.tensors[0])}  {', '.join(told) or '?'}"
    memory = cuda_memory()
    if memory is not None:
        yield f"\n{memory.memory_summary()}"


def process_memory() -> str:
    """Return what this process and the machine use."""
    try:
        import psutil
    except ImportError:
        return 'memory of the process: unknown without psutil, pip install "epochal[system]"'
    machine, used = psutil.virtual_memory(), psutil.Process().memory_info().rss
    free = f"{machine.available / MB:,.0f} of {machine.total / MB:,.0f} MB"
    return f"memory of the process: {used / MB:,.0f} MB; free: {free}"


class Storage(NamedTuple):
    """A piece of memory and the tensors that show it; ``size`` in bytes."""

    size: int
    tensors: list[Any]


def live_tensors(known: Iterable[Any]) -> list[Storage]:
    """Return the memory of all tensors that Python knows, the largest first; ``known`` may have some it does not tell.

    What autograd keeps for the backward pass and nobody else holds is not among them: only CUDA's history shows it.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return []
    found: dict[tuple[Any, int], Storage] = {}
    for one in (*known, *(one for one in gc.get_objects() if issubclass(type(one), torch.Tensor))):
        try:
            storage = one.untyped_storage()
            key, size = (one.device, storage.data_ptr()), storage.nbytes()
        except Exception:  # a tensor without memory of its own: sparse, meta, fake
            continue
        if size:
            found.setdefault(key, Storage(size, [])).tensors.append(one)
    return sorted(found.values(), key=lambda one: -one.size)


def named_tensors(run: "Run", error: BaseException | None) -> list[tuple[Any, str]]:
    """Return tensors and what they are: of the model, of the optimizer, a variable of a function that failed."""
    named: list[tuple[Any, str]] = []
    model = unwrapped(run.model)
    if hasattr(model, "named_parameters"):
        for name, parameter in model.named_parameters():
            named += [(parameter, f"parameter {name}"), (parameter.grad, f"gradient of {name}")]
            state = getattr(run.optimizer, "state", {}).get(parameter, {})
            named += [(value, f"{key} of {name} in the optimizer") for key, value in state.items()]
        named += [(buffer, f"buffer {name}") for name, buffer in model.named_buffers()]
    traceback = error.__traceback__ if error is not None else None
    while traceback is not None:
        code, frame = traceback.tb_frame.f_code, traceback.tb_frame
        where = f"in {code.co_qualname} ({Path(code.co_filename).name}:{traceback.tb_lineno})"
        named += [(value, f"{name} {where}") for name, value in frame.f_locals.items()]
        traceback = traceback.tb_next
    return [(one, name) for one, name in named if hasattr(one, "untyped_storage")]


def shapes(data: Any) -> str:
    """Return what a batch, or a tensor, is: shape, type and device.

    >>> import numpy
    >>> shapes({"img": numpy.zeros((8, 3)), "name": "a"}), shapes([numpy.zeros(2)] * 40)
    ('{img: (8, 3) float64, name: str}', '[(2,) float64, ... 40 in all]')
    """
    if isinstance(data, Mapping):
        batch = cast("Mapping[str, Any]", data)
        return "{" + ", ".join(f"{name}: {shapes(value)}" for name, value in batch.items()) + "}"
    if isinstance(data, (list, tuple)):
        items = cast("list[Any]", data)
        if len(items) > 4:
            return f"[{shapes(items[0])}, ... {len(items)} in all]"
        return "[" + ", ".join(map(shapes, items)) + "]"
    if not hasattr(data, "shape"):
        return "none" if data is None else type(data).__name__
    device = getattr(data, "device", "")
    kind = str(data.dtype).removeprefix("torch.")
    return f"{tuple(data.shape)} {kind}" + (f" {device}" if device and str(device) != "cpu" else "")
