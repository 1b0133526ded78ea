"""From where a YOLO training goes on, with which arguments, and what stands in its files then."""

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from epochal.checkpointing.atomic import write_atomically
from epochal.checkpointing.layout import FOLDER
from epochal.core.errors import ArgumentError, CapabilityError, CheckpointError
from epochal.core.log import log
from epochal.integrations.ultralytics_file import check_buildable, cut_results, write_resume_file
from epochal.integrations.ultralytics_state import plain
from epochal.runs.folder import MARK, runs_named
from epochal.runs.resume import VARIABLE, ResumePoint, at_path, at_run

INNER = "epochal"  # a run's folder in Ultralytics' own, unless attach names it
ENDED = "ended.json"  # in a run's folder: all its epochs were done
FREE = ("data", "device", "workers", "cache", "plots", "save_period", "patience")  # may differ when it goes on
UNSAID = ("resume", "exist_ok", "cfg", "trainer", "mode", "save_dir", "project", "name")  # not what is trained
# What Ultralytics lets a resume change: a model object may bring some of them, so all are given explicitly.
ALLOWED = (
    "imgsz", "batch", "close_mosaic", "augmentations", "time", "freeze", "val", "channels_last", "distill_model",
)  # fmt: skip


class Resumption(NamedTuple):
    """A training that goes on: the checkpoint, where its files are, where the trainer stood."""

    point: ResumePoint
    save_dir: Path
    facts: Mapping[str, Any]

    @property
    def args(self) -> dict[str, Any]:
        """The arguments of the training, as they were; its folder may have moved."""
        return {**self.facts["args"], "save_dir": str(self.save_dir)}

    def begin(self) -> Path:
        """Write last.pt as it was at the checkpoint, cut what came after it off the results, and return last.pt."""
        last, results = self.save_dir / "weights" / "last.pt", self.save_dir / "results.csv"
        (self.point.folder.path / ENDED).unlink(missing_ok=True)
        cut_results(results, self.facts["epoch"] + 1)
        write_resume_file(self.point.saved, last, self.args, results)
        return last

    def options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of ``train()`` that go on; a warning names those that changed and do not count."""
        before, now = self.facts["given"], plain(given)
        names = [name for name in {**before, **now} if name not in (*FREE, *UNSAID)]
        ignored = [name for name in names if name in now and before.get(name) != now[name]]
        ignored += [name for name in names if name not in now]
        if ignored:
            listed = ", ".join(f"{name} (it was {self.facts['args'].get(name)!r})" for name in ignored)
            log().warning(
                "resume: the arguments of the training that goes on count; not these, which differ now: %s."
                " Only %s may change.", listed, ", ".join(FREE),
            )  # fmt: skip
        recorded = {name: self.args[name] for name in (*FREE, *ALLOWED) if name in self.args}
        free = {name: given[name] for name in FREE if name in given}
        return {**recorded, **free, "save_dir": str(self.save_dir)}


def plan(
    host: Any,
    resume: bool | str | os.PathLike[str],
    given: Mapping[str, Any],
    *,
    place: tuple[str | None, str | None],
    seen: Collection[Path],
) -> Resumption | Path | None:
    """Return what a training of ``host`` goes on from: None begins afresh, a path is a run whose epochs are all done.

    ``place``: ``dir`` and ``name`` of ``attach``; ``seen``: the runs of this process, which ``resume=True`` leaves out.
    """
    wanted = os.environ.get(VARIABLE) or False if resume is False else resume
    if wanted is False:
        return None
    folder = newest_run(host, given, place, seen) if wanted is True else run_at(Path(wanted), place)
    if folder is None:
        return None
    if (folder / ENDED).exists():
        return folder
    point = at_run(folder) if wanted is True else at_path(folder)
    if point is None:
        log().warning("resume: %s holds no checkpoint to go on from; the training starts afresh.", folder)
        return None
    facts = point.saved.load("trainer") if "trainer" in point.saved.parts else {}
    if "given" not in facts:
        raise CheckpointError(f"{point.saved.path} is no checkpoint of a YOLO training; nothing was trained")
    refuse(host, point, facts, given)
    return Resumption(point, save_dir_of(point.folder.path, facts["args"]["save_dir"]), facts)


def run_at(path: Path, place: tuple[str | None, str | None]) -> Path:
    """Return the run, or the checkpoint, that a path names: itself, or the run in a folder of Ultralytics'."""
    path = path.expanduser().absolute()
    if (path / FOLDER).is_dir():
        return path
    return next((run for run in reversed(runs_named(path, place[1] or INNER)) if (run / FOLDER).is_dir()), path)


