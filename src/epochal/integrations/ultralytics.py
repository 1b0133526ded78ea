"""Ultralytics YOLO: ``model.train`` on the instance becomes an entry that lets a run see each training."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from epochal.core import lifetime
from epochal.core.callback import Callback
from epochal.core.errors import AttachError
from epochal.core.events import EVENT_NAMES
from epochal.core.run import Run
from epochal.integrations.entry import Entry, Options, Place, enter
from epochal.integrations.portable import PackedRun, pack, unpack
from epochal.integrations.ultralytics_resume import Resumption, hand_over, plan
from epochal.integrations.ultralytics_training import Training
from epochal.runs.folder import RunFolder

logger = logging.getLogger("epochal")
PROVIDES = frozenset(EVENT_NAMES) | {
    "stop_in_batch",
    "save",
    "set_lr",
    "data",
    "outputs",
    "gradients",
    "loss",
    "rollback",
    "pause",
    "validate",
}
OWNS = {
    "accumulation": "Ultralytics accumulates gradients itself; set model.train(nbs=...), the nominal batch size",
    "weight_average": (
        "Ultralytics averages the weights itself (EMA) and validates and saves the average: model.trainer.ema;"
        " its decay is in ultralytics.utils.torch_utils.ModelEMA"
    ),
}


def folder_in(place: Place, save_dir: Path) -> RunFolder:
    """Return the folder of a training that Ultralytics puts into ``save_dir``: ``epochal`` there, unless told."""
    folder = RunFolder(place.dir if place.dir is not None else save_dir, place.name or "epochal")
    return folder if place.dir is not None or place.name is not None else TrainerFolder(folder, save_dir.name)


def known_folder(place: Place) -> RunFolder | None:
    """Return the folder of the next training, if ``attach`` was told where; what is wrong with a name is said."""
    folder = folder_in(place, Path())
    return folder if place.dir is not None else None


class TrainerFolder(RunFolder):
    """The folder ``save_dir/epochal``; the run's name is the one Ultralytics gave the training."""

    def __init__(self, folder: RunFolder, title: str) -> None:
        super().__init__(folder.parent, folder.path.name, fresh=False)
        self.base, self.title = folder.base, title

    @property
    def name(self) -> str:
        """The training's name, as ``train2``."""
        return self.title


class Watch:
    """Sees the trainings of one ``train()`` call: Ultralytics calls its two methods; small when pickled.

    ``given``: the arguments of the call; ``resumption``: what its training goes on from.
    """

    def __init__(
        self, run: Run, place: Place, given: Mapping[str, Any] | None = None, resumption: Resumption | None = None
    ) -> None:
        self.run, self.place, self.given, self.resumption = run, place, given or {}, resumption
        self.training: Training | None = None
        self.ended: Training | None = None
        self.began = False

    def __reduce__(self) -> tuple[Any, ...]:
        return make_watch, (pack(self.run), self.place)

    def on_pretrain_routine_start(self, trainer: Any) -> None:
        """A trainer is being made; one that came before and was given up is closed first."""
        self.close(given_up())
        self.began = True
        self.training = Training(self.run, trainer, self, self.given, self.resumption)
        self.training.begin(self.folder(trainer))

    def folder(self, trainer: Any) -> RunFolder:
        """Return the run's folder: the one it had before, or as the place says."""
        if self.resumption is None:
            return folder_in(self.place, Path(trainer.save_dir))
        folder, save_dir = self.resumption.point.folder, self.resumption.save_dir
        return TrainerFolder(folder, save_dir.name) if folder.parent == save_dir else folder

    def on_pretrain_routine_end(self, trainer: Any) -> None:
        """The trainer stands; in a process that is not rank 0 nothing was begun."""
        if self.training is not None and self.training.trainer is trainer:
            self.training.set_up()

    def failed(self, error: BaseException) -> None:
        """``train()`` raised: what did not end in the trainer ends here, also a training that never began."""
        if not self.began:
            self.began = True
            lifetime.begin(self.run)
            lifetime.finish(self.run, error)
        self.close(error)

    def close(self, error: BaseException) -> None:
        """End a training that has not ended by itself."""
        training, self.training = self.training, None
        if training is not None:
            self.ended = training
            training.finish(error)

    def returned(self, host: Any) -> None:
        """``train()`` returned: the model gets the weights that a callback restored."""
        self.close(given_up())
        if self.ended is not None and self.ended.trainer is host.trainer and self.ended.restored is not None:
            host.model.load_state_dict(self.ended.restored)
        if getattr(host.trainer, "ddp", False):
            logger.warning(
                "%s trained on several devices: callbacks ran in the process of rank 0, this run saw nothing.",
                self.run.host,
            )


class TrainEntry(Entry):
    """Stands at ``model.train``: trains as before, and lets a run see it."""

    method = "train"

    def train(self, original: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Train as ``YOLO.train`` does, with its arguments."""
        given = said(options)
        found = self.goes_on_from(given)
        if isinstance(found, Path):
            self.seen.add(found)
            return hand_over(self.host, found)
        watch = Watch(self.run, self.place, given, found)
        if found is not None:
            kept = {name: options[name] for name in ("trainer",) if name in options}
            options = {**kept, **found.options(given), "resume": str(found.begin())}
        leave = listen(self.host.callbacks, watch)
        try:
            result = original(*args, **options)
        except BaseException as error:
            watch.failed(error)
            raise
        finally:
            leave()
        watch.returned(self.host)
        lifetime.returned(self.run)
        return result

    def goes_on_from(self, given: Mapping[str, Any]) -> Resumption | Path | None:
        """Return what this training goes on from; a path that was named counts for the first training only."""
        resume = self.resume if not self.seen or self.resume is True else None
        return None if resume is None else plan(self.host, resume, given, place=self.place, seen=self.seen)


def bind(host: Any, callbacks: Sequence[Callback], **options: Unpack[Options]) -> Run:
    """Attach callbacks to a YOLO model; all that can be wrong is said before the model is touched."""
    return enter(TrainEntry, host, callbacks, "Ultralytics YOLO", PROVIDES, OWNS, options, folder=known_folder)


def said(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``train()``, those in a file of ``cfg=`` too."""
    if not options.get("cfg"):
        return dict(options)
    from ultralytics.utils import YAML
    from ultralytics.utils.checks import check_yaml

    return {**YAML.load(check_yaml(options["cfg"])), **options}


def listen(natives: Any, watch: Watch) -> Callable[[], None]:
    """Put a watch among a model's own callbacks; what is returned takes it out again."""
    calls = {"on_pretrain_routine_start": watch.on_pretrain_routine_start}
    calls["on_pretrain_routine_end"] = watch.on_pretrain_routine_end
    made = [event for event in calls if event not in natives]
    for event, call in calls.items():
        natives[event].append(call)

    def leave() -> None:
        for event, call in calls.items():
            if call in natives.get(event, ()):
                natives[event].remove(call)
            if event in made and not natives.get(event):
                natives.pop(event, None)

    return leave


def given_up() -> AttachError:
    """Return the error of a training that was begun and dropped without a word."""
    return AttachError("Ultralytics gave this training up before it had begun; its own log says why")


def make_watch(packed: PackedRun, place: Place) -> Watch:
    """Unpickle a watch: it has a run of its own."""
    return Watch(unpack(packed), place)
