"""The contract suite of callbacks: what must hold for every callback, ours or yours."""

import copy
import json
import pickle
from collections.abc import Callable as Fn
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from epochal.core.callback import Callback
from epochal.testing.simulate import Simulation, simulate

if TYPE_CHECKING:
    from epochal.core.moment import Moment
    from epochal.core.run import Run

Epochs = Sequence[Mapping[str, float]]
LEVELS = (1.0, 0.8, 0.9, 0.7, 0.7, 0.75, 0.6, 0.65, 0.66, 0.61, 0.6, 0.62)
NEVER_WORSE = tuple(1.0 - 0.05 * epoch for epoch in range(12))


def example_epochs(losses: Sequence[float] = LEVELS) -> list[dict[str, float]]:
    """Return what a training with these losses would log: losses, an accuracy and a fitness.

    >>> example_epochs([0.5])
    [{'train/loss': 0.5, 'val/loss': 0.5, 'val/accuracy': 0.5, 'fitness': 0.5}]
    """
    return [{"train/loss": x, "val/loss": x, "val/accuracy": 1 - x, "fitness": 1 - x} for x in losses]


def check_callback(make: Fn[[], Callback], epochs: Sequence[Epochs] | None = None, *, batches: int = 2) -> None:
    """Raise AssertionError unless the callbacks that ``make`` returns keep what every callback promises.

    >>> from epochal import EarlyStopping
    >>> check_callback(lambda: EarlyStopping("val/loss", patience=2))

    The promises: ``state_dict`` holds plain data and tensors only and covers all that was learnt, so that a second
    training with the same object decides as the first, and one that was saved after any epoch and restored into a new
    object goes on as if nothing had happened; the object can be pickled and copied. Decisions are stops, rates,
    saves and restored weights. ``make`` returns a new object at each call; ``epochs`` are trainings to try, as for
    ``simulate``, by default two with ``train/loss``, ``val/loss``, ``val/accuracy`` and ``fitness``. What depends on
    the wall clock cannot be checked.
    """
    trainings = [example_epochs(), example_epochs(NEVER_WORSE)] if epochs is None else epochs
    check_looks(make)
    for training in trainings:
        check_second_training(make, training, batches)
        check_copies(make, training, batches)
        for epoch in range(len(training) - 1):
            check_resume(make, training, batches, epoch)


def check_looks(make: Fn[[], Callback]) -> None:
    """Check what can be seen without a training."""
    one, other = make(), make()
    expect(isinstance(one, Callback), f"make() must return a Callback, not {one!r}")  # pyright: ignore[reportUnnecessaryIsInstance]
    expect(one is not other, "make() must return a new object at each call")
    expect(
        bool(one.name) and one.name == other.name,
        f"two of a kind have one default name, not {one.name!r} and {other.name!r}",
    )
    check_plain(one.state_dict(), "state_dict()")
    expect(same(one.state_dict(), other.state_dict()), "two new objects must have the same state_dict()")