def newest_run(
    host: Any, given: Mapping[str, Any], place: tuple[str | None, str | None], seen: Collection[Path]
) -> Path | None:
    """Return the newest run of this name, or None, which is said."""
    if place[0] is not None:
        inside, base, inner = Path(place[0]).absolute(), place[1] or INNER, ""
    else:
        first = save_dir_wanted(host, given)
        inside, base, inner = first.parent, first.name, place[1] or INNER
    found: list[tuple[str, Path]] = []
    for folder in inside.glob(f"{base}*"):
        number = folder.name.removeprefix(base).removeprefix("-")
        if number.isdigit() or not number:
            runs = runs_named(folder, inner) if inner else [folder]  # exist_ok=True leaves several in one folder
            found += [(created(run / MARK), run) for run in runs if run not in seen and (run / MARK).exists()]
    if not found:
        log().warning("resume: there is no run %r in %s; the training starts afresh.", base, inside)
        return None
    return max(found)[1]


def created(mark: Path) -> str:
    """Return when a run was begun, as text that sorts."""
    try:
        return str(json.loads(mark.read_text(encoding="utf-8")).get("created", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def save_dir_wanted(host: Any, given: Mapping[str, Any]) -> Path:
    """Return where Ultralytics would put the first training with these arguments."""
    from ultralytics.cfg import get_save_dir

    said = {**host.overrides, **given}
    args = {name: said.get(name) for name in ("save_dir", "project", "name")}
    return get_save_dir(SimpleNamespace(**args, task=host.task, mode="train", exist_ok=True))


def save_dir_of(folder: Path, recorded: str) -> Path:
    """Return where Ultralytics' files of a run are: around it, also where both were moved, or where they were."""
    return folder.parent if (folder.parent / "weights").is_dir() else Path(recorded)


def refuse(host: Any, point: ResumePoint, facts: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise what is wrong with going on from there, while nothing is changed yet."""
    if isinstance(given.get("data"), (list, tuple)):
        raise ArgumentError("resume: a train() over several data sets cannot be resumed; give the one of its run")
    device = given.get("device")
    if len(str(device).split(",")) > 1 or (isinstance(device, (list, tuple)) and len(device) > 1):
        raise CapabilityError(
            f"resume: device={device!r} trains in processes of their own, which cannot be resumed exactly;"
            ' take one device, or resume by Ultralytics: YOLO("path/to/last.pt").train(resume=True)'
        )
    check_buildable(point.saved, facts)
    lines = differences(host, facts)
    if lines:
        listed = "\n  ".join(lines)
        raise CheckpointError(
            f"{point.saved.path} is the checkpoint of another model:\n  {listed}\n"
            "Nothing was trained. Attach to the model it was saved with, or start without resume=."
        )


def differences(host: Any, facts: Mapping[str, Any]) -> list[str]:
    """Return a line for everything in which the model differs from the one that was trained; its classes may."""
    task = facts["args"]["task"]
    if host.task != task:
        return [f"task: saved {task!r}, this model {host.task!r}"]
    saved, now = facts["architecture"]["yaml"] or {}, plain(getattr(host.model, "yaml", None) or {})
    names = [name for name in ("scale", "backbone", "head", "end2end", "reg_max") if name in saved or name in now]
    return [
        f"{name}: saved {brief(saved.get(name))}, this model {brief(now.get(name))}"
        for name in names
        if saved.get(name) != now.get(name)
    ]


def brief(value: Any) -> str:
    """Return a value in few words: a list of layers is its length and the first characters of its contents.

    >>> brief("n"), brief([[1], [2]])
    ("'n'", '2 layers [[1], [2]]')
    """
    text = repr(value)
    text = text if len(text) <= 60 else f"{text[:57]}..."
    return f"{len(value)} layers {text}" if isinstance(value, list) else text


def mark_ended(folder: Path, trainer: Any) -> None:
    """Write down that all epochs of a run are done, so that a resume does not do the last ones again."""
    if (folder / MARK).exists():
        about = {"epochs": trainer.epochs, "save_dir": str(trainer.save_dir)}
        write_atomically(folder / ENDED, json.dumps(about, indent=2).encode() + b"\n")


def hand_over(host: Any, folder: Path) -> Any:
    """Let the model be what the finished training left it, and return its metrics, a mapping."""
    about = json.loads((folder / ENDED).read_text(encoding="utf-8"))
    log().warning("resume: nothing is left to train: all %s epochs of %s are done.", about["epochs"], folder)
    weights = save_dir_of(folder, about["save_dir"]) / "weights"
    found = [path for path in (weights / "best.pt", weights / "last.pt") if path.exists()]
    if not found:
        raise CheckpointError(f"resume: the training in {folder} is done, and its weights are not in {weights}")
    host._load(str(found[0]))
    host.metrics = host.ckpt.get("train_metrics")
    return host.metrics
