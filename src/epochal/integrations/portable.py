"""A run that can be copied and pickled: its callbacks and functions go along, the training does not."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from epochal.core.callback import Callback
from epochal.core.dispatch import ASKED
from epochal.core.events import EVENT_NAMES, OWN_DECLARED
from epochal.core.fitness import FitnessSpec
from epochal.core.run import Run
from epochal.runs.recorder import LABEL as STORE
from epochal.runs.recorder import Recorder

if TYPE_CHECKING:
    from epochal.core.declared import Declared


class Wanted(NamedTuple):
    """One call that is wanted at one event."""

    event: str
    fn: Any
    label: str
    guarded: bool
    every: int | None
    once: bool


class PackedRun(NamedTuple):
    """What a run is made of before a training: small, and as picklable as the user's callbacks."""

    host: str
    provides: frozenset[str]
    owns: Mapping[str, str]
    fitness: FitnessSpec
    callbacks: dict[str, Callback]
    undeclared: list[tuple[Callback, str]]
    declared: list[str]
    wanted: list[Wanted]
    timing: bool
    commands: "dict[str, Declared]"
    control: bool | None  # None: no store


def pack(run: Run) -> PackedRun:
    """Return what ``unpack`` makes an equal run from."""
    dispatcher = run.engine.dispatcher
    own = {*EVENT_NAMES, *OWN_DECLARED, *ASKED}
    wanted = [
        Wanted(event, handle.fn, handle.label, handle.guarded, handle.every, handle.once)
        for event, slot in dispatcher.slots.items()
        for handle in slot.wanted
        if handle.label not in ("EPOCHAL_DEBUG", STORE)
    ]
    return PackedRun(
        host=run.host,
        provides=run.roster.provides,
        owns=run.roster.owns,
        fitness=run.engine.fitness_rule.spec,
        callbacks=dict(run.roster.callbacks),
        undeclared=list(run.roster.undeclared),
        declared=[event for event in dispatcher.slots if event not in own],
        wanted=wanted,
        timing=dispatcher.timing,
        commands=dict(run.commands),
        control=None if run.recorder is None else run.recorder.control,
    )


def unpack(packed: PackedRun) -> Run:
    """Return a run with these callbacks and functions, in the same order, that has seen no training yet.

    >>> run = Run(host="A", provides=frozenset())
    >>> _ = run.add_callback("on_train_end", print, every=2)
    >>> [handle.every for handle in unpack(pack(run)).engine.slot("on_train_end").wanted]
    [2]
    """
    run = Run(host=packed.host, provides=packed.provides, owns=packed.owns, fitness=packed.fitness)
    for event in packed.declared:
        run.declare(event)
    run.roster.callbacks.update(packed.callbacks)
    run.roster.undeclared.extend(packed.undeclared)
    for event, fn, label, guarded, every, once in packed.wanted:
        run.engine.dispatcher.listen(event, fn, label=label, guarded=guarded, every=every, once=once)
    run.time_callbacks(packed.timing)
    run.commands.update(packed.commands)
    if packed.control is not None:
        Recorder(run, control=packed.control)
    return run
