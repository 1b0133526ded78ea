"""How the peers deliver one event to n callbacks that do nothing: each by its own call, on its own objects.

Every function returns ``deliver(rounds)`` for ``n`` callbacks. What a peer needs beyond its delivery (a trainer, a
state) is made as small as it lets us; what its loop does around the delivery is not counted.
"""

import logging
import sys
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

Deliver = Callable[[int], object]


def floor(n: int) -> Deliver:
    """The floor: one method call that loops over a tuple of bound methods."""

    class Listener:
        def on_train_batch_end(self, run: Any) -> None:
            pass

    class Dispatcher:
        def __init__(self) -> None:
            self.calls = tuple(Listener().on_train_batch_end for _ in range(n))

        def fire(self, run: Any) -> None:
            for call in self.calls:
                call(run)

    dispatcher, run = Dispatcher(), object()

    def deliver(rounds: int) -> None:
        for _ in range(rounds):
            dispatcher.fire(run)

    return deliver


def ultralytics(n: int) -> Deliver:
    """``BaseTrainer.run_callbacks``, as its training loop calls it."""
    from ultralytics.engine.trainer import BaseTrainer

    class Trainer(BaseTrainer):
        def __init__(self) -> None:
            self.callbacks = {"on_train_batch_end": [self.make() for _ in range(n)]}

        @staticmethod
        def make() -> Callable[[Any], None]:
            def on_train_batch_end(trainer: Any) -> None:
                pass

            return on_train_batch_end

    trainer = Trainer()

    def deliver(rounds: int) -> None:
        for _ in range(rounds):
            trainer.run_callbacks("on_train_batch_end")

    return deliver


def torchtnt(n: int) -> Deliver:
    """``CallbackHandler.on_train_step_end``."""
    try:
        import pkg_resources  # noqa: F401
    except ModuleNotFoundError:  # setuptools 81 dropped it; torchtnt imports it for a call that is not made here
        sys.modules["pkg_resources"] = ModuleType("pkg_resources")
    from torchtnt.framework._callback_handler import CallbackHandler
    from torchtnt.framework.callback import Callback

    class Listener(Callback):
        def on_train_step_end(self, state: Any, unit: Any) -> None:
            pass

    handler: Any = CallbackHandler([Listener() for _ in range(n)])
    state, unit = object(), object()

    def deliver(rounds: int) -> None:
        for _ in range(rounds):
            handler.on_train_step_end(state, unit)

    return deliver


def hugging_face(n: int) -> Deliver:
    """``CallbackHandler.on_step_end``, without the callbacks that ``Trainer`` adds by itself."""
    from transformers.trainer_callback import CallbackHandler, TrainerCallback, TrainerControl

    logging.getLogger("transformers.trainer_callback").setLevel(logging.ERROR)

    def on_step_end(self: Any, args: Any, state: Any, control: Any, **_: Any) -> None:
        pass

    listeners = [type(f"Listener{i}", (TrainerCallback,), {"on_step_end": on_step_end})() for i in range(n)]
    handler: Any = CallbackHandler(listeners, None, None, None, None)
    args, state, control = object(), object(), TrainerControl()

    def deliver(rounds: int) -> None:
        for _ in range(rounds):
            handler.on_step_end(args, state, control)

    return deliver


def lightning(n: int) -> Deliver:
    """``call._call_callback_hooks``, with a module in place; its profiler is the one that passes everything through."""
    import lightning.pytorch as pl
    from lightning.pytorch.trainer.call import _call_callback_hooks

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Listener(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            pass

    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, barebones=False,
    )  # fmt: skip
    trainer.callbacks[:] = [Listener() for _ in range(n)]
    trainer.strategy.connect(pl.LightningModule())

    def deliver(rounds: int) -> None:
        for _ in range(rounds):
            _call_callback_hooks(trainer, "on_train_batch_end", None, None, 0)

    return deliver


def ignite(n: int) -> Deliver:
    """``Engine._fire_event``, which its own run loop calls."""
    from ignite.engine import Engine, Events

    engine: Any = Engine(lambda engine, batch: None)
    for _ in range(n):
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: None)

    def deliver(rounds: int) -> None:
        fire, event = engine._fire_event, Events.ITERATION_COMPLETED
        for _ in range(rounds):
            fire(event)

    return deliver


PEERS = {  # shown name -> (package that must be there, how it delivers)
    "torchtnt": ("torchtnt", torchtnt),
    "Ultralytics": ("ultralytics", ultralytics),
    "Hugging Face": ("transformers", hugging_face),
    "Ignite": ("ignite", ignite),
    "Lightning": ("lightning", lightning),
}


def made(name: str, n: int) -> Deliver | str:
    """Return a peer's delivery to ``n`` callbacks, or why there is none."""
    package, make = PEERS[name]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make(n)
    except ModuleNotFoundError as error:
        return f"{package} is not installed" if error.name == package else f"{error}"
    except Exception as error:  # a version whose inside has changed must not end the others' benchmark
        return f"{type(error).__name__}: {error}"


DISTRIBUTIONS = {  # shown name -> the name under which it is installed
    "torchtnt": "torchtnt",
    "Ultralytics": "ultralytics",
    "Hugging Face": "transformers",
    "Ignite": "pytorch-ignite",
    "Lightning": "lightning",
}
