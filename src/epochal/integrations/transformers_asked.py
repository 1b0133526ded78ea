"""What a Transformers training is asked for: stops for its trainer, saves and signals that wait for their moment."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from epochal.core.moment import Moment
from epochal.core.requests import StopRequest
from epochal.core.run import Run
from epochal.core.serving import serve
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
