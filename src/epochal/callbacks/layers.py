"""A user's own functions inside the model: on the activations and gradients of layers that are chosen by name."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from epochal.core.callback import Callback
from epochal.core.errors import ArgumentError
from epochal.hooks.model_hooks import ModelHooks, tensors_in
from epochal.hooks.select import Which, select

if TYPE_CHECKING:
    from epochal.core.run import Run


class Layer(NamedTuple):
    """One layer as a function sees it: its name in the model, the module itself, and the run."""

    name: str
    module: Any
    run: "Run"


Look = Callable[[Layer, Any], Any]


class Layers(Callback):
    """Call functions on the activations and gradients of the layers whose names match, in training batches.

    >>> import torch
    >>> from epochal import Loop
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
    >>> def show(layer, output):
    ...     print(layer.name, tuple(output.shape))
    >>> with Loop(model=net, callbacks=[Layers("*", forward=show)]) as run:
    ...     for epoch in run.epochs(1):
    ...         for x in run.batches([torch.ones(4, 2)]):
    ...             _ = net(x)
    0 (4, 3)
    1 (4, 3)

    which
        A pattern of names, in which ``*`` stands for any characters, dots included; a class of modules; or several of
        them. A pattern that matches nothing is an ``ArgumentError`` that names the nearest layers.
    forward
        ``forward(layer, output)`` after each forward of a layer, with what the layer returned; what it returns, unless
        None, takes the output's place, for the rest of the model too.
    backward
        ``backward(layer, gradient)`` with the gradient of the loss by the layer's output (by each tensor of it); what
        it returns, unless None, takes the gradient's place, for the layer's parameters and everything before it. With
        AMP's scaler it is still scaled.
    every
        n: in the batches of the n-th, 2n-th ... optimizer step only.

    The functions are called on the training thread, inside the model's forward and backward; an error in them ends the
    training, with a note. Hooks are set when the training starts and gone when it ends, however it ends. Layers inside
    a model that ``torch.compile`` has taken over are refused: ``CapabilityError``.
    """

    def __init__(
        self,
        which: Which,
        *,
        forward: Look | None = None,
        backward: Look | None = None,
        every: int = 1,
        name: str | None = None,
    ) -> None:
        if forward is None and backward is None:
            raise ArgumentError("Layers: give a function, forward=look or backward=look; else there is nothing to do")
        for option, function in (("forward", forward), ("backward", backward)):
            if function is not None and not callable(function):  # pyright: ignore[reportUnnecessaryComparison]
                raise ArgumentError(f"Layers: {option} must be a function of a layer and a tensor, not {function!r}")
        self.which, self.forward, self.backward, self.every = which, forward, backward, check_every(every, "Layers")
        self.hooks: ModelHooks | None = None
        self.due = False
        if name is not None:
            self.name = name

    def __repr__(self) -> str:
        return f"Layers({self.which!r})"

    def __getstate__(self) -> dict[str, Any]:
        """Leave the hooks of a running training out: an object that is copied or pickled is an idle one."""
        return {**self.__dict__, "hooks": None, "due": False}

    def on_train_start(self, run: "Run") -> None:
        """Find the layers and set the hooks."""
        owner = run.label(self)
        hooks = self.hooks = ModelHooks(run.model, select(run.model, self.which, owner), owner)
        for name, module in hooks.layers.items():
            hooks.after_forward(module, partial(self.forwarded, Layer(name, module, run)))

    def on_train_batch_start(self, run: "Run") -> None:
        """Look in the batches of every n-th step."""
        self.due = (run.step + 1) % self.every == 0

    def on_train_batch_end(self, run: "Run") -> None:
        """Look no further; a validation may follow."""
        if self.due and self.hooks is not None:
            self.hooks.check_called()
        self.due = False

    def on_train_epoch_abort(self, run: "Run") -> None:
        """Look no further: the batch ended without a word."""
        self.due = False

    def teardown(self, run: "Run") -> None:
        """Take the hooks out."""
        hooks, self.hooks, self.due = self.hooks, None, False
        if hooks is not None:
            hooks.remove()

    def forwarded(self, layer: Layer, _module: Any, _args: Any, output: Any) -> Any:
        """Show a layer's output, and its gradient when that comes."""
        if not self.due or self.hooks is None:
            return None
        self.hooks.called = True
        new = None
        if self.forward is not None:
            new = self.told(self.forward, layer, output, "forward")
            output = output if new is None else new
        if self.backward is not None:
            for tensor in tensors_in(output):
                if tensor.requires_grad:
                    tensor.register_hook(partial(self.backwarded, layer))
        return new

    def backwarded(self, layer: Layer, gradient: Any) -> Any:
        """Show the gradient by a layer's output."""
        return None if self.backward is None else self.told(self.backward, layer, gradient, "backward")

    def told(self, function: Look, layer: Layer, value: Any, direction: str) -> Any:
        """Call a function; its error says where it was called."""
        try:
            return function(layer, value)
        except BaseException as error:
            error.add_note(f"raised by {self.name} in the {direction} of layer {layer.name!r}")
            raise


def check_every(every: int, owner: str) -> int:
    """Return ``every`` if it is a number of steps, else raise ArgumentError.

    >>> check_every(0, "Layers")
    Traceback (most recent call last):
    epochal.core.errors.ArgumentError: Layers: every must be an int >= 1, a number of optimizer steps, not 0
    """
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ArgumentError(f"{owner}: every must be an int >= 1, a number of optimizer steps, not {every!r}")
    return every
