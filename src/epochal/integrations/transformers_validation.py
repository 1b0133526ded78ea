"""The validations of a Transformers training: of one data set, or of several that are named and make one together."""

from collections.abc import Callable
from copy import copy
from typing import Any

from epochal.core.engine import Engine
from epochal.data.order import length_of
from epochal.integrations.transformers_names import aliases, objective_of, translated


class Validations:
    """What a run sees of ``evaluate``, by three wrapped methods of the trainer; ``before`` and ``after`` are called.

    An evaluation outside the training is none of the run's, and a prediction inside an evaluation is no batch.
    """

    def __init__(self, engine: Engine, trainer: Any, before: Callable[[], None], after: Callable[[], None]) -> None:
        self.engine, self.trainer, self.before, self.after = engine, trainer, before, after
        self.batch = 0
        self.showing = False
        self.measured: set[str] = set()  # what was logged in the one that is running

    def accept(self, natives: Any) -> None:
        """Accept Transformers' names of metrics beside ours."""
        self.engine.aliases.update(aliases(natives))
        self.engine.metrics.aliases.update(self.engine.aliases)

    def log(self, natives: Any) -> None:
        """Take what the trainer or its user logs, here or elsewhere in the training."""
        self.accept(natives)
        values = translated(natives)
        self.measured.update(values)
        self.engine.log(values)

    def validating(self, original: Any) -> Any:
        """See a whole validation."""
        engine = self.engine

        def evaluate(*args: Any, **options: Any) -> Any:
            if not engine.in_training or engine.in_validation:
                return original(*args, **options)
            self.before()
            self.batch = 0
            self.measured.clear()
            engine.val_start()
            metrics = original(*args, **options)
            self.end(metrics or {})  # an evaluate of somebody's own may return nothing
            return metrics

        return evaluate

    def end(self, metrics: Any) -> None:
        """A validation ends with these values; the objective among them is the trainer's own fitness."""
        engine, args = self.engine, self.trainer.args
        self.accept(metrics)
        engine.log({name: value for name, value in translated(metrics).items() if name not in self.measured})
        objective = objective_of(args)
        if engine.in_epoch and objective in metrics:
            engine.fitness_rule.native = float(metrics[objective]) * (1 if args.greater_is_better else -1)
        engine.val_end()
        self.after()

    def counting(self, original: Any) -> Any:
        """Know how many batches a validation has."""
        engine = self.engine

        def evaluation_loop(dataloader: Any, description: str = "", *args: Any, **options: Any) -> Any:
            before, self.showing = self.showing, engine.in_validation and description != "Prediction"
            if self.showing:
                length = length_of(dataloader)
                engine.num_val_batches = None if length is None else self.batch + length
            try:
                return original(dataloader, description, *args, **options)
            finally:
                self.showing = before

        return evaluation_loop

    def showing_batch(self, original: Any) -> Any:
        """Show a validation's batch."""
        engine = self.engine

        def prediction_step(model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
            if not self.showing:
                return original(model, inputs, *args, **options)
            engine.val_batch_start(self.batch, copy(inputs))
            found = original(model, inputs, *args, **options)
            engine.val_batch_end(engine.outputs)
            self.batch += 1
            return found

        return prediction_step
