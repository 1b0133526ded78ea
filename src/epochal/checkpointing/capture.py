"""Pieces of state that a host captures and restores: random generators, and whatever has a state_dict."""

import sys
from typing import Any

from epochal.checkpointing import twister
from epochal.core.errors import ArgumentError
from epochal.core.log import log


def random_state() -> dict[str, Any]:
    """Return the state of every random generator in use: python, numpy, torch on CPU, CUDA and MPS.

    >>> import random
    >>> state = random_state()
    >>> first = random.random()
    >>> restore_random_state(state)
    >>> random.random() == first
    True

    A library that is not imported has drawn no numbers, and is left out; so is a device that nobody has used.
    """
    state: dict[str, Any] = {"python": twister.python_state()}
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None:
        state["numpy"] = twister.numpy_state(numpy.random)
    if torch is not None:
        state["torch"] = torch.get_rng_state()
        if torch.cuda.is_initialized():
            state["cuda"] = torch.cuda.get_rng_state_all()
        if torch.backends.mps.is_available():
            state["mps"] = torch.mps.get_rng_state()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Set every generator that is in ``state`` back; a device that this machine lacks is said in the log.

    >>> restore_random_state(random_state())
    """
    import random

    random.setstate(state["python"])
    twister.forget()
    if "numpy" in state:
        import numpy

        numpy.random.set_state(state["numpy"])
    if "torch" in state:
        import torch

        torch.set_rng_state(state["torch"])
        _restore_cuda(state.get("cuda", []))
        if "mps" in state and torch.backends.mps.is_available():
            torch.mps.set_rng_state(state["mps"])


def same_random_state(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Say whether python, numpy and torch on CPU are in the same state in both: no number was drawn in between.

    >>> same_random_state(random_state(), random_state())
    True
    """

    def plain(state: dict[str, Any]) -> list[Any]:
        numpy, torch = state.get("numpy"), state.get("torch")
        drawn = None if numpy is None else (numpy[1].tobytes(), *numpy[2:])
        return [state["python"], drawn, None if torch is None else torch.numpy().tobytes()]

    return plain(one) == plain(other)


def _restore_cuda(saved: list[Any]) -> None:
    import torch

    there = torch.cuda.device_count() if saved and torch.cuda.is_available() else 0
    if len(saved) != there and saved:
        log().warning(
            "random state of %d CUDA devices was saved, %d are here: the run is not exactly the same", len(saved), there
        )
    for index, state in enumerate(saved[:there]):
        torch.cuda.set_rng_state(state, index)


def state_of(thing: Any) -> Any:
    """Return the state of anything with a ``state_dict``, a model without its torch.compile and DDP wrappers.

    >>> state_of(object())
    Traceback (most recent call last):
    epochal.core.errors.ArgumentError: object has no state_dict(); give something that has one
    """
    return _method(unwrapped(thing), "state_dict")()


def restore(thing: Any, state: Any) -> None:
    """Give a state back to anything with a ``load_state_dict``, a model without its wrappers.

    >>> restore(object(), {})
    Traceback (most recent call last):
    epochal.core.errors.ArgumentError: object has no load_state_dict(); give something that has one
    """
    _method(unwrapped(thing), "load_state_dict")(state)


def unwrapped(model: Any) -> Any:
    """Return the model inside torch.compile, DataParallel, DistributedDataParallel and YOLO; anything else as it is.

    >>> unwrapped(3)
    3
    """
    while True:
        kind = type(model).__name__
        if kind == "OptimizedModule":
            model = getattr(model, "_orig_mod")  # noqa: B009  the name torch.compile gives it
        elif kind in ("DistributedDataParallel", "DataParallel"):
            model = model.module
        elif any(one.__module__ == "ultralytics.engine.model" for one in type(model).__mro__):
            model = model.model
        else:
            return model


def _method(thing: Any, name: str) -> Any:
    method = getattr(thing, name, None)
    if not callable(method):
        raise ArgumentError(f"{type(thing).__name__} has no {name}(); give something that has one")
    return method
