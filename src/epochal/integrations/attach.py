"""``attach``: recognises a trainer by the module names of its classes, importing none of them."""

import os
from importlib import import_module
from typing import Any

from epochal.core.callback import Callback
from epochal.core.errors import AttachError
from epochal.core.fitness import FitnessSpec
from epochal.core.run import Run
from epochal.integrations.untested import warn_if_untested

GROUP = "epochal.integrations"  # of entry points: packages that bring an integration of their own
HOSTS = {  # prefix of the module that defines the trainer's class -> the integration that binds it
    "keras.src.models": "keras",
    "ultralytics.engine.model": "ultralytics",
    "lightning.pytorch.trainer": "lightning",
    "pytorch_lightning.trainer": "lightning",
    "transformers.trainer": "transformers",
}
SUPPORTED = "Ultralytics models, as YOLO(...), Lightning's Trainer(...), Keras 3 models, Hugging Face's Trainer(...)"
INSTEAD = {  # what people pass by mistake -> the cure
    "keras.src.layers": "that is a layer; attach the keras.Model it is part of",
    "tf_keras.": "that is Keras 2; make the model with Keras 3, `import keras`",
    "ultralytics.engine.trainer": "attach the model, before it trains: attach(YOLO(...), ...)",
    "ultralytics.nn.": "that is the network inside; attach the YOLO object itself",
    "lightning.pytorch.core": "attach the Trainer that fits it: attach(trainer, ...), then trainer.fit(module)",
    "pytorch_lightning.core": "attach the Trainer that fits it: attach(trainer, ...), then trainer.fit(module)",
    "lightning.fabric": "a Fabric loop is a loop of your own: Loop(model=..., optimizer=..., callbacks=[...])",
    "transformers.modeling_utils": "that is the model; attach the Trainer that trains it: attach(trainer, ...)",
    "accelerate.": "an Accelerate loop is a loop of your own: Loop(model=..., optimizer=..., callbacks=[...])",
    "torch.nn.": "a plain torch module is trained by your own loop: Loop(model=..., optimizer=..., callbacks=[...])",
}


def attach(
    trainer: Any,
    *callbacks: Callback,
    fitness: FitnessSpec = None,
    dir: str | os.PathLike[str] | None = None,  # noqa: A002  the contract's name
    name: str | None = None,
    resume: bool | str | os.PathLike[str] = False,
    store: bool = True,
    control: bool = True,
) -> Run:
    """Let callbacks watch and steer every training of a trainer; the rest of the script stays as it is.

    ``fitness`` names the objective: a metric, "-val/loss" for one to be minimised, or a function of the metrics.
    ``dir`` and ``name`` say where the run's files go. ``store=False`` records nothing there of what is logged, with
    ``control=False`` nobody steers the training from the page or with ``epochal stop RUN``. Whatever is wrong is said
    here, and nothing is attached then.

    >>> attach([1, 2])
    Traceback (most recent call last):
    epochal.core.errors.AttachError: list cannot be attached. Supported: Ultralytics models, as YOLO(...). ...
    """
    if isinstance(trainer, type):
        raise AttachError(f"that is the class {trainer.__name__}; attach an object, {trainer.__name__}(...)")
    home = find(trainer, HOSTS)
    module = f"epochal.integrations.{home}" if home is not None else find(trainer, outside())
    if module is None:
        cure = find(trainer, INSTEAD) or "A loop of your own goes with Loop(model=..., callbacks=[...])"
        raise AttachError(f"{type(trainer).__name__} cannot be attached. Supported: {SUPPORTED}. {cure}")
    warn_if_untested(home)
    integration: Any = import_module(module)
    run: Run = integration.bind(trainer, callbacks, fitness=fitness, dir=dir, name=name, resume=resume)
    if store:
        from epochal.runs.recorder import Recorder  # most of what importing attach would cost

        Recorder(run, control=control)
    return run


def outside() -> dict[str, str]:
    """Return what installed packages bring: prefix of a module -> the module whose ``bind`` attaches its trainers."""
    from importlib.metadata import entry_points

    return {point.name: point.module for point in entry_points(group=GROUP)}  # "package.module", or "...:bind"


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
