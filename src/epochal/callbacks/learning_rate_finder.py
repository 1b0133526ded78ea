"""Find a learning rate to begin with: a range test on a copy of the model, which leaves the training as it is."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, final

from epochal.callbacks.figure import check_drawing, drawn, write_png
from epochal.callbacks.range_test import FEWEST, RangeTest
from epochal.callbacks.range_trial import LossTrial, run_range_test, top_rate
from epochal.conditions.arguments import check_amount, check_count
from epochal.core.callback import Callback
from epochal.core.errors import ArgumentError
from epochal.core.log import log

if TYPE_CHECKING:
    from epochal.core.run import Run

FILE = "learning_rate_finder"


@final
class LearningRateFinder(Callback):
    """Before the first epoch, train a copy of the model while the rate grows, and suggest the rate to begin with.

    >>> import torch
    >>> from epochal import Loop
    >>> net = torch.nn.Linear(1, 1)
    >>> data = [(torch.ones(4, 1), torch.ones(4, 1))]
    >>> finder = LearningRateFinder(loss=lambda model, batch: (model(batch[0]) - batch[1]).square().mean(), data=data)
    >>> with Loop(model=net, optimizer=torch.optim.SGD(net.parameters(), lr=0.1), callbacks=[finder]) as run:
    ...     for epoch in run.epochs(1):
    ...         pass
    >>> 0 < finder.suggestion < 1
    True

    loss, data
        In a ``Loop``: a function of a model and a batch that returns the loss, a tensor, and what to iterate for
        batches, as often as needed (a DataLoader or a list; no generator, which would be used up). Trainers that know
        their loss, such as Ultralytics YOLO, need neither.
    start, end, steps
        The rates: ``steps`` optimizer steps, from ``start`` to ``end``, each rate the one before times a constant.
        Parameter groups keep their ratio to the first group, which has the rate.
    apply
        Multiply the training's rates by suggestion / rate, so that its schedule keeps its shape. The rate is the
        schedule's highest, as far as the optimizer's groups tell (``max_lr``, ``initial_lr``, ``lr``).
    diverged, smooth
        End early when the smoothed loss is more than so many times its smallest; weight of what was before in the
        smoothing, an exponential moving average. Defaults of fastai and Lightning.

    The suggestion is where the loss falls fastest, by a line fitted to a sixth of the rates, over their logarithm.
    ``learning_rate_finder.png`` and ``.json`` in ``run.dir`` show the curve; ``run.log_image`` gets it too. Model,
    optimizer, schedule, random generators and the order of data are afterwards bit for bit what they were; a copy of
    model and optimizer needs memory meanwhile. A resumed training is left alone, and so is one on several processes.
    It is guarded: if it fails, the training goes on without it. MissingExtra where matplotlib is not installed.
    """

    guarded = True

    def __init__(
        self,
        *,
        loss: Callable[[Any, Any], Any] | None = None,
        data: Iterable[Any] | None = None,
        start: float = 1e-7,
        end: float = 10.0,
        steps: int = 100,
        apply: bool = False,
        diverged: float = 4.0,
        smooth: float = 0.98,
        name: str | None = None,
    ) -> None:
        owner = "LearningRateFinder"
        check_drawing(owner)
        check_amount(start, owner=owner, argument="start")
        check_amount(end, owner=owner, argument="end")
        check_count(steps, owner=owner, argument="steps")
        if not start < end:
            raise ArgumentError(f"{owner}: start={start!r} must be below end={end!r}")
        if not diverged > 1:
            raise ArgumentError(f"{owner}: diverged={diverged!r} must be above 1: times the smallest loss")
        if not 0 <= smooth < 1:
            raise ArgumentError(f"{owner}: smooth={smooth!r} must be at least 0 and below 1")
        check_loss_and_data(loss, data, owner)
        self.loss, self.data = loss, data
        self.start, self.end, self.steps, self.apply = float(start), float(end), steps, apply
        self.diverged, self.smooth = float(diverged), float(smooth)
        self.name = name
        self.suggestion: float | None = None
        self._resumed = False

    def __repr__(self) -> str:
        return f"LearningRateFinder(start={self.start:g}, end={self.end:g}, steps={self.steps}, apply={self.apply})"

    @property
    def requires(self) -> frozenset[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The loss, unless it was given; and, to apply the suggestion, the rates."""
        return frozenset({"set_lr"} if self.apply else ()) | frozenset({"loss"} if self.loss is None else ())

    def on_resume(self, run: "Run") -> None:
        """Note that this training goes on."""
        self._resumed = True

    def on_train_start(self, run: "Run") -> None:
        """Do the test, tell and apply what it found."""
        resumed, self._resumed = self._resumed, False
        if resumed or run.rank:
            return
        if run.world_size > 1:
            log().warning("%s is for one process; this training has %d, so it is left out.", self.name, run.world_size)
            return
        trial = run.engine.trial if self.loss is None else LossTrial(self.loss, self.data)
        if trial is None or not getattr(run.optimizer, "param_groups", None):
            raise ArgumentError(f"{self.name}: {run.host} shows no optimizer or no loss to try rates with")
        test = RangeTest(self.start, self.end, self.steps, smooth=self.smooth, diverged=self.diverged)
        log().info("%s: trying %d rates, %g to %g, on a copy of the model", self.name, test.steps, test.start, test.end)
        run_range_test(test, trial, run.model, run.optimizer, self.data)
        self.suggestion = test.suggestion()
        self.tell(run, test)
        if self.apply and self.suggestion is not None:
            self.scale(run, self.suggestion)
        self.write(run, test)

    def tell(self, run: "Run", test: RangeTest) -> None:
        """Say what was found, in the log and in the summary at the end."""
        if self.suggestion is None:
            text = why_none(test)
            log().warning("%s suggests no rate: %s", self.name, text)
            run.engine.notes.append(f"{self.name}: no suggestion, {text}")
            return
        ended = f"{test.ended} at {test.tried[-1]:.3g}" if test.ended != "all rates" else "all rates tried"
        done = "used" if self.apply else "not used; apply=True would"
        text = f"{self.suggestion:.3g} instead of {top_rate(run.optimizer.param_groups[0]):.3g} ({ended}; {done})"
        log().info("%s suggests a rate of %s", self.name, text)
        run.engine.notes.append(f"{self.name}: a rate of {text}")

    def scale(self, run: "Run", suggestion: float) -> None:
        """Multiply the rates of the first optimizer's groups so that the schedule's highest is the suggestion."""
        groups = run.optimizer.param_groups
        names = list(run.lr)[: len(groups)]
        rates = run.engine.rates
        now = top_rate(groups[0]) * rates.factors.get(names[0], rates.factor_of_all)
        if not now:
            raise ArgumentError(f"{self.name}: the training's rate is 0, which no factor makes {suggestion:g}")
        for group in names if len(names) < len(run.lr) else [None]:
            run.scale_lr(suggestion / now, group)

    def write(self, run: "Run", test: RangeTest) -> None:
        """Write the curve as JSON and as a picture."""
        from epochal.callbacks.range_view import draw
        from epochal.loggers.files import replace

        rate = top_rate(run.optimizer.param_groups[0])
        found = {"suggestion": self.suggestion, "rate": rate, "ended": test.ended}
        curve = {"rates": test.tried, "losses": test.losses, "smoothed": test.smoothed}
        folder = run.dir if run.folder is None else run.folder.make()
        replace(folder / f"{FILE}.json", f"{json.dumps({**found, **curve}, indent=1)}\n".encode())
        if test.tried:
            image = drawn(draw(test, rate))
            write_png(folder / f"{FILE}.png", image)
            run.log_image(FILE, image)

    def state_dict(self) -> dict[str, Any]:
        """Return the suggestion."""
        return {"suggestion": self.suggestion}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back the suggestion."""
        self.suggestion = state["suggestion"]


def check_loss_and_data(loss: object, data: object, owner: str) -> None:
    """Raise ArgumentError unless loss and data come together, and the data can be gone through more than once."""
    example = f"{owner}(loss=lambda model, batch: ..., data=loader)"
    if (loss is None) != (data is None):
        raise ArgumentError(f"{owner}: loss and data belong together: {example}")
    if loss is not None and not callable(loss):
        raise ArgumentError(f"{owner}: loss={loss!r} must be a function of a model and a batch: {example}")
    if isinstance(data, Iterator):
        raise ArgumentError(
            f"{owner}: data={data!r} is a generator or an iterator, which can be gone through only once: the training"
            f" would miss what the test took. Give what it is made from: a DataLoader or a list"
        )
    if data is not None and not isinstance(data, Iterable) and not hasattr(data, "__getitem__"):
        raise ArgumentError(f"{owner}: data={data!r} cannot be iterated; give a DataLoader or a list of batches")


def why_none(test: RangeTest) -> str:
    """Say why there is no suggestion, and what to do.

    >>> why_none(RangeTest(1e-7, 1.0, 100, smooth=0.98, diverged=4.0))
    'there was no batch to try; give data with at least one'
    """
    if not test.tried:
        if test.ended == "not finite":
            return f"the loss of the first batch is not finite, at a rate of {test.start:g}; look at the data first"
        return "there was no batch to try; give data with at least one"
    count = len(test.tried)
    if test.ended != "all rates" and count < test.steps / 2:
        why = "was not finite" if test.ended == "not finite" else "diverged"
        return f"the loss {why} after {count} of {test.steps} rates, at {test.tried[-1]:.3g}; give a smaller start"
    if count < FEWEST:
        return f"{count} rates are too few to see where the loss falls; give more steps"
    return f"the loss fell nowhere between {test.tried[0]:.3g} and {test.tried[-1]:.3g}; look at the curve"
