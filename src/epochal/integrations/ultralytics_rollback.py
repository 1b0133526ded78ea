"""An epoch of Ultralytics' that is given up and begun again: through the door of its own recovery from NaN."""

from collections.abc import Callable
from typing import Any

from epochal.core.engine import Engine
from epochal.core.log import log
from epochal.core.rollback import roll_back
from epochal.integrations.ultralytics_exact import ExactState, restore_criterion

DOOR = "_handle_nan_recovery"  # True: the loop begins the same epoch again


class GoingBack:
    """Serves rollbacks: the state is put back at once, then the trainer is led to the start of its epoch.

    The epoch is cut, a validation that would follow measures nothing, and the recovery from NaN, which comes next, says
    that the epoch has to be done again.
    """

    def __init__(self, engine: Engine, exact: ExactState) -> None:
        self.engine, self.exact, self.trainer = engine, exact, exact.trainer
        self.saved: Any = None  # what was gone back to, until the epoch begins again

    def can(self) -> bool:
        """Say whether this trainer can go back."""
        return self.engine.world_size == 1 and hasattr(self.trainer, DOOR)

    def rewind(self, saved: Any) -> None:
        """Put a checkpoint's state back; the rest follows when the epoch begins."""
        self.exact.restore_objects(saved)
        self.exact.waiting = self.saved = saved

    def serve(self) -> bool:
        """Take the rollbacks that were asked for; True: the epoch is given up."""
        if not self.engine.requests.rollbacks or not roll_back(self.engine):
            return False
        self.trainer.stop = True
        return True

    def refuse(self) -> None:
        """At the epoch's end it is too late: Ultralytics goes on to the next."""
        for request in self.engine.requests.take_rollbacks():
            log().warning(
                "%s: a rollback (%s) is not possible any more: Ultralytics cannot go back at on_fit_epoch_end; ask at a"
                " batch's end or at on_val_end.", request.by, request.reason,
            )  # fmt: skip

    def validating(self, original: Any) -> Callable[[], Any]:
        """Wrap ``validate``: what is given up is not measured."""

        def validate() -> Any:
            return original() if self.saved is None else (self.trainer.metrics, self.trainer.fitness)

        return validate

    def recovering(self, original: Any) -> Callable[[Any], bool]:
        """Wrap the recovery from NaN: the epoch begins again."""

        def recover(epoch: Any) -> bool:
            if self.saved is None:
                return bool(original(epoch))
            facts, self.saved = self.saved.load("trainer"), None
            restore_criterion(self.trainer, facts)  # the end of the cut epoch has moved it on
            self.trainer.stop = False
            return True

        return recover
