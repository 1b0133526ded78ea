"""Which layer was the first whose output, or gradient, stopped being finite."""

from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from epochal.callbacks.inside import Inside
from epochal.core.errors import ArgumentError
from epochal.core.log import log
from epochal.core.metrics import At
from epochal.hooks.finite_trace import Direction, Fault, Value, backward_fault, forward_fault, parameter_fault
from epochal.hooks.model_hooks import ModelHooks, tensors_in
from epochal.hooks.norms import on_one_device
from epochal.hooks.readout import Reading, Readout
from epochal.hooks.select import leaves, modules, parameters, torch_module

if TYPE_CHECKING:
    from epochal.core.run import Run

WITHOUT_STEP = 25  # batches in a row whose gradients are not finite and that had no step: AMP's scaler gives up


class Found(NamedTuple):
    """What ``WhereIsNaN`` found: the layer ("" for the model's own code), which way, and when; ``text`` says it all."""

    layer: str
    direction: Direction
    epoch: int
    batch: int
    step: int
    text: str


class WhereIsNaN(Inside):
    """Name the first layer whose output, or gradient, stopped being finite.

    >>> import torch
    >>> from epochal import Loop
    >>> class Root(torch.nn.Module):
    ...     def forward(self, x):
    ...         return x.sqrt()
    >>> net = torch.nn.Sequential(torch.nn.Identity(), Root())
    >>> watch = WhereIsNaN()
    >>> with Loop(model=net, callbacks=[watch]) as run:
    ...     for epoch in run.epochs(1):
    ...         for x in run.batches([torch.tensor([4.0]), torch.tensor([-4.0])]):
    ...             _ = net(x)
    >>> watch.found.layer, watch.found.direction, watch.found.batch
    ('1', 'forward', 1)

    then
        "warn": say it in the log and in the summary; "stop": end the training too.
    every
        n: in the batches of the n-th, 2n-th ... optimizer step.

    Looks at what every layer is given and returns, at the gradients by all of that, and at the gradients of the
    parameters; NaN and infinities count. One number per tensor is computed on the device and read one batch later, off
    the training thread, so the finding comes a batch or two after the fault; ``found`` has it, with the batch of the
    fault. After the first finding the hooks are taken out: all that follows is not finite either. Gradients that AMP's
    scaler throws away with their step are no fault, unless it never stops. For a debugging run: it costs a pass over
    every activation (torch's own ``detect_anomaly`` costs more, and names operations, not layers).
    """

    def __init__(self, *, then: Literal["warn", "stop"] = "warn", every: int = 1, name: str | None = None) -> None:
        if then not in ("warn", "stop"):
            raise ArgumentError(f'WhereIsNaN: then must be "warn" or "stop", not {then!r}')
        super().__init__(every, name)
        self.then = then
        self.found: Found | None = None

    def __repr__(self) -> str:
        return f"WhereIsNaN(then={self.then!r}, every={self.every})"

    def on_train_start(self, run: "Run") -> None:
        """Set the hooks."""
        self.found = None
        self.watch = FiniteWatch(run, run.label(self))

    def on_train_batch_start(self, run: "Run") -> None:
        """Look in the batches of every n-th step."""
        if self.due(run):
            self.watch.begin()

    def before_step(self, run: "Run", optimizer: Any) -> None:
        """Look at the gradients of the parameters."""
        if self.watch is not None and self.watch.batch is not None:
            self.watch.look_at_gradients(self.watch.batch)

    def on_train_batch_end(self, run: "Run") -> None:
        """Queue what was seen, and tell what was found in an earlier batch."""
        if self.watch is not None:
            self.watch.push()
            self.tell(run)

    def on_train_epoch_abort(self, run: "Run") -> None:
        """Forget the batch that did not end."""
        if self.watch is not None:
            self.watch.batch = None

    def on_train_end(self, run: "Run") -> None:
        """Wait for the last batch."""
        super().on_train_end(run)
        self.tell(run)

    def on_exception(self, run: "Run") -> None:
        """The batch that failed may tell why."""
        if self.watch is not None:
            self.watch.push()
        self.on_train_end(run)

    def tell(self, run: "Run") -> None:
        """Say what was found, once, and look no further."""
        watch: FiniteWatch | None = self.watch
        if watch is None or watch.fault is None or self.found is not None:
            return
        fault, at = watch.fault
        text = f"{fault.text}, in batch {at.batch} of epoch {at.epoch} (both from 0){watch.weights(fault.layer)}"
        self.found = Found(fault.layer, fault.direction, at.epoch, at.batch or 0, at.step, text)
        log().error("%s: %s", run.label(self), text)
        run.engine.notes.append(f"{run.label(self)}: {text}")
        watch.hooks.remove()
        if self.then == "stop" and run.end_reason is None:
            run.stop(text)


class Batch:
    """What one batch did: its values, and device numbers for them, their gradients and the parameters' gradients."""

    def __init__(self) -> None:
        from torch.utils.weak import WeakTensorKeyDictionary

        self.seen: Any = WeakTensorKeyDictionary()  # tensor -> its version when it was seen, and which value it is
        self.values: list[Value] = []
        self.largest: list[Any] = []
        self.order: list[int] = []
        self.gradients: list[Any] = []
        self.names: list[str] = []
        self.of_parameters: list[Any] = []
        self.stepped = False


