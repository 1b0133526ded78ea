"""Gradients that no step has used yet: which they are, saved and put back."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from epochal.core.engine import Engine


class Gradients:
    """The gradients that wait in a loop's parameters for a step.

    What an optimizer used in the batch that ended last is dropped before the next backward, and not saved, unless
    gradients came after the step. Those of parameters that no optimizer holds are saved too.

    >>> import torch
    >>> from epochal import Loop
    >>> net = torch.nn.Linear(1, 1, bias=False)
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    >>> gradients = Gradients(net, [optimizer], Loop(model=net).run.engine)
    >>> gradients.watch()
    >>> net(torch.ones(1)).sum().backward()
    >>> gradients.state_dict()
    {'0': {'0': tensor([[1.]])}}
    >>> optimizer.step()
    >>> gradients.state_dict()
    {}
    >>> net(torch.ones(1)).sum().backward()
    >>> gradients.state_dict()
    {'0': {'0': tensor([[2.]])}}
    """

    def __init__(self, model: Any, optimizers: Sequence[Any], engine: "Engine") -> None:
        self.model, self.optimizers = model, optimizers
        self.uses = [Use(one, engine, self) for one in optimizers]
        self.loaded: list[tuple[Any, Any, int]] | None = None  # parameters, their gradients when loaded, and versions
        self.handles: list[Any] = []

    def watch(self) -> None:
        """Note every step."""
        for use in self.uses:
            self.handles.append(use.optimizer.register_step_post_hook(use.stepped))

    def remove(self) -> None:
        """Leave the optimizers as they were."""
        while self.handles:
            self.handles.pop().remove()

    def parameters(self) -> Iterator[tuple[str, str, Any]]:
        """Yield all parameters, each once: the number of its optimizer or "model", its number or name, itself."""
        seen: set[int] = set()
        for number, optimizer in enumerate(self.optimizers):
            held = [one for group in optimizer.param_groups for one in group["params"]]
            for index, parameter in enumerate(held):
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield str(number), str(index), parameter
        for name, parameter in self.model.named_parameters() if hasattr(self.model, "named_parameters") else ():
            if id(parameter) not in seen:
                yield "model", name.replace("_orig_mod.", ""), parameter

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Return the gradients that wait."""
        used = {str(number) for number, use in enumerate(self.uses) if use.lasts()}
        states: dict[str, dict[str, Any]] = {}
        for owner, name, parameter in self.parameters():
            if owner not in used and parameter.grad is not None:
                states.setdefault(owner, {})[name] = packed(parameter.grad.detach())
        return states

    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Put gradients back; where none is saved there is none."""
        for use in self.uses:
            use.forget()
        for owner, name, parameter in self.parameters():
            saved = state.get(owner, {}).get(name)
            parameter.grad = None if saved is None else unpacked(saved).to(parameter.device)
        self.loaded = [(one, one.grad, version_of(one.grad)) for _, _, one in self.parameters()]

    def are_loaded(self) -> bool:
        """Say whether all are as they were loaded; nobody must find others in their place who knows them already."""
        return self.loaded is not None and all(
            one.grad is grad and version_of(grad) == version for one, grad, version in self.loaded
        )

    def forget(self) -> None:
        """Hold what was loaded no longer."""
        self.loaded = None


class Use:
    """What an optimizer used when it stepped last, and how many batches were done then."""

    def __init__(self, optimizer: Any, engine: "Engine", gradients: Gradients) -> None:
        self.optimizer, self.engine, self.gradients = optimizer, engine, gradients
        self.forget()

    def forget(self) -> None:
        """Know of no step."""
        self.groups: Any = None
        self.marks: list[Mark] = []
        self.batches = -2

    def stepped(self, *_: Any) -> None:
        """The optimizer has stepped; in every batch, so nothing is called that need not be."""
        self.batches = self.engine.batches
        self.gradients.loaded = None
        groups = self.optimizer.param_groups
        if groups is not self.groups or len(groups) != len(self.marks):
            self.groups, self.marks = groups, [Mark(group) for group in groups]
        for mark in self.marks:
            watched = mark.watched
            if watched is None or (gradient := watched.grad) is None:
                mark.find()
            else:
                mark.gradient, mark.version = gradient, gradient._version

    def lasts(self) -> bool:
        """Say whether it was in this batch or the one that ended last, and no gradient was added since."""
        return self.batches >= self.engine.batches - 1 and all(one.holds() for one in self.marks)


class Mark:
    """What one group's gradients are now: one of them is watched, and kept so that no other takes its place unseen.

    The smallest, since to look at all of them at every step would take too long.
    """

    __slots__ = ("gradient", "group", "version", "watched")

    def __init__(self, group: Mapping[str, Any]) -> None:
        self.group = group
        self.watched: Any = None
        self.gradient: Any = None
        self.version = 0

    def find(self) -> None:
        """Watch one that has a gradient."""
        having = [one for one in self.group["params"] if one.grad is not None]
        self.watched = min(having, key=lambda one: one.numel()) if having else None
        self.gradient = None if self.watched is None else self.watched.grad
        self.version = version_of(self.gradient)

    def holds(self) -> bool:
        """Say whether no gradient was added since."""
        if self.watched is None:
            return all(one.grad is None for one in self.group["params"])
        gradient = self.watched.grad
        return gradient is None or (gradient is self.gradient and gradient._version == self.version)


def version_of(gradient: Any) -> int:
    """Return how often a gradient was written; 0 for none."""
    return 0 if gradient is None else gradient._version


def packed(gradient: Any) -> Any:
    """Return a gradient as tensors that can be written; a sparse one is its indices and values."""
    if not gradient.is_sparse:
        return gradient
    return {
        "indices": gradient._indices(),
        "values": gradient._values(),
        "shape": list(gradient.shape),
        "coalesced": gradient.is_coalesced(),
    }


def unpacked(saved: Any) -> Any:
    """Return the gradient that ``packed`` gave.

    >>> import torch
    >>> sparse = torch.sparse_coo_tensor([[0, 0]], [1.0, 2.0], (2,), check_invariants=False)
    >>> unpacked(packed(sparse)).to_dense()
    tensor([3., 0.])
    """
    if not isinstance(saved, Mapping):
        return saved
    import torch

    indices, values, shape = saved["indices"], saved["values"], tuple(saved["shape"])
    return torch.sparse_coo_tensor(indices, values, shape, is_coalesced=saved["coalesced"], check_invariants=False)