def check_plain(value: object, where: str) -> None:
    """Check that a state is made of JSON values and tensors only."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            expect(isinstance(name, str), f"{where} has the key {name!r}; keys are strings")
            check_plain(inner, f"{where}[{name!r}]")
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            check_plain(inner, f"{where}[{index}]")
    elif not is_tensor(value):
        try:
            json.dumps(value, allow_nan=True)
        except TypeError:
            expect(False, f"{where} is {value!r}; a state holds numbers, strings, lists, mappings and tensors only")


def is_tensor(value: object) -> bool:
    """Say whether this is a tensor or an array of any framework."""
    return hasattr(value, "shape") and hasattr(value, "dtype")


def same(one: Any, other: Any) -> bool:
    """Say whether two states are the same, tensor by tensor.

    >>> same({"best": float("nan"), "seen": [1, 2]}, {"best": float("nan"), "seen": [1, 2]})
    True
    """
    if isinstance(one, Mapping):
        return isinstance(other, Mapping) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if is_tensor(one):
        return one.shape == other.shape and bool((one == other).all())
    return bool(one == other or (one != one and other != other))


def check_second_training(make: Fn[[], Callback], epochs: Epochs, batches: int) -> None:
    """Check that one object decides in a second training as in the first."""
    callback = make()
    first = decisions(simulate([callback], epochs, batches=batches))
    expect(
        decisions(simulate([callback], epochs, batches=batches)) == first,
        f"{callback.name}: a second training with the same object decides differently: something it learnt is not in"
        " state_dict(), or load_state_dict() does not take it back",
    )


def check_copies(make: Fn[[], Callback], epochs: Epochs, batches: int) -> None:
    """Check that copies, made before and after a training, have the same state and decide alike."""
    callback = make()
    expected = decisions(simulate([make()], epochs, batches=batches))
    for moment in ("before", "after"):
        for how, copied in copies(callback).items():
            what = f"{callback.name}: {how} {moment} a training"
            expect(same(copied.state_dict(), callback.state_dict()), f"{what}: the copy has another state")
            expect(
                decisions(simulate([copied], epochs, batches=batches)) == expected,
                f"{what}: the copy decides differently",
            )
        simulate([callback], epochs, batches=batches)


def copies(callback: Callback) -> dict[str, Callback]:
    """Return copies of a callback, by how they were made; cloudpickle is what carries lambdas."""
    made = {"copy.deepcopy": copy.deepcopy(callback)}
    try:
        import cloudpickle
    except ImportError:
        made["pickle"] = pickle.loads(pickle.dumps(callback))
    else:
        made["cloudpickle"] = pickle.loads(cloudpickle.dumps(callback))
    return made


def check_resume(make: Fn[[], Callback], epochs: Epochs, batches: int, epoch: int) -> None:
    """Check that a training restored after ``epoch`` goes on as if nothing had happened."""
    snapshot = Snapshot(epoch)
    whole = simulate([make(), snapshot], epochs, batches=batches)
    if snapshot.taken is None or whole.epochs_run == epoch + 1:
        return  # it ended before, or right there
    callback = make()
    check_plain(snapshot.taken["callbacks"], "the saved state")
    rest = simulate([callback], epochs, batches=batches, state=snapshot.taken)
    what = f"{callback.name}: saved after epoch {epoch} and restored, it goes on differently"
    expect(rest.lrs == whole.lrs[epoch + 1 :], f"{what}: rates {rest.lrs} instead of {whole.lrs[epoch + 1 :]}")
    expect(rest.stop_reason == whole.stop_reason, f"{what}: {rest.stop_reason!r} instead of {whole.stop_reason!r}")
    saved = [one for one in whole.saved if one > epoch]
    expect(rest.saved == saved, f"{what}: saves {rest.saved} instead of {saved}")


class Snapshot(Callback):
    """Takes the state of a run and its callbacks after an epoch, as a checkpoint would.

    >>> snapshot = Snapshot(1)
    >>> _ = simulate([snapshot], [{}, {}, {}])
    >>> snapshot.taken["run"]["epoch"]
    1
    """

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.taken: dict[str, Any] | None = None

    def at_safe_point(self, run: "Run", now: "Moment") -> None:
        """Take it; this callback stands last, so that all others have decided."""
        if now.ended == "epoch" and now.epoch == self.epoch:
            run.engine.apply_rates()
            self.taken = copy.deepcopy({"run": run.engine.state_dict(), "callbacks": run.roster.states()})


def decisions(result: Simulation) -> tuple[object, ...]:
    """Return all that callbacks decided in a simulation."""
    return (
        result.epochs_run,
        result.stop_reason,
        result.end_reason,
        result.lrs,
        result.saved,
        result.kept,
        result.restored,
        result.events,
    )


def expect(holds: bool, otherwise: str) -> None:
    """Raise AssertionError, also under ``python -O``, unless it holds."""
    if not holds:
        raise AssertionError(otherwise)