class FiniteWatch:
    """The watching of one training."""

    def __init__(self, run: "Run", label: str) -> None:
        import torch

        self.engine, self.model = run.engine, torch_module(run.model, label)
        self.leaves = frozenset(leaves(run.model, label))
        self.parameters = parameters(run.model, "*", label) if next(self.model.parameters(), None) is not None else {}
        self.stepless = run.optimizer is None
        self.batch: Batch | None = None
        self.fault: tuple[Fault, At] | None = None
        self.pending: tuple[Fault, At] | None = None  # a gradient that no optimizer has used yet
        self.without_step = 0
        self.norm, self.without_graph = torch.linalg.vector_norm, torch.no_grad()
        self.hooks = ModelHooks(run.model, dict(modules(run.model, label)), label)
        self.readout = Readout(label, self.deliver)
        for name, module in (("", self.model), *self.hooks.layers.items()):
            self.hooks.before_forward(module, partial(self.given, name))
            self.hooks.after_forward(module, partial(self.returned, name))

    def begin(self) -> None:
        """Begin to look, unless the fault is known."""
        self.batch = Batch() if self.fault is None else None

    # -- what hooks see ---------------------------------------------------------------------------------------------

    def given(self, name: str, _module: Any, args: Any, kwargs: Any) -> None:
        """A layer is given values."""
        if self.batch is not None:
            for tensor in tensors_in((args, kwargs)):
                value = self.seen(self.batch, tensor)
                if value is not None:
                    value.consumers.append(name)

    def returned(self, name: str, _module: Any, _args: Any, output: Any) -> None:
        """A layer returns values."""
        if self.batch is not None:
            for tensor in tensors_in(output):
                value = self.seen(self.batch, tensor)
                if value is not None and value.producer is None and name not in value.consumers:
                    value.producer = name

    def seen(self, batch: Batch, tensor: Any) -> Value | None:
        """Return the value that a tensor is, with a number for it on the device if it is new; an empty one is none."""
        if not tensor.numel():
            return None
        version = None if tensor.is_inference() else tensor._version  # what works in place makes another value of it
        known = batch.seen.get(tensor)
        if known is not None and known[0] == version:
            return batch.values[known[1]]
        index = len(batch.values)
        batch.seen[tensor] = (version, index)
        batch.values.append(Value())
        batch.largest.append(self.size(tensor))
        if tensor.requires_grad:
            tensor.register_hook(partial(self.came_back, batch, index))
        return batch.values[index]

    def came_back(self, batch: Batch, index: int, gradient: Any) -> None:
        """The gradient by a value is there."""
        batch.order.append(index)
        batch.gradients.append(self.size(gradient))

    def size(self, tensor: Any) -> Any:
        """Return the largest magnitude, NaN if there is one; on the device."""
        with self.without_graph:
            return self.norm(tensor, float("inf")).float()

    def look_at_gradients(self, batch: Batch) -> None:
        """Look at the gradients of all parameters; an optimizer is about to use them."""
        batch.stepped = True
        for name, parameter in self.parameters.items():
            if parameter.grad is not None and parameter.grad.numel() and not parameter.grad.is_sparse:
                batch.names.append(name)
                batch.of_parameters.append(self.size(parameter.grad))

    # -- from the device to the verdict -------------------------------------------------------------------------------

    def push(self) -> None:
        """Queue one copy of the batch's numbers to the host."""
        import torch

        batch, self.batch = self.batch, None
        if batch is None:
            return
        self.hooks.called = bool(batch.values)
        self.hooks.check_called()
        numbers = [*batch.largest, *batch.gradients, *batch.of_parameters]
        if numbers:
            places, vector = on_one_device(list(map(str, range(len(numbers)))), numbers, torch.stack)
            at = At(self.engine.epoch, self.engine.batch, self.engine.step)
            batch.largest, batch.gradients, batch.of_parameters, batch.seen = [], [], [], None
            self.readout.push((batch, [int(place) for place in places], at), vector, at)

    def deliver(self, reading: Reading) -> None:
        """Judge one batch; on the readout's thread."""
        batch, places, at = reading.about
        numbers = [0.0] * len(places)
        for place, number in zip(places, reading.numbers, strict=True):
            numbers[place] = number
        first, second = len(batch.values), len(batch.values) + len(batch.order)
        forward = forward_fault(batch.values, numbers[:first], self.leaves)
        backward = backward_fault(batch.values, batch.order, numbers[first:second], self.leaves)
        if forward is not None:
            self.fault = self.fault or (forward, at)
            return
        used = parameter_fault(batch.names, numbers[second:])
        if backward is not None:
            self.pending = self.pending or (backward, at)
            self.without_step += 1
        if batch.stepped and used is not None:
            self.fault = self.fault or self.pending or (used, at)
        elif self.pending is not None and (self.stepless or self.without_step >= WITHOUT_STEP):
            self.fault = self.fault or self.pending
        elif batch.stepped:
            self.pending, self.without_step = None, 0

    def weights(self, layer: str) -> str:
        """Return, in words, whether the parameters of a layer are not finite themselves; reads them, once."""
        for name, parameter in self.parameters.items():
            if name.rpartition(".")[0] == layer and not bool(parameter.isfinite().all()):
                return f"; its parameter {name} is not finite"
        return ""

    def close(self) -> None:
        """Take the hooks out and end the thread."""
        self.batch = None
        self.hooks.remove()
        self.readout.close()
