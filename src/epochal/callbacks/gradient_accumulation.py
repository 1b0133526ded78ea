"""Step once for several batches, in a loop that is written as if each batch made a step."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, final

from epochal.callbacks.gradient_group import GradientGroup
from epochal.conditions.arguments import check_count
from epochal.core.callback import Callback
from epochal.core.errors import ArgumentError, CapabilityError
from epochal.core.log import log
from epochal.hooks.method import Method
from epochal.hooks.select import torch_module

if TYPE_CHECKING:
    from epochal.core.run import Run


@final
class GradientAccumulation(Callback):
    """Let several batches make one optimizer step: their gradients are added up, then divided by their number.

    >>> import torch
    >>> from epochal import Loop
    >>> net = torch.nn.Linear(1, 1)
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    >>> with Loop(model=net, optimizer=optimizer, callbacks=[GradientAccumulation({0: 4, 1: 2})]) as run:
    ...     for epoch in run.epochs(2):
    ...         for x in run.batches(torch.ones(6, 8, 1)):
    ...             optimizer.zero_grad()
    ...             net(x).square().mean().backward()
    ...             optimizer.step()
    ...         print(run.step)
    2
    5

    batches
        How many batches make a step; or a schedule, epoch -> batches, which holds from that epoch (0-based) on; before
        the first of its epochs every batch makes a step.

    The loop stays as it is, ``zero_grad``, ``backward``, ``step`` or ``backward``, ``step``, ``zero_grad`` in every
    batch: until a group of batches is complete ``optimizer.step``, ``optimizer.zero_grad``, ``model.zero_grad``, and
    the ``step``, ``unscale_`` and ``update`` of a scaler that ``Loop`` was given, do nothing. The step equals that of
    one large batch to rounding, if the loss is a mean over batches of one size and no layer mixes the samples of a
    batch (BatchNorm does). A group ends with the last batch of an epoch too, divided by what it has, where the number
    of batches is known; else it goes on in the next epoch. ``run.step`` counts real steps, a stop waits for the end of
    the group.

    ``CapabilityError`` where the trainer accumulates itself, in a ``Loop`` without an optimizer, for ``step(closure)``,
    where ``zero_grad`` is asked to drop gradients that came since the optimizer's last ``step``, and
    where somebody drops gradients by hand that are held.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"accumulation"})

    def __init__(self, batches: int | Mapping[int, int], *, name: str | None = None) -> None:
        self.schedule = check_schedule(batches)
        self.groups: dict[int, GradientGroup] = {}  # by the optimizer's id
        self.saved: Sequence[Mapping[str, Any]] = ()
        self.methods: list[Method] = []
        self.run: Run | None = None
        self.update_due = self.hinted = False
        if name is not None:
            self.name = name

    def __repr__(self) -> str:
        return f"GradientAccumulation({self.schedule[0] if list(self.schedule) == [0] else self.schedule})"

    def size(self, epoch: int) -> int:
        """Return how many batches make a step in an epoch."""
        return next((self.schedule[first] for first in sorted(self.schedule, reverse=True) if first <= epoch), 1)

    def on_train_start(self, run: "Run") -> None:
        """Stand between the loop and its optimizers; gradients that a checkpoint brought are put back."""
        model = torch_module(run.model, run.label(self))
        optimizers, scalers = parts_of(run)
        if not optimizers:
            raise CapabilityError(f"{run.label(self)}: there is no optimizer to hold back; give Loop(optimizer=...)")
        if run.engine.groups.planned is not None:
            raise ArgumentError(f"{run.label(self)}: another callback plans the batches per step already")
        self.run, run.engine.groups.planned = run, self.size
        self.update_due = self.hinted = False
        self.groups = {id(one): GradientGroup(one) for one in optimizers}
        self.put_back()
        for group in self.groups.values():
            self.methods.append(Method(group.optimizer, "step", group.method(self.step)))
            self.methods.append(Method(group.optimizer, "zero_grad", group.method(self.zero_grad)))
        for one in {id(one): one for one in (run.model, model)}.values():
            self.methods.append(Method(one, "zero_grad", self.zero_model))
        for scaler in scalers:
            for method in ("step", "unscale_", "update"):
                self.methods.append(Method(scaler, method, getattr(self, f"scaler_{method}")))
        self.tell()

    def put_back(self) -> None:
        """Let the groups stand where a checkpoint left them: at their start where it knows of none."""
        for index, group in enumerate(self.groups.values()):
            group.load_state_dict(self.saved[index] if index < len(self.saved) else {"batches": 0})

    def due(self, group: GradientGroup) -> bool:
        """Say whether the step of this batch is to be done."""
        run = self.run
        if run is None:
            return True
        last = run.num_batches is not None and run.batch + 1 >= run.num_batches
        return last or group.batches + 1 >= self.size(run.epoch)

    def tell(self) -> None:
        """Tell the engine whether gradients wait: a stop waits for them."""
        if self.run is not None:
            self.run.engine.groups.held = any(group.batches for group in self.groups.values())

    # -- what stands in place of the optimizers', the model's and the scalers' methods ------------------------------

    def step(self, group: GradientGroup, original: Any, *args: Any, **options: Any) -> Any:
        """Hold the step back, or do it with the mean of the group's gradients."""
        closure = args[0] if args else options.get("closure")
        if closure is not None and (group.batches or not self.due(group)):
            raise CapabilityError(
                f"{self.name}: step(closure) computes its gradients itself, so none can be accumulated;"
                " call backward() before step()"
            )
        if not self.due(group):
            group.hold(self.name)
            self.tell()
            return None
        group.close(self.name)
        self.tell()
        return original(*args, **options)

    def zero_grad(self, group: GradientGroup, original: Any, *args: Any, **options: Any) -> None:
        """Drop gradients only where none are held."""
        if group.batches:
            group.check_untouched(self.name)
        else:
            original(*args, **options)

    def zero_model(self, original: Any, *args: Any, **options: Any) -> None:
        """Drop the gradients of what no optimizer holds."""
        held = [group for group in self.groups.values() if group.batches]
        if not held or self.run is None:
            original(*args, **options)
            return
        for group in held:
            group.check_untouched(self.name)
        kept = {id(one) for group in held for one in group.parameters()}
        for parameter in self.run.model.parameters():
            if id(parameter) not in kept:
                parameter.grad = None

    def scaler_step(self, original: Any, optimizer: Any, *args: Any, **options: Any) -> Any:
        """Hold the step back before its gradients are unscaled; a group that AMP leaves out ends too."""
        group = self.groups.get(id(optimizer))
        if group is not None and not self.due(group):
            group.hold(self.name)
            self.tell()
            return None
        self.update_due = True
        try:
            return original(optimizer, *args, **options)
        finally:
            if group is not None:
                group.batches = 0
            self.tell()

    def scaler_unscale_(self, original: Any, optimizer: Any) -> None:
        """Unscale complete groups only."""
        group = self.groups.get(id(optimizer))
        if group is None or self.due(group):
            original(optimizer)
        elif not self.hinted:
            self.hinted = True
            log().warning(
                "%s: the loop calls scaler.unscale_, maybe to clip. While a group is not complete its gradients stay"
                " scaled, and what clips them there changes the sum: use GradientClip(...) in place of it.", self.name,
            )  # fmt: skip

    def scaler_update(self, original: Any, *args: Any, **options: Any) -> None:
        """Change the scale between groups only: all gradients of one have the same."""
        waiting = any(group.batches for group in self.groups.values())
        if not waiting:
            self.update_due = False
            original(*args, **options)
        elif self.update_due:
            raise CapabilityError(f"{self.name}: with a scaler all optimizers of a loop must step equally often")

    # -- the end, and what survives a restart -----------------------------------------------------------------------

    def on_train_end(self, run: "Run") -> None:
        """Say which gradients made no step."""
        held = max((group.batches for group in self.groups.values()), default=0)
        if held:
            run.engine.notes.append(f"{run.label(self)}: the gradients of the last {held} batches made no step")

    def teardown(self, run: "Run") -> None:
        """Give the methods back; gradients that are held stay where they are."""
        while self.methods:
            self.methods.pop().remove()
        self.saved = self.states()
        self.groups, self.run = {}, None
        run.engine.groups.planned, run.engine.groups.held = None, False

    def states(self) -> list[dict[str, Any]]:
        """Return how many batches are held, per optimizer; nothing where none are."""
        states = [group.state_dict() for group in self.groups.values()]
        return states if any(state["batches"] for state in states) else []

    def state_dict(self) -> dict[str, Any]:
        """Return how many batches wait for more of their group; the loop's own state holds their gradients."""
        return {"groups": self.states() if self.groups else list(self.saved)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it back, at once in a training, else when it starts."""
        self.saved = list(state["groups"])
        self.put_back()
        self.tell()


def check_schedule(batches: int | Mapping[int, int]) -> dict[int, int]:
    """Return a schedule as epoch -> batches per step, or raise ArgumentError.

    >>> check_schedule(4), check_schedule({0: 1, 5: 4})
    ({0: 4}, {0: 1, 5: 4})
    """
    schedule = dict(batches) if isinstance(batches, Mapping) else {0: batches}
    if not schedule:
        raise ArgumentError("GradientAccumulation: the schedule is empty; give epoch -> batches, such as {0: 4, 10: 2}")
    for epoch, number in schedule.items():
        if isinstance(epoch, bool) or not isinstance(epoch, int) or epoch < 0:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"GradientAccumulation: the schedule's keys are epochs, 0, 1 ..., not {epoch!r}")
        check_count(number, owner="GradientAccumulation", argument=f"batches from epoch {epoch} on")
    return schedule


def parts_of(run: "Run") -> tuple[Sequence[Any], Sequence[Any]]:
    """Return the optimizers and the scalers that a Loop was given."""
    state = getattr(run.trainer, "state", None)
    if state is None:
        return [], []
    scalers = [thing for part, thing in state.singles.items() if part.startswith("scaler")]
    return state.optimizers, [one for one in scalers if hasattr(one, "unscale_")]
