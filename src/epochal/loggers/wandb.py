"""Weights & Biases: offline runs that `wandb sync` uploads, or online ones."""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from epochal.core.errors import ArgumentError, MissingExtra
from epochal.core.host import Record
from epochal.loggers.base import About, Logger
from epochal.loggers.curves import Curves
from epochal.loggers.pictures import Histogram, picture_of
from epochal.loggers.worker import Limits

Mode = Literal["offline", "online"]
STEP = "step"  # the metric that all others are drawn over
MOST_BINS = 512  # of a histogram, W&B's own limit
LAST = 10.0  # seconds that W&B itself may take to end a run
BLOCK, HEAD = 32768, 7  # bytes of LevelDB's log format, which W&B's file has: whole blocks behind a head


class WandbLogger(Logger):
    """Log to Weights & Biases: metrics over ``step``, hyper-parameters, images, texts, histograms, and how it ended.

    ``project`` is W&B's (default ``WANDB_PROJECT``, else "epochal"), ``run_name`` the run's own by default. ``mode``:
    "offline" writes ``wandb/offline-run-...`` into the run's folder (or ``dir``), which ``wandb sync`` uploads;
    "online" uploads at once. None is what ``WANDB_MODE`` says, else online for who is logged in, else offline. All of
    it happens off the training thread, in a process of its own where the run has a store; each training that goes on
    writes an offline run of its own with the same id, which ``wandb sync --append`` adds. Nothing about the machine,
    the code or the console is sent. MissingExtra where wandb is not installed.

    >>> WandbLogger("digits", mode="offline").replaces
    frozenset({'wandb'})
    """

    replaces: ClassVar[frozenset[str]] = frozenset({"wandb"})
    destination: ClassVar[str] = "wandb"
    limits: ClassVar[Limits] = Limits(pause=1.0)
    apart: ClassVar[bool] = True

    def __init__(
        self,
        project: str | None = None,
        *,
        entity: str | None = None,
        run_name: str | None = None,
        tags: Sequence[str] = (),
        mode: Mode | None = None,
        dir: str | os.PathLike[str] | None = None,  # noqa: A002
        keep_native: bool = False,
        flush_limit: float = 30.0,
        name: str | None = None,
    ) -> None:
        if mode is not None and mode not in get_args(Mode):
            raise ArgumentError(f'WandbLogger: mode must be "offline", "online" or None, not {mode!r}')
        super().__init__(keep_native=keep_native, flush_limit=flush_limit, name=name)
        if find_spec("wandb") is None:
            raise MissingExtra("wandb", "wandb", "WandbLogger")
        self.project, self.entity, self.run_name, self.mode = project, entity, run_name, mode
        self.tags = tuple(tags)
        self.path = None if dir is None else Path(dir)
        self.run_id: str | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the W&B run's id: a resumed training goes on in it."""
        return {"run_id": self.run_id}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back the W&B run's id."""
        self.run_id = state["run_id"]

    def options(self) -> dict[str, Any]:
        """Return where and under which names it logs."""
        return {
            "project": self.project or os.environ.get("WANDB_PROJECT"), "entity": self.entity,
            "run_name": self.run_name, "tags": self.tags, "mode": self.mode,
            "dir": None if self.path is None else str(self.path.absolute()),
        }  # fmt: skip

    def needs_folder(self) -> bool:
        """Say whether the run's folder is wanted: not when a folder is given."""
        return self.path is None

    def open(self, about: About) -> "WandbWriter":
        """Begin a W&B run, or go on in the one that was begun."""
        wandb: Any = import_module("wandb")
        folder = about.place(self.path, "", "WandbLogger").absolute()
        folder.mkdir(parents=True, exist_ok=True)
        known: str | None = about.told.get("run_id") or self.run_id
        mode = self.mode or os.environ.get("WANDB_MODE") or ("online" if is_logged_in(wandb) else "offline")
        settings = wandb.Settings(
            mode=mode, root_dir=str(folder), console="off", silent=True, x_disable_stats=True, disable_git=True,
            disable_code=True, save_code=False, reinit="create_new", finish_timeout=LAST,
        )  # fmt: skip
        run = wandb.init(
            project=self.project or os.environ.get("WANDB_PROJECT") or "epochal", entity=self.entity, id=known,
            name=self.run_name or about.name, tags=self.tags, settings=settings,
            resume="allow" if known is not None and mode == "online" else None,
        )  # fmt: skip
        self.run_id = str(run.id)
        writer = WandbWriter(wandb, run, begins=known is None)
        if about.told.get("run_id") == self.run_id:
            writer.go_on(about.told)
        return writer


def is_logged_in(wandb: Any) -> bool:
    """Say whether W&B knows who the user is; asked without the network."""
    with suppress(Exception):
        return bool(wandb.api.api_key)
    return False


class WandbWriter:
    """One W&B run; W&B takes rows in order only, so the steps of the training are a metric of their own."""

    def __init__(self, wandb: Any, run: Any, *, begins: bool) -> None:
        self.wandb, self.run, self.begins = wandb, run, begins
        self.curves = Curves()
        self.row = 0
        run.define_metric(STEP, hidden=True)
        run.define_metric("*", step_metric=STEP)

    def go_on(self, told: Mapping[str, Any]) -> None:
        """Go on behind the rows of the last process."""
        self.row = told["row"]
        self.curves.load_state_dict(told["curves"])

    def remember(self) -> dict[str, Any]:
        """Return what another process needs to go on in the run."""
        return {
            "run_id": str(self.run.id), "row": self.row, "curves": self.curves.state_dict(),
            "where": str(Path(self.run.dir).parent),
        }  # fmt: skip

    def write(self, records: Sequence[Record]) -> None:
        """Hand these records to W&B."""
        for record in records:
            if record.kind == "params":
                self.run.config.update(dict(record.values), allow_val_change=True)
        for points in self.curves.points(records):
            self.log(points.values, points.step, points.time)
        for record in records:
            if record.kind == "layers":
                self.log(record.values, record.at.step, record.time)
            elif record.kind in ("image", "text", "histogram"):
                media = {name: self.medium(record, value) for name, value in record.values.items()}
                self.log(media, record.at.step, record.time)

    def log(self, values: Mapping[str, Any], step: int, when: float) -> None:
        """Add a row."""
        self.run.log({**values, STEP: step, "_timestamp": when}, step=self.row)
        self.row += 1

    def medium(self, record: Record, value: Any) -> Any:
        """Return an image, a text or a histogram as W&B takes it."""
        from html import escape
        from io import BytesIO

        if record.kind == "text":
            return self.wandb.Html(f"<pre>{escape(value)}</pre>", inject=False)
        if record.kind == "histogram":
            shown: Histogram = value.coarser(MOST_BINS)
            return self.wandb.Histogram(np_histogram=(list(shown.counts), list(shown.edges)))
        from PIL import Image

        return self.wandb.Image(Image.open(BytesIO(picture_of(value, record.boxes).data)))

    def finish(self, end_reason: str) -> None:
        """End the run truthfully."""
        self.run.summary["epochal/end_reason"] = end_reason
        self.run.finish(exit_code=0 if end_reason in ("completed", "stopped") else 1)
        if self.run.offline:
            self.wait_for_file(Path(self.run.settings.sync_file))

    def wait_for_file(self, file: Path) -> None:
        """Wait until W&B's process has closed its file: it says "finished" before it writes the last block."""
        end = time.monotonic() + LAST
        while file.stat().st_size % BLOCK in (0, HEAD) and time.monotonic() < end:
            time.sleep(0.01)
