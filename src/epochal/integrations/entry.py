"""What stands in place of a trainer's method on one instance: it trains as before, and lets a run see each training."""

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypedDict

from epochal.checkpointing.layout import FOLDER
from epochal.checkpointing.saver import Resumes, RunSaver
from epochal.checkpointing.store import CheckpointStore
from epochal.core import lifetime
from epochal.core.callback import Callback
from epochal.core.errors import AttachError, CheckpointError
from epochal.core.fitness import FitnessSpec
from epochal.core.run import Run
from epochal.integrations.portable import PackedRun, pack, unpack
from epochal.runs.folder import RunFolder
from epochal.runs.resume import ResumePoint, find_resume_point

Resume = bool | str | os.PathLike[str]


class Options(TypedDict):
    """How ``attach`` was called: its keyword arguments."""

    fitness: FitnessSpec
    dir: str | os.PathLike[str] | None
    name: str | None
    resume: Resume


class Place(NamedTuple):
    """Where a run's files go, as ``attach`` was told; None is the usual: ``runs``, and the script's name."""

    dir: str | None = None
    name: str | None = None

    @property
    def parent(self) -> str:
        """The folder in which the run's own is made."""
        return "runs" if self.dir is None else self.dir


class Entry(ABC):
    """Stands at a trainer's own method; subclass it, name the ``method`` and write ``train``.

    A copied or unpickled trainer carries an entry of its own, with a run of its own: ``copy.train.run``.
    """

    method: ClassVar[str]

    def __init__(self, host: Any, run: Run, place: Place, resume: Resume = False) -> None:
        self.host, self.run, self.place, self.resume = host, run, place, resume
        self.seen: set[Path] = set()  # runs of this process
        self.before = vars(host).get(self.method)
        run.on_detach = self.remove

    def __reduce__(self) -> tuple[Any, ...]:
        return remake, (type(self), self.host, pack(self.run), self.place, self.before)

    def __repr__(self) -> str:
        return f"<{self.method} of {type(self.host).__name__}, watched by {self.run!r}>"

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Train as the trainer does, with its arguments."""
        original = self.before or partial(getattr(type(self.host), self.method), self.host)
        if self.run.detached:
            return original(*args, **options)
        if self.run.engine.active:
            raise AttachError(f"this {type(self.host).__name__} is training already; it has one training at a time")
        try:
            return self.train(original, *args, **options)
        finally:
            if self.run.folder is not None and self.run.folder.path.exists():  # not where the trainer refused
                self.seen.add(self.run.folder.path)

    @abstractmethod
    def train(self, original: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Train: call ``original`` so that the run sees it, and return what it returns."""

    def watched(self, call: Callable[[], Any]) -> Any:
        """Call what trains; with whatever comes out of it the run's training ends."""
        try:
            result = call()
        except BaseException as error:
            lifetime.finish(self.run, error)
            raise
        lifetime.finish(self.run)
        lifetime.returned(self.run)
        return result

    def resume_point(self) -> ResumePoint | None:
        """Return from where this training goes on; a path that was named counts for the first training only."""
        if self.seen and self.resume is not True:  # in EPOCHAL_RESUME, too
            return None
        return find_resume_point(self.place.parent, self.place.name, self.resume, seen=self.seen)

    def put(self, callbacks: Sequence[Callback]) -> Run:
        """Stand there from now on; what is wrong with a callback is said before."""
        for callback in callbacks:
            self.run.add(callback)
        setattr(self.host, self.method, self)
        return self.run

    def remove(self) -> None:
        """Leave the trainer as it was; an entry that somebody wrapped stays and only passes on."""
        if vars(self.host).get(self.method) is not self:
            return
        if self.before is None:
            delattr(self.host, self.method)
        else:
            setattr(self.host, self.method, self.before)


