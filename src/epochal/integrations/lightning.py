"""Lightning: ``trainer.fit`` on the instance becomes an entry that lets a run see each fit."""

import os
from collections.abc import Callable, Sequence
from typing import Any, Unpack

from epochal.core.callback import Callback
from epochal.core.errors import ArgumentError, AttachError, CapabilityError
from epochal.core.events import EVENT_NAMES
from epochal.core.run import Run
from epochal.integrations.entry import Entry, Options, enter
from epochal.integrations.lightning_native import is_search
from epochal.integrations.lightning_training import Training
from epochal.runs.folder import RunFolder

NOT_DELIVERED = frozenset({"on_train_epoch_abort"})
PROVIDES = (frozenset(EVENT_NAMES) - NOT_DELIVERED) | {
    "stop_in_batch", "save", "set_lr", "data", "outputs", "gradients", "weight_average", "pause", "validate",
}  # fmt: skip
OWNS = {
    "accumulation": "Lightning accumulates gradients itself; set Trainer(accumulate_grad_batches=...)",
    "loss": (
        "Lightning hides how a copy of the model would be trained; its own finder is"
        " lightning.pytorch.tuner.Tuner(trainer).lr_find(model)"
    ),
    "rollback": (
        "Lightning's loops cannot go back within a fit; stop it, then fit again from an earlier checkpoint:"
        " attach(trainer, resume=path)"
    ),
}
CKPT_PATH = 4  # where fit() takes ckpt_path, if it is not named
SPAWN = (
    "this Trainer pickles itself for processes of its own (ddp_spawn), which no callback of ours can follow; use"
    ' strategy="ddp"'
)


class FitEntry(Entry):
    """Stands at ``trainer.fit``: fits as before, and lets a run see it."""

    method = "fit"

    def train(self, original: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Fit as ``Trainer.fit`` does, with its arguments."""
        if is_search(self.host):
            return original(*args, **options)
        point = self.resume_point()
        native = options.get("ckpt_path", args[CKPT_PATH] if len(args) > CKPT_PATH else None)
        if point is not None:
            if self.host.world_size > 1:
                raise CapabilityError(
                    f"resume: a training in {self.host.world_size} processes cannot be gone on with exactly; resume by"
                    " Lightning: trainer.fit(..., ckpt_path=...)"
                )
            if native is not None:
                wish = "EPOCHAL_RESUME" if self.resume is False else f"resume={self.resume!r}"
                raise ArgumentError(
                    f"fit(ckpt_path={native!r}) and {wish}: one of them says from where it goes on; leave the other out"
                )
            args, options = args[:CKPT_PATH], {**options, "ckpt_path": os.fspath(point.saved.path)}
        folder = RunFolder(self.place.parent, self.place.name) if point is None else point.folder
        training = Training(self.run, self.host, point)

        def call() -> Any:
            try:
                training.begin(folder, args[0] if args else options.get("model"))
                return original(*args, **options)
            except SystemExit:  # what Lightning makes of Ctrl-C
                training.interrupted()
                raise
            finally:
                training.close()

        def whole() -> Any:
            result = call()
            training.returned()
            return result

        return self.watched(whole)


def bind(host: Any, callbacks: Sequence[Callback], **options: Unpack[Options]) -> Run:
    """Attach callbacks to a Lightning Trainer; all that can be wrong is said before the trainer is touched."""
    if getattr(host.strategy.launcher, "_start_method", None) == "spawn":
        raise AttachError(SPAWN)
    return enter(FitEntry, host, callbacks, "Lightning", PROVIDES, OWNS, options)
