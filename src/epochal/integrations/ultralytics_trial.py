"""A copy of a YOLO model trained for a while as its trainer would, without touching trainer, loader or data set."""

from collections.abc import Generator
from copy import copy, deepcopy
from itertools import islice
from types import SimpleNamespace
from typing import Any

from epochal.integrations.ultralytics_names import named_losses


class UltralyticsTrial:
    """Optimizer steps of a trainer's stand-in: its own methods, on a model that is a copy.

    A step takes as many batches as the trainer accumulates. The batches come from a loader like the trainer's over a
    twin of its data set, whose mosaic buffer and caches are its own.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.methods = type(trainer)  # on the trainer itself they are wrapped, to show what it does
        self.stand_in: Any = None

    def batches(self) -> Generator[list[Any], None, None]:
        """Yield the batches of one step after the other; the last, shorter group is left out unless it is the only."""
        from torch.utils.data import DataLoader, RandomSampler

        trainer, loader = self.trainer, self.trainer.train_loader
        likewise = DataLoader(
            twin_of(loader.dataset),
            batch_size=loader.batch_size,
            shuffle=isinstance(loader.sampler, RandomSampler),
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            worker_init_fn=loader.worker_init_fn,
            drop_last=loader.drop_last,
        )
        if trainer.args.close_mosaic and trainer.start_epoch >= trainer.epochs - trainer.args.close_mosaic:
            self.methods._close_dataloader_mosaic(SimpleNamespace(train_loader=likewise, args=trainer.args))
        batches, first = iter(likewise), True
        while group := list(islice(batches, trainer.accumulate)):
            if first or len(group) == trainer.accumulate:
                yield group
            first = False

    def step(self, model: Any, optimizer: Any, batch: list[Any]) -> Any:
        """Do one optimizer step as the trainer does: AMP, clipping, weights frozen as there; return the mean loss."""
        from ultralytics.utils.torch_utils import autocast

        if self.stand_in is None or self.stand_in.model is not model:
            self.stand_in = self.made(model, optimizer)
        stand_in, trainer, losses = self.stand_in, self.methods, list[Any]()
        trainer._model_train(stand_in)
        precision = autocast_of(stand_in)
        for one in batch:
            with autocast(precision, device=stand_in.device.type):
                loss, items = model(trainer.preprocess_batch(stand_in, one))
            stand_in.scaler.scale(loss.sum()).backward()
            losses.append(named_losses(items)["train/loss"])
        trainer.optimizer_step(stand_in)
        return sum(losses) / len(losses)

    def made(self, model: Any, optimizer: Any) -> Any:
        """Return the stand-in: the trainer with another model, optimizer and scaler, and no average to update."""
        stand_in = copy(self.trainer)
        stand_in.model, stand_in.optimizer, stand_in.ema = model, optimizer, None
        stand_in.scaler = deepcopy(self.trainer.scaler)
        optimizer.zero_grad()
        return stand_in


def autocast_of(trainer: Any) -> Any:
    """Return what the trainer gives to autocast: a precision, or whether there is any."""
    import torch

    return torch.bfloat16 if trainer.args.amp == "bf16" else trainer.amp


def twin_of(dataset: Any) -> Any:
    """Return a data set that reads the same files and changes nothing in this one; images in memory are shared."""
    twin = copy(dataset)
    for name, value in vars(dataset).items():
        if name == "datasets":  # of several joined to one
            twin.datasets = [twin_of(one) for one in value]
        elif isinstance(value, (list, dict)):
            setattr(twin, name, copy(value))
    if hasattr(dataset, "transforms"):  # mosaic and mix-up draw from the data set they hold
        twin.transforms = deepcopy(dataset.transforms, {id(dataset): twin})
    return twin
