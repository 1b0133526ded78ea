"""Presets: what other libraries' callbacks accept and how they decide, one row each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from epochal.conditions.arguments import check_number
from epochal.conditions.habits import OURS, Habits
from epochal.core.errors import ArgumentError, nearest

Stops = Literal["keras", "lightning", "transformers", "ultralytics"]
Cuts = Literal["keras", "torch"]
Saves = Literal["keras", "lightning", "transformers", "ultralytics"]

SHARED = ("metric", "mode", "name")  # what every preset takes


@dataclass(frozen=True, kw_only=True)
class Preset:
    """What one library's callback is called, what it accepts, and its habits.

    >>> STOPS["keras"].theirs
    'keras.callbacks.EarlyStopping'
    """

    theirs: str
    takes: tuple[str, ...]
    habits: Habits = OURS
    only_max: bool = False  # it always maximises
    absolute: bool = False  # the sign of min_delta is ignored


@dataclass(frozen=True, kw_only=True)
class StopPreset(Preset):
    """How a library stops; see ``Patience``.

    >>> STOPS["ultralytics"].counts
    'epochs'
    """

    counts: Literal["checks", "epochs"] = "checks"  # since the best, that patience is compared with
    from_epoch: int = 0  # before it nothing is stopped
    at_best: bool = False  # patience is compared at an improvement too
    endless: bool = False  # a patience of 0, or None, never ends
    stale: bool = False  # a value that was not measured again is judged again
    check_finite: bool = False


@dataclass(frozen=True, kw_only=True)
class CutPreset(Preset):
    """How a library lowers the rate; see ``CutDue``.

    >>> CUTS["torch"].patience_more
    1
    """

    min_delta: float = 1e-4
    relative: bool = False
    eps: float | None = None  # a rate is only cut by more than this
    patience_more: int = 0  # so many bad checks more than patience
    last_counts: bool = True  # the last check of a cool-down counts again
    always_anew: bool = False  # it counts anew after a cut, also where no rate could be lowered
    single: bool = False  # the rate is a float32


@dataclass(frozen=True, kw_only=True)
class SavePreset(Preset):
    """How a library chooses what to save, and what it keeps; see ``SaveDue`` and ``Keep``.

    >>> SAVES["lightning"].ranked
    True
    """

    last: int = -1  # keep_last where none is given; -1 all
    best: int = 0  # keep_best where none is given
    at_checks: bool = False  # decides whenever the metric was measured, not only at an epoch's end
    ranked: bool = False  # only what is among the keep_best is saved
    stale: bool = False
    without: bool = False  # an epoch that did not measure the metric is saved, also with best_only
    period: Literal["only", "also", "no"] = "no"  # what every_n_epochs is: when anything is saved, or what is kept too
    shared: bool = False  # the best are among the keep_last
    never_best: Literal["nan", "worst", "nothing"] = "nan"
    later: bool = False  # of equal ones the later is better


STOPS: Mapping[str, StopPreset] = {
    "keras": StopPreset(
        theirs="keras.callbacks.EarlyStopping",
        takes=("patience", "min_delta", "baseline", "start_from_epoch", "restore_best"),
        habits=Habits(single="compared", first="any", apart=True),
        absolute=True,
        from_epoch=1,
    ),
    "lightning": StopPreset(
        theirs="lightning.pytorch.callbacks.EarlyStopping",
        takes=("patience", "min_delta", "check_finite", "stopping_threshold", "divergence_threshold"),
        habits=Habits(single="all"),
        stale=True,
        check_finite=True,
    ),
    "transformers": StopPreset(
        theirs="transformers.EarlyStoppingCallback",
        takes=("patience", "min_delta", "restore_best"),
        habits=Habits(margin="gap", first="any", moving=True),
        at_best=True,
    ),
    "ultralytics": StopPreset(
        theirs="ultralytics.utils.torch_utils.EarlyStopping",
        takes=("patience",),
        habits=Habits(first="zero"),
        only_max=True,
        counts="epochs",
        endless=True,
    ),
}

CUTS: Mapping[str, CutPreset] = {
    "keras": CutPreset(
        theirs="keras.callbacks.ReduceLROnPlateau",
        takes=("factor", "patience", "min_delta", "cooldown", "min_lr"),
        habits=Habits(single="compared", first="any"),
        absolute=True,
        single=True,
    ),
    "torch": CutPreset(
        theirs="torch.optim.lr_scheduler.ReduceLROnPlateau",
        takes=("factor", "patience", "min_delta", "relative", "cooldown", "min_lr", "eps"),
        habits=Habits(margin="best"),
        relative=True,
        eps=1e-8,
        patience_more=1,
        last_counts=False,
        always_anew=True,
    ),
}

SAVES: Mapping[str, SavePreset] = {
    "keras": SavePreset(
        theirs="keras.callbacks.ModelCheckpoint",
        takes=("keep_last", "best_only", "initial_best"),
        habits=Habits(single="compared", first="any"),
        without=True,
    ),
    "lightning": SavePreset(
        theirs="lightning.pytorch.callbacks.ModelCheckpoint",
        takes=("keep_best", "keep_last", "every_n_epochs"),
        habits=Habits(single="compared"),
        last=0,
        best=1,
        at_checks=True,
        ranked=True,
        stale=True,
        period="only",
        never_best="nothing",
        later=True,
    ),
    "transformers": SavePreset(
        theirs="transformers.Trainer",
        takes=("keep_best", "keep_last", "best_only"),
        best=1,
        at_checks=True,
        shared=True,
        never_best="worst",
    ),
    "ultralytics": SavePreset(
        theirs="ultralytics' trainer",
        takes=("keep_best", "keep_last", "every_n_epochs", "best_only"),
        habits=Habits(first="any", ties=True),
        only_max=True,
        last=1,
        best=1,
        period="also",
        later=True,
    ),
}


def delta(row: Preset, min_delta: float, *, owner: str) -> float:
    """Return ``min_delta`` as a library takes it.

    >>> delta(STOPS["keras"], -0.1, owner="EarlyStopping"), delta(STOPS["lightning"], -0.1, owner="EarlyStopping")
    (0.1, -0.1)
    """
    number = check_number(min_delta, owner=owner, argument="min_delta")
    return abs(number) if row.absolute else number


P = TypeVar("P", bound=Preset)


def preset(table: Mapping[str, P], compat: str, given: Mapping[str, Any], *, owner: str) -> P:
    """Return the row of a library; ``given`` holds the arguments that were given.

    >>> preset(STOPS, "lightning", {"patience": 3, "baseline": 0.5}, owner="EarlyStopping")
    Traceback (most recent call last):
    epochal.core.errors.ArgumentError: EarlyStopping: compat="lightning" takes no baseline, since lightning.pytorch.c...

    Raises ``ArgumentError`` for a library that is not in the table and for what its callback does not have.
    """
    row = table.get(compat)
    if row is None:
        guess = nearest(str(compat), table)
        known = " or ".join(f'"{name}"' for name in table)
        raise ArgumentError(f"{owner}: compat must be {known}, not {compat!r}" + (f"; {guess!r}?" if guess else ""))
    for name in given:
        if name not in row.takes and name not in SHARED:
            others = " or ".join(f'compat="{other}"' for other, one in table.items() if name in one.takes)
            cure = f"leave it out, or use {others}" if others else "leave it out"
            raise ArgumentError(
                f'{owner}: compat="{compat}" takes no {name}, since {row.theirs} has nothing like it; {cure}'
            )
    if row.only_max and given.get("mode", "max") != "max":
        raise ArgumentError(f'{owner}: compat="{compat}" always maximises, as {row.theirs} does; leave mode= out')
    return row


def given(arguments: Mapping[str, Any], usual: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the arguments that were given: neither None nor what they are usually.

    >>> given({"min_delta": 0.0, "baseline": None, "patience": 3}, {"min_delta": 0.0})
    {'patience': 3}
    """
    usual = usual or {}
    return {name: value for name, value in arguments.items() if value is not None and value != usual.get(name)}


def only_with_compat(given: Mapping[str, Any], cures: Mapping[str, str], *, owner: str) -> None:
    """Raise ``ArgumentError`` for arguments that only presets take; ``cures`` say what to write without one.

    >>> only_with_compat({"eps": 0.1}, {"eps": "leave it out"}, owner="ReduceLROnPlateau")
    Traceback (most recent call last):
    epochal.core.errors.ArgumentError: ReduceLROnPlateau: eps= goes with compat= only; without it, leave it out
    """
    for name in given:
        if name in cures:
            raise ArgumentError(f"{owner}: {name}= goes with compat= only; without it, {cures[name]}")
