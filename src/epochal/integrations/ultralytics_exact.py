"""What makes the resume of a YOLO training exact: all of its state, seen, saved and put back."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from epochal.checkpointing.capture import restore, restore_random_state, unwrapped
from epochal.checkpointing.versions import versions
from epochal.core.log import log
from epochal.integrations.ultralytics_order import Order
from epochal.integrations.ultralytics_state import plain
from epochal.integrations.ultralytics_steps import LastStep

EXACT = "weights, their average, optimizer, gradients, learning rates, random generators, callbacks"


class ExactState:
    """The state of one trainer, also what it does not show: the order of its data, its last step.

    ``given``: the arguments of ``train()``, as they were written.
    """

    def __init__(self, trainer: Any, given: Mapping[str, Any]) -> None:
        self.trainer, self.given = trainer, plain(given)
        self.steps = LastStep(trainer)
        self.order: Order | None = None
        self.waiting: Any = None  # the checkpoint whose moment the next epoch goes on from
        self.resumed = True  # no resume is left to be told of

    def epoch_start(self, left_out: Collection[int] = ()) -> None:
        """An epoch begins: its loader is followed, and a training that goes on stands where it was.

        ``left_out``: batches of this epoch that are not trained on.
        """
        loader = self.trainer.train_loader
        if (self.order is None or self.order.loader is not loader) and Order.fits(loader):
            self.remove()
            self.order = Order(loader)
        if self.waiting is not None:
            saved, self.waiting = self.waiting, None
            missing = self.restore_moment(saved, left_out)
            if not self.resumed:
                self.resumed = True
                self.go_on_counting(saved.load("trainer"))
                report([*missing, *self.elsewhere(saved)])

    def resume(self, saved: Any) -> None:
        """Go on from a checkpoint of another process."""
        self.restore_objects(saved)
        self.waiting, self.resumed = saved, False

    def go_on_counting(self, facts: Mapping[str, Any]) -> None:
        """Count epochs and time from where the training began."""
        self.trainer.start_epoch = facts["start_epoch"]
        self.trainer.train_time_start -= facts["seconds"]

    def elsewhere(self, saved: Any) -> list[str]:
        """Return in what this machine differs from the one that the training comes from."""
        then, now = saved.load("trainer")["args"]["device"], plain(self.trainer.args.device)
        found = [f"arithmetic: the device was {then!r} and is {now!r}"] if then != now else []
        before, here = saved.manifest.versions, versions()
        names = [name for name in ("torch", "ultralytics") if before.get(name) != here.get(name)]
        return found + [f"arithmetic: {name} was {before.get(name)} and is {here.get(name)}" for name in names]

    def remove(self) -> None:
        """Leave the loader as it was."""
        if self.order is not None:
            self.order.remove()

    def loader_state(self) -> dict[str, Any]:
        """Return the order of the data, and the images that mosaics are made from, by their numbers."""
        trainer = self.trainer
        found: dict[str, Any] = {"buffers": [list(one.buffer) for one in buffered(trainer.train_loader.dataset)]}
        if self.order is not None and self.order.loader is trainer.train_loader:
            found["order"] = self.order.state()
        generator = getattr(trainer.test_loader, "generator", None)
        if generator is not None:
            found["val_generator"] = generator.get_state()
        return found

    # -- putting it back ------------------------------------------------------------------------------------------

    def restore_objects(self, saved: Any) -> None:
        """Give model, average, optimizer and the trainer's own records the state of a checkpoint."""
        trainer, facts = self.trainer, saved.load("trainer")
        model = unwrapped(trainer.model)
        restore(model, saved.load("live"))
        trainer.ema.ema.load_state_dict(saved.load("model"))
        trainer.ema.updates = facts["ema_updates"]
        restore_optimizer(trainer.optimizer, saved.load("optimizer"))
        if scale := saved.load("scaler"):  # there is none without AMP
            trainer.scaler.load_state_dict(scale)
        trainer.scheduler.load_state_dict(facts["scheduler"])
        vars(trainer.stopper).update(facts["stopper"])
        for name in ("fitness", "best_fitness", "nan_recovery_attempts", "metrics"):
            setattr(trainer, name, facts[name])
        trainer.loss_names = tuple(facts["loss_names"])
        restore_criterion(trainer, facts)

    def restore_moment(self, saved: Any, left_out: Collection[int]) -> list[str]:
        """Put back what the loop's own beginning undoes, the random generators last; return what is not exact."""
        trainer, facts = self.trainer, saved.load("trainer")
        held = saved.load("gradients") if "gradients" in saved.parts else {}
        for name, parameter in unwrapped(trainer.model).named_parameters():
            parameter.grad = like(parameter, held[name]) if name in held else None
        trainer.accumulate = facts["accumulate"]  # not before: the loop takes it for the end of the warm-up
        self.steps.resume(facts["last_opt_step"])
        missing = self.restore_loader(saved.load("loader"), facts, left_out)
        restore_random_state(saved.load("rng"))
        return missing

    def restore_loader(
        self, state: Mapping[str, Any], facts: Mapping[str, Any], left_out: Collection[int]
    ) -> list[str]:
        """Go on with the data where it was; return what of it cannot be as it was."""
        trainer, loader = self.trainer, self.trainer.train_loader
        if len(loader.dataset) != facts["images"]:
            return [f"the data: {facts['images']} training images then, {len(loader.dataset)} now"]
        missing: list[str] = []
        if self.order is not None and "order" in state:
            closing = trainer.epoch == trainer.epochs - trainer.args.close_mosaic
            self.order.set(state["order"], afresh=bool(trainer.args.close_mosaic) and closing, left_out=left_out)
        elif "order" in state or getattr(loader, "generator", None) is not None:
            missing.append("the order of the data: this loader does not show it")
            if left_out:
                log().warning("the batches to leave out are trained on again: this loader does not show its order.")
        if "val_generator" in state:
            trainer.test_loader.generator.set_state(state["val_generator"])
        if loader.num_workers:
            missing.append(
                f"augmentation in {loader.num_workers} workers: their random generators and the images that mosaics"
                " are made from begin anew"
            )
        else:
            for one, buffer in zip(buffered(loader.dataset), state["buffers"], strict=True):
                refill(one, buffer)
        return missing


