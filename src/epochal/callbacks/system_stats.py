"""What a training takes of its machine: processor, memory, disk, GPUs."""

import sys
import threading
from collections import deque
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from epochal.conditions.arguments import check_amount
from epochal.core.callback import Callback
from epochal.core.errors import MissingExtra
from epochal.core.log import log
from epochal.core.preemption import within

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from epochal.core.run import Run

GB = 1e9
FIRST = 1.0  # seconds until the first measurement: the use of a processor is that of some time
LAST = 5.0  # seconds that the end of a training waits for a driver that does not answer


@final
class SystemStats(Callback):
    """Log the use of processor, memory, disk and GPUs as ``system/...``, measured on a thread of its own.

    >>> SystemStats(seconds=30).name
    'SystemStats'

    seconds
        The time between two measurements; the first comes after a second at most.

    Logged are, in percent, ``cpu`` (all cores together), ``memory``, ``disk`` (the one the run's folder is on) and
    ``process_cpu`` (100 is one core, so it may be more), and ``process_memory_gb`` (10^9 bytes, resident; the workers
    of a DataLoader are processes of their own). For each GPU of the process ``gpu0/use``, ``gpu0/memory`` (percent),
    ``gpu0/memory_gb``, ``gpu0/celsius`` and ``gpu0/watts``, as the driver tells them; where nvidia-ml-py or a driver is
    not there, what PyTorch holds of a GPU: ``gpu0/allocated_gb`` and ``gpu0/reserved_gb``.

    A measurement is logged at the end of the batch that runs meanwhile, or of the epoch; an epoch's value is the mean.
    The thread ends in ``teardown``, also after a crash. ``MissingExtra`` where psutil is not installed.
    """

    guarded = True

    def __init__(self, *, seconds: float = 10.0, name: str | None = None) -> None:
        self.seconds = check_amount(seconds, owner="SystemStats", argument="seconds")
        if find_spec("psutil") is None:
            raise MissingExtra("psutil", "system", "SystemStats")
        if name is not None:
            self.name = name
        self.sampling: Sampling | None = None

    def __repr__(self) -> str:
        return f"SystemStats(seconds={self.seconds:g})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "sampling": None}  # a thread cannot travel

    def on_train_start(self, run: "Run") -> None:
        """Start the thread."""
        self.sampling = Sampling(self.seconds, existing(run))

    def on_train_batch_end(self, run: "Run") -> None:
        """Log what was measured meanwhile."""
        if self.sampling is not None and self.sampling.waiting:
            self.sampling.hand_over(run)

    def on_fit_epoch_end(self, run: "Run") -> None:
        """Log what was measured in the validation."""
        if self.sampling is not None:
            self.sampling.hand_over(run)

    def teardown(self, run: "Run") -> None:
        """End the thread."""
        sampling, self.sampling = self.sampling, None
        if sampling is not None:
            sampling.end(within(run.engine, LAST))


class Sampling:
    """The thread of one training, and the measurements that wait for being logged."""

    def __init__(self, seconds: float, place: Path) -> None:
        self.seconds, self.place = seconds, place
        self.waiting: deque[Mapping[str, float]] = deque(maxlen=1000)
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.measure, name="epochal SystemStats", daemon=True)
        self.thread.start()

    def measure(self) -> None:
        """Measure until the end; what fails is said once and not tried again."""
        sources = [machine(self.place), gpus]
        pause = min(self.seconds, FIRST)
        while not self.over.wait(pause):
            pause = self.seconds
            found: dict[str, float] = {}
            for source in tuple(sources):
                try:
                    found.update(source())
                except Exception:
                    sources.remove(source)
                    log().exception("SystemStats: a measurement failed; it is left out from now on")
            self.waiting.append({f"system/{name}": value for name, value in found.items()})

    def hand_over(self, run: "Run") -> None:
        """Log what waits, on the training thread: so it belongs to the epoch in which it was measured."""
        while self.waiting:
            run.log(self.waiting.popleft())

    def end(self, limit: float) -> None:
        """End the thread, unless a driver holds it longer than so many seconds."""
        self.over.set()
        self.thread.join(limit)


def machine(place: Path) -> "Callable[[], dict[str, float]]":
    """Return what measures the machine and this process."""
    import psutil

    process = psutil.Process()
    psutil.cpu_percent()  # the first answer of both means nothing: they tell of the time since they were last asked
    process.cpu_percent()

    def measure() -> dict[str, float]:
        return {
            "cpu": psutil.cpu_percent(),
            "memory": psutil.virtual_memory().percent,
            "disk": psutil.disk_usage(str(place)).percent,
            "process_cpu": process.cpu_percent(),
            "process_memory_gb": process.memory_info().rss / GB,
        }

    return measure


def gpus() -> dict[str, float]:
    """Measure the GPUs that PyTorch uses in this process; never the first to touch one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    found: dict[str, float] = {}
    for index in range(torch.cuda.device_count()):
        try:
            values = told_by_driver(torch.cuda, index)
        except Exception:  # no nvidia-ml-py, no driver that answers, a slice of a GPU
            values = {
                "allocated_gb": torch.cuda.memory_allocated(index) / GB,
                "reserved_gb": torch.cuda.memory_reserved(index) / GB,
            }
        found.update({f"gpu{index}/{name}": value for name, value in values.items()})
    return found


def told_by_driver(cuda: Any, index: int) -> dict[str, float]:
    """Return what the driver says of a GPU; PyTorch asks it through nvidia-ml-py."""
    used = cuda.device_memory_used(index)
    return {
        "use": cuda.utilization(index),
        "memory": 100 * used / cuda.get_device_properties(index).total_memory,
        "memory_gb": used / GB,
        "celsius": cuda.temperature(index),
        "watts": cuda.power_draw(index) / 1000,
    }


def existing(run: "Run") -> Path:
    """Return the run's folder, or the nearest above it that exists already."""
    path = Path.cwd() if run.folder is None else run.folder.path
    return next(one for one in (path, *path.parents) if one.exists())
