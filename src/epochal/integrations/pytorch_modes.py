"""The modes of a model's modules, training or not, put back behind what changes them."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any


@contextmanager
def as_it_is(model: Any) -> Generator[None]:
    """Leave every module of a model in the mode in which it is.

    >>> import torch
    >>> net = torch.nn.Dropout()
    >>> with as_it_is(net):
    ...     _ = net.eval()
    >>> net.training
    True
    """
    modules = [(module, module.training) for module in model.modules()] if hasattr(model, "modules") else []
    try:
        yield
    finally:
        for module, mode in modules:
            module.training = mode