def restore_criterion(trainer: Any, facts: Mapping[str, Any]) -> None:
    """Give the loss the weights of its parts, which change from epoch to epoch in some models."""
    model, updates = unwrapped(trainer.model), facts["criterion_updates"]
    if updates is not None:
        if getattr(model, "criterion", None) is None:
            model.criterion = model.init_criterion()
        model.criterion.updates = updates - 1
        model.criterion.update()


def buffered(dataset: Any) -> Iterator[Any]:
    """Yield the data sets that keep images for mosaics, of one or of several joined to one."""
    for one in getattr(dataset, "datasets", None) or [dataset]:
        if isinstance(getattr(one, "buffer", None), list):
            yield one


def refill(dataset: Any, buffer: list[int]) -> None:
    """Let a data set hold these images for mosaics, and no others."""
    for index in [*dataset.buffer, *buffer]:
        dataset.ims[index] = dataset.im_hw0[index] = dataset.im_hw[index] = None
    dataset.buffer = []
    for index in buffer:
        dataset.load_image(index)
    dataset.buffer = list(buffer)


def restore_optimizer(optimizer: Any, state: Mapping[str, Any]) -> None:
    """Load an optimizer's state; which kernel it uses the device decides, and a tensor lies as its parameter does."""
    for saved, group in zip(state["param_groups"], optimizer.param_groups, strict=True):
        if "fused" in saved:
            saved["fused"] = group.get("fused")
    optimizer.load_state_dict(state)
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if getattr(value, "shape", None) == parameter.shape and not parameter.is_contiguous():
                values[name] = like(parameter, value)


def like(parameter: Any, value: Any) -> Any:
    """Return a copy of a tensor where its parameter is, laid out in memory as the parameter is."""
    import torch

    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def report(missing: list[str]) -> None:
    """Say what of the resumed training is exact, and what is not."""
    if missing:
        log().warning("resume: exact: %s; not exact: %s.", EXACT, "; ".join(missing))
    else:
        log().info("resume: exact: %s, order of the data.", EXACT)
