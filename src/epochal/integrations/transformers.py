"""Hugging Face Transformers: ``trainer.train`` on the instance becomes an entry that lets a run see each training."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Unpack

from epochal.core.callback import Callback
from epochal.core.errors import CapabilityError
from epochal.core.events import EVENT_NAMES
from epochal.core.log import log
from epochal.core.run import Run
from epochal.integrations.entry import Entry, Options, enter
from epochal.integrations.transformers_names import aliases, expected
from epochal.integrations.transformers_state import check
from epochal.integrations.transformers_training import Training
from epochal.runs.folder import RunFolder
from epochal.runs.resume import VARIABLE, ResumePoint

PROVIDES = frozenset(EVENT_NAMES) | {
    "stop_in_batch", "save", "set_lr", "data", "outputs", "gradients", "weight_average", "pause", "validate",
}  # fmt: skip
OWNS = {
    "accumulation": (
        "Transformers accumulates gradients itself; set TrainingArguments(gradient_accumulation_steps=...)"
    ),
    "loss": (
        "Transformers' Trainer shows no loss of a copy of the model; give yours:"
        " LearningRateFinder(loss=lambda model, batch: ..., data=loader)"
    ),
    "rollback": "Transformers' Trainer cannot go back inside a training; stop, and go on with attach(..., resume=path)",
}
RESUME = "resume_from_checkpoint"  # the first argument of train()


class TrainEntry(Entry):
    """Stands at ``trainer.train``: trains as before, and lets a run see it."""

    method = "train"

    def train(self, original: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Train as ``Trainer.train`` does, with its arguments."""
        own = options.get(RESUME, args[0] if args else None)
        point = None if self.resumes_itself(own) else self.resume_point()
        if point is not None:
            check_processes(self.host.args.world_size)
            check(point.saved, self.host)
        return self.watched(partial(self.seen_training, original, point, args, options))

    def seen_training(
        self, original: Callable[..., Any], point: ResumePoint | None, args: Sequence[Any], options: Mapping[str, Any]
    ) -> Any:
        """Train, seen by the run."""
        folder = RunFolder(self.place.parent, self.place.name) if point is None else point.folder
        training = Training(self.run, self.host, point)
        try:
            path = training.begin(folder)
            if path is not None:
                args, options = args[1:], {name: one for name, one in options.items() if name != RESUME}
                return original(path, *args, **options) if args else original(**{RESUME: path}, **options)
            return original(*args, **options)
        finally:
            training.remove()

    def resumes_itself(self, own: Any) -> bool:
        """Say whether ``train()`` was told to resume from Transformers' own checkpoint; that wins, and is said."""
        if own and (self.resume is not False or os.environ.get(VARIABLE)):
            log().warning(
                "resume: train(resume_from_checkpoint=%r) goes on from Transformers' own checkpoint; this run begins"
                " anew there. Leave it out to go on exactly, from the run's.", own,
            )  # fmt: skip
        return bool(own)


def check_processes(count: int) -> None:
    """Raise CapabilityError where a training of several processes would go on: each has files of its own."""
    if count > 1:
        raise CapabilityError(
            f"resume: a training in {count} processes cannot be gone on with exactly; resume by Transformers:"
            " trainer.train(resume_from_checkpoint=...)"
        )


def bind(host: Any, callbacks: Sequence[Callback], **options: Unpack[Options]) -> Run:
    """Attach callbacks to a Trainer; all that can be wrong is said before it is touched."""
    run = enter(TrainEntry, host, callbacks, "Transformers Trainer", PROVIDES, OWNS, options)
    run.engine.aliases.update(aliases(expected(host.args, host.eval_dataset)))
    return run
