"""What a Transformers training is asked for: stops for its trainer, saves and signals that wait for their moment."""

from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from copy import copy
from typing import Any

from epochal.core.moment import Moment
from epochal.core.requests import StopRequest
from epochal.core.run import Run
from epochal.core.serving import serve
from epochal.integrations.asked import as_asked, is_asked
from epochal.integrations.entry import wrap
from epochal.integrations.transformers_native import reason_of_stop


class Asked:
    """Serves a run's requests where the trainer can take them, and writes down the stops of the trainer's own side."""

    def __init__(self, run: Run, trainer: Any) -> None:
        self.run, self.engine, self.trainer = run, run.engine, trainer

    def take_stop(self, control: Any) -> None:
        """Between epochs, hand a stop to the trainer; one process that ended alone would leave all others waiting."""
        stops, agree = self.engine.requests.stops, self.engine.agree
        if agree is not None and agree(int(bool(stops))) and not stops:
            stops.append(StopRequest("asked for in another process", "Transformers"))
        if stops:
            control.should_training_stop = True

    def cut(self, *, last: bool) -> None:
        """Cut the epoch off after this batch; a run that keeps checkpoints keeps one from which it can go on here."""
        engine, saver = self.engine, self.engine.saver
        self.trainer.control.should_training_stop = True
        if saver is not None and not last and saver.captured_at != engine.batches:
            request = saver.last_request(f"stopped: {self.run.stop_reason}")
            if request is not None:
                engine.requests.add_save(request)

    def note_native_stop(self) -> None:
        """Write down a stop that came from Transformers' own side: to have done all steps is none."""
        engine, state = self.engine, self.trainer.state
        done = state.global_step >= state.max_steps
        if self.trainer.control.should_training_stop and not engine.requests.stops and not done:
            engine.requests.stops.append(StopRequest(reason_of_stop(self.trainer), "Transformers"))

    def cannot_validate(self) -> str | None:
        """Return why no validation can be asked for."""
        given = self.trainer.eval_dataset is not None
        return None if given else "this Trainer has no eval_dataset: there is nothing to validate on"

    def validate(self, act: Callable[[], None]) -> None:
        """Evaluate behind a step, as long as somebody asks; ``act`` is what the trainer does at a step's end.

        One that does not count is none of Transformers' own either: neither its best metric nor its patience know.
        """
        engine, control = self.engine, self.trainer.control
        while is_asked(engine):
            with as_asked(engine), nullcontext() if engine.counts else self.undecided():
                control.should_log = control.should_save = False
                control.should_evaluate = True
                act()

    @contextmanager
    def undecided(self) -> Generator[None]:
        """Let an evaluation decide nothing on Transformers' own side."""
        trainer, handler = self.trainer, self.trainer.callback_handler
        control, callbacks = copy(vars(trainer.control)), handler.callbacks
        handler.callbacks = [one for one in callbacks if not decides(one)]

        def evaluate(_trial: Any, ignore_keys: Any = None, **_options: Any) -> Any:
            return trainer.evaluate(ignore_keys=ignore_keys)

        def is_best(**_options: Any) -> bool:
            return False

        undo = (
            wrap(trainer, "_evaluate", lambda _original: evaluate),
            wrap(trainer, "_determine_best_metric", lambda _original: is_best),
        )
        try:
            yield
        finally:
            for leave in undo:
                leave()
            handler.callbacks = callbacks
            vars(trainer.control).update(control)

    @contextmanager
    def signals_wait(self) -> Generator[None, None, None]:
        """Let signals wait for a moment from which the training can go on; an error ends their waiting too."""
        requests = self.engine.requests
        held, requests.signals = requests.signals, []
        try:
            yield
        finally:
            requests.signals[:0] = held
            requests.waiting = requests.waiting or bool(held)

    def take_what_waited(self) -> None:
        """Take saves and signals that waited for the trainer's own doings at the end of a step."""
        engine = self.engine
        ready = not (engine.batches_done or engine.saves_wait) and engine.world_size == 1
        if ready and (engine.requests.saves or engine.requests.signals):
            serve(engine, Moment("batch", engine.epoch, engine.batch, engine.step), "batch", None)


def decides(callback: Any) -> bool:
    """Say whether a callback of Transformers' own counts evaluations, to stop by them."""
    return any(one.__name__ == "EarlyStoppingCallback" for one in type(callback).__mro__)