def enter(
    kind: type[Entry],
    host: Any,
    callbacks: Sequence[Callback],
    title: str,
    provides: frozenset[str],
    owns: Mapping[str, str],
    options: Options,
    *,
    folder: Callable[[Place], RunFolder | None] | None = None,
) -> Run:
    """Put an entry of this kind at a trainer; all that can be wrong is said before.

    ``folder`` returns where the next training's files go, or None where only the trainer will know.
    """
    check_free(host, kind.method, options["resume"])
    place = Place(None if options["dir"] is None else os.fspath(options["dir"]), options["name"])
    where = RunFolder(place.parent, place.name) if folder is None else folder(place)  # a wrong name is said now
    run = Run(host=title, provides=provides, owns=owns, folder=where, fitness=options["fitness"])
    return kind(host, run, place, options["resume"]).put(callbacks)


def check_free(host: Any, method: str, resume: Resume) -> None:
    """Raise AttachError where a trainer is attached or trains already, CheckpointError where nothing is to resume."""
    entry, kind = vars(host).get(method), type(host).__name__
    if isinstance(entry, Entry) and not entry.run.detached:
        state = "and training" if entry.run.engine.active else "to a run"
        raise AttachError(
            f"this {kind} is attached {state} already: its run is .{method}.run."
            " To add a callback use run.add(...); to begin anew, run.detach() first"
        )
    if is_training(host, method):
        raise AttachError(f"attach while a training runs: callbacks would miss its start; attach before .{method}()")
    if not isinstance(resume, bool) and not Path(resume).expanduser().exists():
        raise CheckpointError(f"resume: there is no run or checkpoint at {Path(resume).expanduser().absolute()}")


def is_training(host: Any, method: str) -> bool:
    """Say whether this thread is inside a method of a trainer, which nobody watches."""
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame is not None:
        if frame.f_code.co_name == method and frame.f_locals.get("self") is host:
            return True
        frame = frame.f_back
    return False


def begin(
    run: Run,
    folder: RunFolder,
    point: ResumePoint | None,
    parts: Callable[[], Mapping[str, Any]],
    *,
    resumes: Resumes,
    trainer: Any,
    model: Any = None,
    optimizer: Any = None,
) -> RunSaver:
    """Begin a training of an attached trainer: its checkpoints have a place, its callbacks their state.

    ``parts`` returns the trainer's state, which each integration restores itself; ``point`` is what it goes on from.
    The engine's ``rate_host``, ``restorer`` and ``rewind`` are to be set after this.
    """
    engine = run.engine
    store = CheckpointStore(folder.path / FOLDER) if point is None else point.store
    run.folder, run.checkpoint_store = folder, store
    engine.rate_host = engine.rewind = engine.restorer = engine.waited = None
    engine.saver = saver = RunSaver(run, store, parts, resumes=resumes)
    states = None if point is None else {part: point.saved.load(part) for part in ("run", "callbacks")}
    lifetime.begin(run, model=model, optimizer=optimizer, trainer=trainer, saved=states)
    engine.fitness_rule.native = None
    if point is not None:
        folder.make()
        store.protect(point.saved.manifest.name)
        if point.chosen:
            store.go_on_from(point.saved.manifest.name)
    return saver


def wrap(owner: Any, name: str, make: Callable[[Any], Any]) -> Callable[[], None]:
    """Put a wrapper, ``make(original)``, in a method's place on one instance; what is returned takes it out again."""
    own = vars(owner).get(name)
    wrapper = make(getattr(owner, name))
    setattr(owner, name, wrapper)

    def unwrap() -> None:
        if vars(owner).get(name) is wrapper:
            delattr(owner, name)
            if own is not None:
                setattr(owner, name, own)

    return unwrap


def remake(kind: type[Entry], host: Any, packed: PackedRun, place: Place, before: Any) -> Entry:
    """Unpickle an entry: it has a run of its own."""
    entry = kind(host, unpack(packed), place)
    entry.before = before
    return entry
