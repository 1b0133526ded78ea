"""``attach``: recognises a trainer by the module names of its classes, importing none of them."""

import os
from importlib import import_module
from typing import Any

from epochal.core.callback import Callback
from epochal.core.errors import AttachError
from epochal.core.fitness import FitnessSpec
from epochal.core.run import Run

HOSTS = {  # prefix of the module that defines the trainer's class -> the integration that binds it
    "ultralytics.engine.model": "ultralytics",
}
SUPPORTED = "Ultralytics models, as YOLO(...)"
INSTEAD = {  # what people pass by mistake -> the cure
    "ultralytics.engine.trainer": "attach the model, before it trains: attach(YOLO(...), ...)",
    "ultralytics.nn.": "that is the network inside; attach the YOLO object itself",
    "torch.nn.": "a plain torch module is trained by your own loop: Loop(model=..., optimizer=..., callbacks=[...])",
}


def attach(
    trainer: Any,
    *callbacks: Callback,
    fitness: FitnessSpec = None,
    dir: str | os.PathLike[str] | None = None,  # noqa: A002  the contract's name
    name: str | None = None,
    resume: bool | str | os.PathLike[str] = False,
) -> Run:
    """Let callbacks watch and steer every training of a trainer; the rest of the script stays as it is.

    ``fitness`` names the objective: a metric, "-val/loss" for one to be minimised, or a function of the metrics.
    ``dir`` and ``name`` say where the run's files go. Whatever is wrong is said here, and nothing is attached then.

    >>> attach([1, 2])
    Traceback (most recent call last):
    epochal.core.errors.AttachError: list cannot be attached. Supported: Ultralytics models, as YOLO(...). ...
    """
    if isinstance(trainer, type):
        raise AttachError(f"that is the class {trainer.__name__}; attach an object, {trainer.__name__}(...)")
    home = find(trainer, HOSTS)
    if home is None:
        cure = find(trainer, INSTEAD) or "A loop of your own goes with Loop(model=..., callbacks=[...])"
        raise AttachError(f"{type(trainer).__name__} cannot be attached. Supported: {SUPPORTED}. {cure}")
    integration: Any = import_module(f"epochal.integrations.{home}")
    return integration.bind(trainer, callbacks, fitness=fitness, dir=dir, name=name, resume=resume)


def find(trainer: Any, table: dict[str, str]) -> str | None:
    """Return what a table says about the first class of a trainer whose module it knows.

    >>> find(3, {"builtins": "a number"})
    'a number'
    """
    for kind in type(trainer).__mro__:
        for prefix, found in table.items():
            if f"{kind.__module__}.".startswith(prefix if prefix.endswith(".") else f"{prefix}."):
                return found
    return None
