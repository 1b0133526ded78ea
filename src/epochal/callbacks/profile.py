"""Where the time of a few batches goes: PyTorch's profiler over a window of a training."""

from typing import TYPE_CHECKING, Any, final

from epochal.conditions.arguments import check_count
from epochal.core.callback import Callback
from epochal.core.log import log
from epochal.runs.folder import free_file

if TYPE_CHECKING:
    from torch.profiler import profile

    from epochal.core.run import Run

FOLDER = "profile"


@final
class Profile(Callback):
    """Profile some batches with ``torch.profiler``: a trace to look at, and a table of the costliest operators.

    >>> Profile(wait=10, warmup=2, active=5, record_shapes=True).name
    'Profile'

    wait, warmup, active, repeat
        The window, in batches: so many are left out, so many warm the profiler up, so many are recorded; that many
        times.
    top
        How many operators the table shows.
    sort_by
        By what: a column of PyTorch's table, such as "self_cpu_time_total" or "cuda_time_total". None: the time of the
        device where there is one, else of the processor.
    options
        Passed on to ``torch.profiler.profile``: ``record_shapes``, ``profile_memory``, ``with_stack`` ...

    In ``profile`` in the run's folder lie ``trace-1.json``, for https://ui.perfetto.dev or chrome://tracing, and
    ``top-1.txt``, for each window; the last table is ``table``, and at level INFO in the log. A training that ends in
    the window, or fails, leaves what was recorded so far. After the last window the profiler is gone.
    """

    guarded = True

    def __init__(
        self,
        *,
        wait: int = 1,
        warmup: int = 1,
        active: int = 3,
        repeat: int = 1,
        top: int = 20,
        sort_by: str | None = None,
        name: str | None = None,
        **options: Any,
    ) -> None:
        for argument, value in {"active": active, "repeat": repeat, "top": top}.items():
            check_count(value, owner="Profile", argument=argument)
        for argument, value in {"wait": wait, "warmup": warmup}.items():
            if value != 0:
                check_count(value, owner="Profile", argument=argument)
        self.wait, self.warmup, self.active, self.repeat = wait, warmup, active, repeat
        self.top, self.sort_by, self.options = top, sort_by, options
        if name is not None:
            self.name = name
        self.table = ""
        self.windows = 0
        self.profiler: profile | None = None

    def __repr__(self) -> str:
        return f"Profile(wait={self.wait}, warmup={self.warmup}, active={self.active}, repeat={self.repeat})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "profiler": None}  # it cannot travel

    def on_train_start(self, run: "Run") -> None:
        """Start the profiler, which waits for its window."""
        from torch.profiler import profile, schedule

        def write(profiler: "profile") -> None:
            self.write(run, profiler)

        self.windows = 0
        window = schedule(wait=self.wait, warmup=self.warmup, active=self.active, repeat=self.repeat)
        self.profiler = profile(schedule=window, on_trace_ready=write, **self.options)
        self.profiler.start()

    def on_train_batch_end(self, run: "Run") -> None:
        """Say that a batch is over."""
        if self.profiler is not None:
            self.profiler.step()
            if self.windows == self.repeat:
                self.end()

    def teardown(self, run: "Run") -> None:
        """End the profiler; what it has recorded of an unfinished window is written."""
        self.end()

    def end(self) -> None:
        """Stop and forget the profiler."""
        profiler, self.profiler = self.profiler, None
        if profiler is not None:
            profiler.stop()

    def write(self, run: "Run", profiler: "profile") -> None:
        """Write the trace and the table of a window."""
        self.windows += 1
        by = self.sort_by or f"self_{profiler.use_device or 'cpu'}_time_total"
        averages = profiler.key_averages(group_by_input_shape=bool(self.options.get("record_shapes")))
        self.table = averages.table(sort_by=by, row_limit=self.top)
        if run.folder is not None:
            folder = run.folder.make() / FOLDER
            folder.mkdir(exist_ok=True)
            trace = free_file(folder, "trace", ".json")
            profiler.export_chrome_trace(str(trace))
            trace.with_name(trace.stem.replace("trace", "top") + ".txt").write_text(self.table, encoding="utf-8")
        log().info("%s: the costliest operators:\n%s", run.label(self), self.table)
