"""The contract suite of integrations: one list of scenarios, run on any trainer."""

from inspect import Parameter, signature
from typing import Any, NamedTuple

from epochal.core.events import check_events
from epochal.core.log import log
from epochal.core.run import Run
from epochal.testing.scenarios import SCENARIOS, Scenario
from epochal.testing.witness import LeftOut, Seen, Train, check


class Outcome(NamedTuple):
    """What a scenario showed: its last training's events, or why it was left out."""

    seen: tuple[Seen, ...] = ()
    skipped: str = ""

    @property
    def events(self) -> list[str]:
        """The names of the events, in their order."""
        return [one.event for one in self.seen]


def check_integration(train: Train) -> dict[str, Outcome]:
    """Run every scenario on a trainer; AssertionError names the scenario and what is wrong in it.

    ``train(callbacks, epochs)`` makes a fresh, small training (the same weights and data each time, at least three
    batches and one validation per epoch, which measures ``val/loss``), attaches the callbacks, trains, lets errors
    through, and returns the run; ``train/loss`` is looked at where it is logged. It also takes those of these keywords
    that the trainer can do:

    - ``error=None``: an exception to raise inside the training step of the second batch
    - ``accumulation=1``: with 2, two batches make one optimizer step (an even number of batches)
    - ``validations=1``: with 2, one validation after two batches and one at the epoch's end
    - ``resume=False``: with True, ``attach(..., resume=True)``, with the same ``dir`` and ``name`` as ever

    A scenario for which a keyword, an event or a capability is missing is left out, which the log says by name.
    Returns each scenario's outcome: ``.events``, ``.seen`` (with epoch, batch, step), ``.skipped``.

    >>> import torch
    >>> from epochal import Loop
    >>> def train(callbacks, epochs):
    ...     torch.manual_seed(0)
    ...     net = torch.nn.Linear(1, 1)
    ...     optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    ...     with Loop(model=net, optimizer=optimizer, callbacks=callbacks) as run:
    ...         for _ in run.epochs(epochs):
    ...             for x in run.batches([torch.ones(1)] * 3):
    ...                 loss = net(x).square().mean()
    ...                 optimizer.zero_grad(), loss.backward(), optimizer.step()
    ...                 run.log({"train/loss": loss})
    ...             with run.validation():
    ...                 run.log({"val/loss": 1.0})
    ...     return run
    >>> outcomes = check_integration(train)
    >>> outcomes["guarded_failure"].events[-2:]
    ['on_train_end', 'teardown']
    >>> outcomes["resume"].skipped
    'train takes no resume='
    """
    outcomes: dict[str, Outcome] = {}
    provides: frozenset[str] = frozenset()
    for scenario in SCENARIOS:
        skipped = missing(scenario, train, provides) if outcomes else ""
        if skipped:
            log().warning("check_integration: scenario %r is left out: %s.", scenario.name, skipped)
            outcomes[scenario.name] = Outcome(skipped=skipped)
            continue
        try:
            seen, provides = played(scenario, train)
        except LeftOut as why:
            log().warning("check_integration: scenario %r is left out: %s.", scenario.name, why)
            outcomes[scenario.name] = Outcome(skipped=str(why))
        else:
            outcomes[scenario.name] = Outcome(seen)
    return outcomes


def played(scenario: Scenario, train: Train) -> tuple[tuple[Seen, ...], frozenset[str]]:
    """Play a scenario; return what was seen, and what the run provides."""
    try:
        witness = scenario.play(returning_runs(train))
        check_events(witness.events)
        assert witness.run is not None, "no event came at all"
    except LeftOut:
        raise
    except (AssertionError, ValueError) as error:
        raise AssertionError(f"scenario {scenario.name!r}: {error}") from error
    except BaseException as error:
        error.add_note(f"in scenario {scenario.name!r}")
        raise
    return tuple(witness.seen), witness.run.roster.provides


def returning_runs(train: Train) -> Train:
    """Return a function that trains, and says so where what comes back is no run.

    >>> returning_runs(lambda callbacks, epochs: None)([], 1)
    Traceback (most recent call last):
    AssertionError: train returned None; it must return the run that attach gave it
    """

    def trained(*args: Any, **options: Any) -> Run:
        run = train(*args, **options)
        right = isinstance(run, Run)  # pyright: ignore[reportUnnecessaryIsInstance]
        check(right, f"train returned {run!r}; it must return the run that attach gave it")
        return run

    return trained


def missing(scenario: Scenario, train: Train, provides: frozenset[str]) -> str:
    """Return why a scenario cannot be played, or an empty text.

    >>> missing(Scenario(lambda train: ..., takes="resume"), lambda callbacks, epochs: ..., frozenset())
    'train takes no resume='
    """
    taken = signature(train).parameters
    anything = any(one.kind is Parameter.VAR_KEYWORD for one in taken.values())
    if scenario.takes and not anything and scenario.takes not in taken:
        return f"train takes no {scenario.takes}="
    lacking = sorted(scenario.needs - provides)
    return f"the run does not provide {', '.join(lacking)}" if lacking else ""
