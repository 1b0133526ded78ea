"""Where values stopped being finite: what one batch did inside a model, and the verdict on it, in pure code."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Literal, NamedTuple

Direction = Literal["data", "forward", "backward"]


@dataclass
class Value:
    """One tensor of a batch as layers saw it; layers are named, "" is the whole model.

    ``producer`` returned it, the innermost of several, None where nobody was seen to; ``consumers`` were given it.
    """

    producer: str | None = None
    consumers: list[str] = field(default_factory=list)


class Fault(NamedTuple):
    """Where the first value that is not finite came from, in words too.

    ``layer`` is the name of the layer, "" for the whole model's own code; ``direction`` "forward" if its output stopped
    being finite, "backward" if a gradient did, "data" if what the model was given was not finite already.
    """

    layer: str
    direction: Direction
    text: str


def forward_fault(values: Sequence[Value], largest: Sequence[float], leaves: frozenset[str]) -> Fault | None:
    """Return where the first value in the order of the forward is not finite; ``largest`` has each one's magnitude.

    >>> values = [Value(None, ["", "a"]), Value("a", ["b"]), Value("b")]
    >>> forward_fault(values, [1.0, float("inf"), float("nan")], frozenset("ab"))
    Fault(layer='a', direction='forward', text='the output of layer a is infinite')
    >>> forward_fault(values, [float("nan")] * 3, frozenset("ab")).text
    'what the model was given holds NaN'
    """
    for index, (value, number) in enumerate(zip(values, largest, strict=True)):
        if isfinite(number):
            continue
        how = "is infinite" if number == number else "holds NaN"
        if value.producer is not None:
            own = "" if value.producer in leaves else ", in its own code: the layers inside it returned finite values"
            return Fault(value.producer, "forward", f"the output of {called(value.producer)} {how}{own}")
        first = value.consumers[0]
        if not any(before.producer is not None for before in values[:index]):
            what = (
                "what the model was given" if not first else f"what {called(first)} was given, from outside the model,"
            )
            return Fault(first, "data", f"{what} {how}")
        home = first.rpartition(".")[0]
        return Fault(home, "forward", f"in the own code of {called(home)}, what it gave {called(first)} {how}")
    return None


def backward_fault(
    values: Sequence[Value], order: Sequence[int], largest: Sequence[float], leaves: frozenset[str]
) -> Fault | None:
    """Return where the first gradient in the order of the backward is not finite; ``order`` holds indices of values.

    >>> values = [Value("a", ["b"]), Value("b", ["c"]), Value("c")]
    >>> backward_fault(values, [2, 1, 0], [1.0, float("nan"), float("nan")], frozenset("abc"))
    Fault(layer='c', direction='backward', text='the gradient that the backward of layer c returned holds NaN')
    >>> backward_fault(values, [2, 1, 0], [float("inf")] * 3, frozenset("abc")).text
    'the gradient that came back to the output of layer c, from behind it or from the loss, is infinite'
    """
    for index, number in zip(order, largest, strict=True):
        if isfinite(number):
            continue
        how = "is infinite" if number == number else "holds NaN"
        value = values[index]
        users = [one for one in value.consumers if one in leaves] or value.consumers[-1:]
        if users:
            which = " or ".join(map(called, users))
            return Fault(users[0], "backward", f"the gradient that the backward of {which} returned {how}")
        producer = value.producer or ""
        text = (
            f"the gradient that came back to the output of {called(producer)}, from behind it or from the loss, {how}"
        )
        return Fault(producer, "backward", text)
    return None


def parameter_fault(names: Sequence[str], largest: Sequence[float]) -> Fault | None:
    """Return which parameter's gradient is the first that is not finite.

    >>> parameter_fault(["a.weight", "b.weight"], [1.0, float("nan")])
    Fault(layer='b', direction='backward', text='the gradient of parameter b.weight holds NaN')
    """
    for name, number in zip(names, largest, strict=True):
        if not isfinite(number):
            how = "is infinite" if number == number else "holds NaN"
            return Fault(name.rpartition(".")[0], "backward", f"the gradient of parameter {name} {how}")
    return None


def called(layer: str) -> str:
    """Return a layer's name in a sentence.

    >>> called("fc"), called("")
    ('layer fc', 'the whole model')
    """
    return f"layer {layer}" if layer else "the whole model"
