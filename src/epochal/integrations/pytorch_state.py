"""Everything a plain loop was given that has a state: checked, captured and restored."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, cast

from epochal.checkpointing.capture import restore, state_of
from epochal.checkpointing.difference import describe_difference
from epochal.core.errors import ArgumentError, CheckpointError
from epochal.integrations.torch_optimizer import inner_optimizer


def as_list(one_or_more: Any) -> list[Any]:
    """Return a list of what was given: nothing, one object, or several.

    >>> as_list(None), as_list("a"), as_list(("a", "b"))
    ([], ['a'], ['a', 'b'])
    """
    if one_or_more is None:
        return []
    return list(cast("Sequence[Any]", one_or_more)) if isinstance(one_or_more, (list, tuple)) else [one_or_more]


class LoopState:
    """The stateful objects of a loop by the part of a checkpoint that holds them."""

    def __init__(
        self, model: Any, optimizer: Any, scheduler: Any, scaler: Any, ema: Any, state: Mapping[str, Any] | None
    ) -> None:
        self.model = model
        self.optimizers = [inner_optimizer(one) for one in as_list(optimizer)]
        self.singles = {
            f"{part}{index or ''}": thing
            for part, things in (("scheduler", scheduler), ("scaler", scaler), ("ema", ema))
            for index, thing in enumerate(as_list(things))
        }
        if state is not None and not isinstance(state, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(
                f"state={state!r} must map names to things with state_dict, as state={{'sampler': sampler}}"
            )
        self.named = dict(state or {})
        check(model, "model", "an nn.Module")
        for optimizer_ in self.optimizers:
            check(optimizer_, "optimizer", "a torch.optim.Optimizer")
            if not hasattr(optimizer_, "register_step_post_hook"):
                raise ArgumentError(f"optimizer={optimizer_!r} has no step hooks; give a torch.optim.Optimizer")
        for part, thing in self.singles.items():
            check(thing, part, f"a {part} with state_dict and load_state_dict")
        for name, thing in self.named.items():
            check(thing, f"state[{name!r}]", "something with state_dict and load_state_dict")

    def parts(self) -> dict[str, Any]:
        """Return the state of everything, by part."""
        parts: dict[str, Any] = {"model": state_of(self.model)}
        if self.optimizers:
            parts["optimizer"] = [{"class": type(one).__name__, **one.state_dict()} for one in self.optimizers]
        parts |= {part: state_of(thing) for part, thing in self.singles.items()}
        if self.named:
            parts["state"] = {name: state_of(thing) for name, thing in self.named.items()}
        return parts

    def restore(self, saved: Any) -> None:
        """Load a checkpoint into everything; CheckpointError, with nothing loaded, when it is another training's."""
        now = self.parts()
        lacking = sorted(set(now) - set(saved.parts))
        surplus = sorted(set(saved.parts) - set(now) - {"rng", "run", "callbacks", "data", "gradients"})
        if lacking or surplus:
            lines = [f"{part}: given to Loop, missing in the checkpoint" for part in lacking]
            lines += [f"{part}: in the checkpoint, not given to Loop" for part in surplus]
            raise different(saved, lines)
        trees = {part: saved.load(part) for part in now}
        lines: list[str] = []
        if found := describe_difference(trees["model"], now["model"]):
            lines.append(found)
        lines += self.optimizer_differences(trees.get("optimizer", []), now.get("optimizer", []))
        lines += [f"state: {name!r} differs" for name in set(trees.get("state", {})) ^ set(now.get("state", {}))]
        if lines:
            raise different(saved, lines)
        self.restore_unchecked(saved, self.flat(trees), copy.deepcopy(self.flat(now)))
        restore(self.model, trees["model"])
        for one, tree in zip(self.optimizers, trees.get("optimizer", []), strict=True):
            one.load_state_dict({key: value for key, value in tree.items() if key != "class"})

    def flat(self, parts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the states of schedulers, scalers, averages and what the user named, each by what messages call it."""
        named = {f"state[{name!r}]": tree for name, tree in parts.get("state", {}).items()}
        return {part: parts[part] for part in self.singles} | named

    def restore_unchecked(self, saved: Any, trees: Mapping[str, Any], before: Mapping[str, Any]) -> None:
        """Load what only its own ``load_state_dict`` can judge, first; if it refuses, put back what was there."""
        things = self.singles | {f"state[{name!r}]": thing for name, thing in self.named.items()}
        tried: list[str] = []
        for label, thing in things.items():
            tried.append(label)
            try:
                restore(thing, trees[label])
            except Exception as error:
                for earlier in tried:
                    restore(things[earlier], before[earlier])
                raise different(saved, [f"{label}: {error}"]) from error

    @staticmethod
    def optimizer_differences(saved: Sequence[Any], now: Sequence[Any]) -> list[str]:
        """Return a line for everything in which saved and current optimizers differ."""
        if len(saved) != len(now):
            return [f"optimizer: saved {len(saved)} of them, current {len(now)}"]
        found = [describe_difference(old, new) for old, new in zip(saved, now, strict=True)]
        return [one for one in found if one]


def check(thing: Any, what: str, wanted: str) -> None:
    """Raise ArgumentError unless the object has a state to save and to load."""
    if isinstance(thing, type):
        raise ArgumentError(f"{what} is the class {thing.__name__}; give an object, {thing.__name__}(...)")
    if not (hasattr(thing, "state_dict") and hasattr(thing, "load_state_dict")):
        raise ArgumentError(f"{what}={thing!r} cannot be saved and restored; give {wanted}")


def different(saved: Any, lines: Sequence[str]) -> CheckpointError:
    """Return the error for a checkpoint of another model or optimizer, naming what differs."""
    listed = "\n".join(lines).replace("\n", "\n  ")
    return CheckpointError(
        f"{saved.path} is the checkpoint of another training:\n  {listed}\n"
        "Nothing was loaded. Give Loop what it was saved with, or start without resume=."
    )
