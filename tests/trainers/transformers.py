"""The tiny training of the contract suite in a Hugging Face Trainer: four batches, and two of validation, an epoch."""

import gc
import logging
import os
from contextlib import contextmanager

from epochal import attach

BATCHES, VAL_BATCHES, SAMPLES = 4, 2, 4


def quiet():
    """Let Transformers say nothing of what is meant to be tiny."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    for name in ("transformers", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def preloaded(folder):
    """Have everything imported, and let no collection of garbage look at it: Accelerate asks for one each training."""
    import torch

    quiet()
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # a child that is forked has none of its parent's other threads
    trainer(folder, num_train_epochs=1).train()
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        torch.set_num_threads(before)


def net():
    """Return a module with dropout, its weights the same each time."""
    import torch

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 1))
            self.error, self.batches = None, 0

        def forward(self, x, labels=None):
            self.batches += self.training
            if self.error is not None and self.batches == 2:
                raise self.error
            logits = self.layers(x)
            return {"loss": (logits - labels).square().mean(), "logits": logits}

    torch.manual_seed(0)
    return Net()


def data(batches, *, first=0):
    """Return samples for so many batches, as a list of mappings."""
    import torch

    x = torch.linspace(-1, 1, 2 * (first + batches) * SAMPLES).reshape(-1, 2)[first * SAMPLES :]
    return [{"x": one, "labels": one.sum(0, keepdim=True)} for one in x]


def arguments(folder, **options):
    """Return TrainingArguments of a training that writes nothing of its own."""
    from transformers import TrainingArguments

    usual = {
        "output_dir": str(folder / "native"), "per_device_train_batch_size": SAMPLES, "per_device_eval_batch_size": SAMPLES,
        "report_to": "none", "use_cpu": True, "disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no",
        "learning_rate": 0.05, "lr_scheduler_type": "cosine", "eval_strategy": "epoch", "dataloader_pin_memory": False,
    }  # fmt: skip
    return TrainingArguments(**usual | options)


def trainer(folder, *, model=None, train=None, held_out=None, callbacks=(), kind=None, more=None, **options):
    """Return a Trainer of the tiny net on the tiny data."""
    from transformers import PrinterCallback, Trainer

    host = (kind or Trainer)(
        model=model or net(),
        args=arguments(folder, **options),
        train_dataset=data(BATCHES) if train is None else train,
        eval_dataset=data(VAL_BATCHES, first=1) if held_out is None else held_out,
        callbacks=list(callbacks),
        **(more or {}),
    )
    host.remove_callback(PrinterCallback)
    return host


def make(folder):
    """Return a function that trains from the same start each time."""
    quiet()

    def train(callbacks, epochs, *, error=None, accumulation=1, validations=1, resume=False):
        options = {"num_train_epochs": epochs, "gradient_accumulation_steps": accumulation}
        if validations > 1:
            options |= {"eval_strategy": "steps", "eval_steps": BATCHES // accumulation // validations}
        model = net()
        model.error = error
        host = trainer(folder, model=model, **options)
        run = attach(host, *callbacks, dir=folder, name="transformers", resume=resume)
        host.train()
        return run

    return train
