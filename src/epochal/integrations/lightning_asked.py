"""A validation that somebody asked for in a fit of Lightning: its own loop, behind the batch that ends."""

from collections.abc import Callable
from typing import Any

from epochal.core.engine import Engine
from epochal.integrations.asked import as_asked, is_asked
from epochal.integrations.entry import wrap


class Asked:
    """Has Lightning run its validation behind one batch, as ``val_check_interval`` would; nothing stays of that."""

    def __init__(self, engine: Engine, trainer: Any) -> None:
        self.engine, self.trainer = engine, trainer
        self.leave: Callable[[], None] = lambda: None
        engine.cannot_validate = self.cannot_validate

    def end(self) -> None:
        """The fit is over."""
        self.leave()

    def cannot_validate(self) -> str | None:
        """Return why no validation can be asked for."""
        given = self.trainer.enable_validation
        return None if given else "this fit has no validation: it needs val_dataloaders and a validation_step"

    def next(self) -> None:
        """A batch ends: the validation comes next."""
        if not self.engine.requests.validations or not is_asked(self.engine):
            return
        self.leave()
        loop = self.trainer.fit_loop.epoch_loop
        undo = (
            wrap(loop, "_should_check_val_fx", self.checking),
            wrap(loop.val_loop, "run", self.running),
        )

        def leave() -> None:
            for one in undo:
                one()
            self.leave = lambda: None

        self.leave = leave

    def checking(self, original: Callable[[Any], bool]) -> Callable[[Any], bool]:
        """Say that it is time to validate; where Lightning would do so anyhow it is no other validation."""

        def should_check_val(fetcher: Any) -> bool:
            if original(fetcher):
                self.leave()
            return True

        return should_check_val

    def running(self, original: Callable[[], Any]) -> Callable[[], Any]:
        """Validate, as long as somebody asks."""

        def run() -> Any:
            self.leave()
            result: Any = None
            while is_asked(self.engine):
                with as_asked(self.engine):
                    result = original() if self.engine.counts else self.look(original)
            return result

        return run

    def look(self, validate: Callable[[], Any]) -> Any:
        """Validate so that neither Lightning's early stopping nor its checkpoints nor its schedules decide by it."""
        trainer, connector = self.trainer, self.trainer._logger_connector
        callbacks, known = trainer.callbacks, dict(connector._callback_metrics)
        trainer.callbacks = [one for one in callbacks if not decides(one)]
        try:
            return validate()
        finally:
            trainer.callbacks = callbacks
            connector._callback_metrics.clear()
            connector._callback_metrics.update(known)


def decides(callback: Any) -> bool:
    """Say whether a callback of Lightning's own stops or saves by what a validation measured."""
    kinds = {(one.__module__.partition(".")[0], one.__name__) for one in type(callback).__mro__}
    return any(
        (package, name) in kinds
        for package in ("lightning", "pytorch_lightning")
        for name in ("EarlyStopping", "Checkpoint")
    )
