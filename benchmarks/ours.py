"""What is measured of Epochal: one event, the bare loop, a tiny training, logging, importing."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from epochal import Callback, Loop
from epochal.core.run import Run

EPOCHS, BATCHES, BATCH_SIZE = 1, 2000, 16


class Listener(Callback):
    """A callback that does nothing at the end of a batch."""

    def on_train_batch_end(self, run: Any) -> None:
        pass


def listening(n: int) -> Run:
    run = Run(host="benchmark", provides=frozenset())
    for _ in range(n):
        run.add(Listener())
    return run


def slot(n: int) -> Callable[[int], object]:
    """An event as an integration delivers it in its inner loop: look at the slot, fire it if somebody listens."""
    engine = listening(n).engine
    run, ends = engine.run, engine.slot("on_train_batch_end")

    def deliver(rounds: int) -> None:
        for _ in range(rounds):
            if ends.calls:
                ends.fire(run)

    return deliver


def by_name(n: int) -> Callable[[int], object]:
    """An event by its name, ``engine.fire("on_train_batch_end")``, as outside the inner loop."""
    engine = listening(n).engine

    def deliver(rounds: int) -> None:
        for _ in range(rounds):
            engine.fire("on_train_batch_end")

    return deliver


def empty(rounds: int) -> None:
    """The loop around what is measured."""
    for _ in range(rounds):
        pass


def bare_ints(rounds: int) -> int:
    """The ``for`` that ``loop_over_ints`` is compared with."""
    data = list(range(rounds))
    start = time.process_time_ns()
    for _ in data:
        pass
    return time.process_time_ns() - start


class Nothing:
    """A model without weights."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None:
        pass


def loop_over_ints(folder: Path) -> Callable[[int], object]:
    """``Loop`` over a list of ints with nothing attached; its making and its ends are not counted, they come once."""

    def body(rounds: int) -> int:
        data = list(range(rounds))
        with Loop(model=Nothing(), dir=folder) as run:
            for _ in run.epochs(1):
                start = time.process_time_ns()
                for _ in run.batches(data):
                    pass
                return time.process_time_ns() - start
        raise AssertionError

    return body


def logging_rounds(values: dict[str, Any], folder: Path) -> Callable[[int], object]:
    """``run.log(values)`` in every batch of a ``Loop``."""

    def body(rounds: int) -> int:
        with Loop(model=Nothing(), dir=folder) as run:
            for _ in run.epochs(1):
                start = time.process_time_ns()
                for _ in run.batches(range(rounds)):
                    run.log(values)
                return time.process_time_ns() - start
        raise AssertionError

    return body


def policies() -> Sequence[Callback]:
    """The policies of the contract's example; their thresholds are out of reach."""
    from epochal import Best, Checkpoint, EarlyStopping, Elapsed, Every, NonFinite, ReduceLROnPlateau, Stop, Target

    return [
        EarlyStopping("val/loss", patience=10_000),
        Stop(when=NonFinite("train/loss") | Elapsed(hours=8) | (Target("fitness", 1e9) & Every(epochs=2))),
        Checkpoint(when=Best("fitness") | Every(minutes=10), keep_last=2, keep_best=1),
        ReduceLROnPlateau("val/loss", factor=0.5, patience=10_000),
    ]


class TimedSaver:
    """A saver whose CPU time is told apart, that of its thread too: it is waited for, which takes none."""

    def __init__(self, saver: Any) -> None:
        self.saver, self.spent, self.writes = saver, 0.0, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.saver, name)

    def capture(self, asked: Any, moment: Any) -> Any:
        start = time.process_time()
        captured = self.saver.capture(asked, moment)
        self.spent += time.process_time() - start
        return captured

    def write(self, captured: Any) -> Exception | None:
        start = time.process_time()
        error = self.saver.write(captured)
        self.saver.flush()
        self.spent += time.process_time() - start
        self.writes += 1
        return error


class Tiny:
    """The tiny training: Linear(8, 1), 16 rows a batch, SGD, a validation per epoch; the same bare and under a Loop.

    What is returned is the CPU time of all epochs, with their ends and validations. Making the model and leaving the
    ``with`` are not counted; each epoch writes a checkpoint, which is.
    """

    def __init__(self, folder: Path) -> None:
        import torch

        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.torch, self.folder = torch, folder
        self.per_checkpoint: list[float] = []
        truth = torch.randn(8, 1)
        inputs = [torch.randn(BATCH_SIZE, 8) for _ in range(BATCHES + 1)]
        self.data = [(x, x @ truth + torch.randn(BATCH_SIZE, 1)) for x in inputs[1:]]
        self.held_out = (inputs[0], inputs[0] @ truth)

    def parts(self) -> tuple[Any, Any, Callable[[Any, Any], Any], Callable[[], Any]]:
        torch = self.torch
        net = torch.nn.Linear(8, 1)
        optimizer = torch.optim.SGD(net.parameters(), lr=1e-2)
        loss_of = torch.nn.functional.mse_loss

        def train_step(x: Any, y: Any) -> Any:
            loss = loss_of(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        def evaluate() -> Any:
            with torch.no_grad():
                return loss_of(net(self.held_out[0]), self.held_out[1])

        return net, optimizer, train_step, evaluate

    def bare(self) -> float:
        """The loop without Epochal."""
        _, _, train_step, evaluate = self.parts()
        start = time.process_time()
        for _ in range(EPOCHS):
            for x, y in self.data:
                loss = train_step(x, y)  # noqa: F841  # held until the next batch, as in a loop that uses it
            float(evaluate())
        return time.process_time() - start

    def looped(self, callbacks: Sequence[Callback] = ()) -> float:
        """The same loop under ``Loop``, with ``run.log`` of the loss in every batch."""
        net, optimizer, train_step, evaluate = self.parts()
        with Loop(model=net, optimizer=optimizer, callbacks=callbacks, dir=self.folder) as run:
            run.engine.saver = saver = TimedSaver(run.engine.saver)
            start = time.process_time()
            for _ in run.epochs(EPOCHS):
                for x, y in run.batches(self.data):
                    loss = train_step(x, y)
                    run.log({"train/loss": loss})
                with run.validation():
                    run.log({"val/loss": evaluate()})
            spent = time.process_time() - start
        if saver.writes:
            self.per_checkpoint.append(saver.spent / saver.writes)
        return spent
