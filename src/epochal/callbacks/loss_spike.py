"""Notice when the loss jumps far above its recent values; leave such a batch out or go back, where that is wanted."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, final

from epochal.callbacks.going_back import GoingBack
from epochal.callbacks.policy import Policy
from epochal.callbacks.stop import speaking_as
from epochal.conditions.spike import Spike
from epochal.core.errors import ArgumentError, AttachError
from epochal.core.log import log

if TYPE_CHECKING:
    from epochal.core.moment import Moment
    from epochal.core.run import Run

EVENT = "on_loss_spike"


@final
class LossSpike(Policy):
    """Warn when a loss jumps far above its recent values, is NaN or infinite; or leave such batches out, or go back.

    >>> from epochal.testing import simulate
    >>> spike = LossSpike("train/loss", window=8)
    >>> losses = [1.0, 1.1, 0.9, 1.0, 1.1, 9.0, 8.5, 1.0]
    >>> result = simulate([spike], [{"train/loss": x} for x in losses])
    >>> spike.when.state.spikes, result.run.history[-1]["train/loss_spikes"]
    (1, 1.0)

    metric, window, factor, min_rise
        As for the condition ``Spike``: above the median of the last ``window`` values by more than ``factor`` robust
        standard deviations, and by more than ``min_rise`` times the median.
    then
        "warn": a warning with the numbers, once per spike. It looks at values that have reached the host, so on CUDA it
        comes one batch later and nothing waits.
        "skip": the step of a batch whose loss is part of a spike is left out as well, that of an accumulated group if
        one of its batches is. Its loss is read before the step: the device is waited for in every batch.
        "rollback": back to a point of this epoch before the spike; the run goes on without the batches around it.
    at_most, lr_factor, skip_before, skip_after, every
        For "rollback": how often, then the training stops; what the learning rates are multiplied with, for good, each
        time; how many batches before the one whose loss showed the spike, and after it, are left out; how many batches
        lie between the points that it saves inside an epoch, where the trainer goes on from there.

    At the first value of a spike the event ``on_loss_spike`` comes; their number so far is logged at each epoch's end
    as ``<metric>_spikes``. With ``then="skip"`` a ``Loop`` must log the loss before ``optimizer.step()``, else the step
    raises ``AttachError``; with ``then="warn"`` a metric that was never logged is a ``MetricNotFound`` at the end of
    the first epoch.

    Source of "rollback": Chowdhery et al., "PaLM" (2022), section 5.1.
    """

    def __init__(
        self,
        metric: str = "train/loss",
        *,
        window: int = 50,
        factor: float = 8.0,
        min_rise: float = 0.5,
        then: Literal["warn", "skip", "rollback"] = "warn",
        at_most: int = 3,
        lr_factor: float = 1.0,
        skip_before: int = 1,
        skip_after: int = 0,
        every: int = 500,
        name: str | None = None,
    ) -> None:
        if then not in ("warn", "skip", "rollback"):
            raise ArgumentError(f'LossSpike: then must be "warn", "skip" or "rollback", not {then!r}')
        with speaking_as("LossSpike", "Spike"):
            self.spike = Spike(metric, window=window, factor=factor, min_rise=min_rise)
        super().__init__(self.spike, name=name)
        self.then = then
        self.back = GoingBack(
            at_most=at_most, lr_factor=lr_factor, skip_before=skip_before, skip_after=skip_after, every=every
        )
        self.told = 0  # spikes that were told
        self.skipped = 0  # steps left out
        self._judged: tuple[int, int] | None = None  # the epoch and batch whose loss was read
        self._tainted = self._stepping = False  # a batch of the running group is part of a spike; a step was asked for
        if then == "skip":  # only those who look at gradients have the trainer show them
            self.before_step = self.skip_if_spiking

    def __repr__(self) -> str:
        return repr(self.spike).replace("Spike", "LossSpike", 1)[:-1] + f", then={self.then!r})"

    @property
    def requires(self) -> frozenset[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """To go back, checkpoints and a trainer that can."""
        return frozenset({"save", "rollback"} if self.then == "rollback" else ())

    def on_train_start(self, run: "Run") -> None:
        """Begin with a clean group."""
        self._judged, self._tainted, self._stepping = None, False, False
        if self.then != "skip":
            super().on_train_start(run)
        if self.then == "rollback":
            self.back.begin(run, run.label(self))

    def at_safe_point(self, run: "Run", now: "Moment") -> None:
        """Judge the values that arrived, unless each was read before its step."""
        if self.then != "skip":
            super().at_safe_point(run, now)
        if self.then == "rollback" and not self.spike.state.high:
            self.back.keep_point(run, now)

    def act(self, run: "Run", now: "Moment") -> None:
        """Tell a spike that is new, and go back."""
        self.tell(run)
        if self.then == "rollback":
            self.back.ask(run, run.label(self), self.reason())

    def tell(self, run: "Run") -> None:
        """Warn once per spike and let the event come."""
        spikes = self.spike.state.spikes
        if spikes > self.told:
            self.told = spikes
            log().warning("%s: %s, near step %d, epoch %d.", run.label(self), self.reason(), run.step, run.epoch)
            if run.engine.note is not None:
                run.engine.note("spike", self.reason(), run.label(self), {})
            run.emit(EVENT)

    def reason(self) -> str:
        """Say what was found last, with its numbers."""
        from epochal.core.moment import Moment

        return self.spike.reason(Moment("batch", epoch=0))

    def skip_if_spiking(self, run: "Run", optimizer: Any) -> None:
        """Leave the step out if the loss of one of its batches is part of a spike."""
        self.judge(run, needed=True)
        if self._tainted:
            run.skip_step()
            self.skipped += not self._stepping
        self._stepping = True

    def judge(self, run: "Run", *, needed: bool) -> None:
        """Read and judge the loss of the batch that runs, once."""
        here = (run.epoch, run.batch)
        if self._judged == here:
            return
        metric = self.spike.metric
        found = run.metrics.measured(metric) if metric in run.metrics else None
        if found is None or (found.epoch, found.batch) != here:
            if needed:
                raise AttachError(
                    f'{run.label(self)}: then="skip" needs the {metric} of this batch before its step, and it was not'
                    f' logged yet; write run.log({{"{metric}": loss}}) before optimizer.step()'
                )
            return
        self._judged = here
        self._tainted |= self.spike.judge(found.value)
        self.tell(run)

    def on_train_batch_end(self, run: "Run") -> None:
        """Judge a batch that made no step; the next group begins clean."""
        if self.then == "skip":
            self.judge(run, needed=False)
            if self._stepping or not run.engine.groups.unfinished(run.epoch):
                self._tainted = self._stepping = False

    def on_train_epoch_abort(self, run: "Run") -> None:
        """The group is given up with its epoch."""
        self._tainted = self._stepping = False

    def on_fit_epoch_end(self, run: "Run") -> None:
        """Log how many spikes there were."""
        run.log({f"{self.spike.metric}_spikes": self.spike.state.spikes})

    def on_train_end(self, run: "Run") -> None:
        """Have the summary say what was found."""
        label = run.label(self)
        back = self.back.done(run, label)
        spikes = self.told + back  # going back forgets those that led to it
        if spikes:
            also = {"skip": f", {self.skipped} steps left out", "rollback": f", {back} times back before one"}
            what = f"{label}: {spikes} spike{'s' * (spikes > 1)} of {self.spike.metric}"
            run.engine.notes.append(what + also.get(self.then, ""))

    def state_dict(self) -> dict[str, Any]:
        """Return the recent values and the counts."""
        return {
            "when": super().state_dict(),
            "told": self.told,
            "skipped": self.skipped,
            "saved_at": self.back.saved_at,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them back."""
        super().load_state_dict(state["when"])
        self.told, self.skipped = state["told"], state["skipped"]
        self.back.saved_at = state.get("saved_at")
