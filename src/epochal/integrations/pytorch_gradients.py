"""Gradients that no step has used yet: which they are, saved and put back."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any


class Gradients:
    """The gradients that wait in a loop's parameters for a step.

    What an optimizer used in the batch that ended last is dropped before the next backward, and not saved, unless
    gradients came after the step. Those of parameters that no optimizer holds are saved too.

    >>> import torch
    >>> net = torch.nn.Linear(1, 1, bias=False)
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    >>> gradients = Gradients(net, [optimizer], batches=lambda: 0)
    >>> net(torch.ones(1)).sum().backward()
    >>> gradients.state_dict()
    {'0': {'0': tensor([[1.]])}}
    >>> gradients.stepped(optimizer)
    >>> gradients.state_dict()
    {}
    >>> net(torch.ones(1)).sum().backward()
    >>> gradients.state_dict()
    {'0': {'0': tensor([[2.]])}}

    ``batches`` tells how many batches are done.
    """

    def __init__(self, model: Any, optimizers: Sequence[Any], batches: Callable[[], int]) -> None:
        self.model, self.optimizers, self.batches = model, optimizers, batches
        self.used: dict[int, tuple[int, list[Mark]]] = {}  # optimizer -> when it stepped, and what it used
        self.loaded: list[tuple[Any, Any, int]] | None = None  # parameters, their gradients when loaded, and versions
        self.handles: list[Any] = []

    def watch(self) -> None:
        """Note every step."""
        for one in self.optimizers:
            self.handles.append(one.register_step_post_hook(self.stepped))

    def remove(self) -> None:
        """Leave the optimizers as they were."""
        while self.handles:
            self.handles.pop().remove()

    def stepped(self, optimizer: Any, *_: Any) -> None:
        """The gradients of an optimizer have been used."""
        self.forget()
        known = {id(one.group): one.watched for one in self.used.get(id(optimizer), (0, []))[1]}
        marks = [Mark(group, known.get(id(group))) for group in optimizer.param_groups]
        self.used[id(optimizer)] = self.batches(), marks

    def is_used(self, optimizer: Any) -> bool:
        """Say whether an optimizer has used its gradients, and nothing was added since."""
        batches, marks = self.used.get(id(optimizer), (-2, []))
        return batches >= self.batches() - 1 and all(one.holds() for one in marks)

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
        used = {str(number) for number, one in enumerate(self.optimizers) if self.is_used(one)}
        states: dict[str, dict[str, Any]] = {}
        for owner, name, parameter in self.parameters():
            if owner not in used and parameter.grad is not None:
                states.setdefault(owner, {})[name] = packed(parameter.grad.detach())
        return states

    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Put gradients back; where none is saved there is none."""
        self.used.clear()
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


class Mark:
    """What one group's gradients are now: one of them is watched, and kept so that no other takes its place unseen.

    The smallest, since to look at all of them at every step would take too long.
    """

    def __init__(self, group: Mapping[str, Any], known: Any = None) -> None:
        self.group, self.watched = group, known
        if known is None or known.grad is None:
            having = [one for one in group["params"] if one.grad is not None]
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
