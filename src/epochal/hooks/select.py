"""Which modules of a model are meant: by the pattern of their names, or by their class."""

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from epochal.checkpointing.capture import unwrapped
from epochal.core.errors import ArgumentError, CapabilityError

Which = str | type | Sequence[str | type]
SHOWN = 5  # names in a message


def select(model: Any, which: Which, owner: str) -> dict[str, Any]:
    """Return name -> module of those that a pattern means, in the model's own order; the model is seen unwrapped.

    In a pattern ``*`` stands for any characters, dots included; a class means its objects; several are joined.

    >>> from torch import nn
    >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> list(select(net, "[02]", "Layers")), list(select(net, nn.ReLU, "Layers"))
    (['0', '2'], ['1'])
    >>> select(net, "3", "Layers")
    Traceback (most recent call last):
    epochal.core.errors.ArgumentError: Layers: no layer is named '3'; nearest: 0, 1, 2. The model has 3 layers, 2 last.

    Raises ``ArgumentError`` for a pattern or class that nothing matches, naming the nearest layers.
    """
    names = dict(modules(model, owner))
    patterns = [which] if isinstance(which, (str, type)) else list(which)
    wanted: set[str] = set()
    for pattern in patterns:
        found = {name for name, module in names.items() if matches(name, module, pattern)}
        if not found:
            raise ArgumentError(f"{owner}: {nothing(pattern, names)}")
        wanted |= found
    return {name: module for name, module in names.items() if name in wanted}


def leaves(model: Any, owner: str) -> dict[str, Any]:
    """Return name -> module of those that hold no other module."""
    return {name: module for name, module in modules(model, owner) if next(module.children(), None) is None}


def parameters(model: Any, pattern: str, owner: str) -> dict[str, Any]:
    """Return name -> parameter of those whose names match; ``ArgumentError`` if none does.

    >>> from torch import nn
    >>> list(parameters(nn.Linear(2, 2), "*bias", "GradientMonitor"))
    ['bias']
    """
    named = dict(torch_module(model, owner).named_parameters())
    chosen = {name: one for name, one in named.items() if fnmatchcase(name, pattern)}
    if not chosen:
        raise ArgumentError(f"{owner}: {nothing(pattern, named, 'parameter')}")
    return chosen


def torch_module(model: Any, owner: str) -> Any:
    """Return the model unwrapped; CapabilityError if it is no torch module."""
    model = unwrapped(model)
    if not hasattr(model, "named_modules"):
        raise CapabilityError(f"{owner} looks inside a torch.nn.Module; this trainer's model is {model!r}")
    return model


def modules(model: Any, owner: str) -> Iterator[tuple[str, Any]]:
    """Yield the modules inside a model by their names."""
    for name, module in torch_module(model, owner).named_modules():
        if name:
            yield name, module


def matches(name: str, module: Any, pattern: str | type) -> bool:
    """Say whether a module is meant.

    >>> matches("model.2.cv1.conv", None, "model.*.conv")
    True
    """
    return isinstance(module, pattern) if isinstance(pattern, type) else fnmatchcase(name, pattern)


def nothing(pattern: str | type, names: Mapping[str, Any], what: str = "layer") -> str:
    """Return in words that nothing matches, and what is nearest.

    >>> nothing("layer1.conv", {"layer1.conv1": 1, "layer2.conv1": 1, "fc": 1})
    "no layer is named 'layer1.conv'; nearest: layer1.conv1, layer2.conv1. The model has 3 layers, fc last."
    """
    from difflib import get_close_matches

    if not names:
        return f"the model has no {what}s"
    if isinstance(pattern, type):
        kinds = list(dict.fromkeys(type(module).__name__ for module in names.values()))
        near = get_close_matches(pattern.__name__, kinds, n=SHOWN, cutoff=0.0)
        return f"no layer is a {pattern.__name__}; the model has {', '.join(near)}"
    near = get_close_matches(pattern.replace("*", "").replace("..", "."), names, n=SHOWN, cutoff=0.5)
    near = near or list(names)[:SHOWN]
    verb = "matches" if set(pattern) & set("*?[") else "is named"
    count = f"The model has {len(names)} {what}s, {list(names)[-1]} last."
    return f"no {what} {verb} {pattern!r}; nearest: {', '.join(near)}. {count}"


def refuse_compiled(model: Any, chosen: Mapping[str, Any], owner: str) -> None:
    """Raise CapabilityError for layers inside what ``torch.compile`` has taken over: their hooks may never fire.

    A module's own hooks fire when ``module.compile()`` was used, those of the modules inside it do not once it ran.
    """
    inside = [name for name in chosen if any(covers(place, name) for place in compiled(model))]
    if inside:
        more = f" and {len(inside) - 1} more" if len(inside) > 1 else ""
        raise CapabilityError(
            f"{owner}: layer {inside[0]!r}{more} inside a module that torch.compile has taken over: hooks set now would"
            " never fire. Train without torch.compile while you look inside, or compile only parts that hold none of"
            " these layers. GradientMonitor works with it: it reads"
            " gradients of parameters, which need no hook"
        )


def covers(place: str, name: str) -> bool:
    """Say whether a layer lies inside a module; "" is the whole model.

    >>> covers("", "fc"), covers("a", "a.b"), covers("a", "a"), covers("a", "ab")
    (True, True, False, False)
    """
    return not place or name.startswith(f"{place}.")


def compiled(model: Any) -> list[str]:
    """Return the names of the modules that ``torch.compile`` has taken over."""
    names = [""] if type(model).__name__ == "OptimizedModule" else []
    for name, module in unwrapped(model).named_modules():
        if type(module).__name__ == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None:
            names.append(name)
    return names
