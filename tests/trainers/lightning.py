"""The tiny training of the contract suite in Lightning: four batches of training, two of validation an epoch."""

import logging
import warnings

from epochal import attach

BATCHES, VAL_BATCHES, SAMPLES = 4, 2, 4


def quiet():
    """Let Lightning say nothing of what is meant to be tiny."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*(does not have many workers|LeafSpec|number of training batches).*")


def net():
    """Return a module with dropout, its weights the same each time."""
    import torch
    from lightning.pytorch import LightningModule

    class Net(LightningModule):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Dropout(0.2), torch.nn.Linear(3, 1))
            self.error, self.batches = None, 0

        def training_step(self, batch, batch_idx):
            self.batches += 1
            if self.error is not None and self.batches == 2:
                raise self.error
            loss = self.of(batch)
            self.log("train_size", loss.detach().abs() + 1)
            self.log("train_twice", 2 * loss.detach(), on_step=False, on_epoch=True)
            return loss

        def validation_step(self, batch, batch_idx):
            self.log("val_loss", self.of(batch))

        def of(self, batch):
            x, y = batch["a"] if isinstance(batch, dict) else batch
            return (self.layers(x) - y).square().mean()

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), lr=0.05)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.9)]

    torch.manual_seed(0)
    return Net()


def loaders(workers=0):
    """Return a shuffled loader of training data and one of validation data."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    x = torch.linspace(-1, 1, 2 * BATCHES * SAMPLES).reshape(-1, 2)
    data = TensorDataset(x, x.sum(1, keepdim=True))
    held_out = TensorDataset(*data[: VAL_BATCHES * SAMPLES])
    return DataLoader(data, SAMPLES, shuffle=True, num_workers=workers), DataLoader(held_out, SAMPLES)


def trainer(folder, epochs, **options):
    """Return a Trainer that writes nothing of its own."""
    from lightning.pytorch import Trainer

    usual = {
        "logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False,
        "accelerator": "cpu", "devices": 1,
    }  # fmt: skip
    return Trainer(**usual | {"max_epochs": epochs, "default_root_dir": folder} | options)


def make(folder):
    """Return a function that trains from the same start each time."""
    quiet()

    def train(callbacks, epochs, *, error=None, accumulation=1, validations=1, resume=False):
        module = net()
        module.error = error
        host = trainer(folder, epochs, accumulate_grad_batches=accumulation, val_check_interval=1 / validations)
        run = attach(host, *callbacks, dir=folder, name="lightning", resume=resume)
        host.fit(module, *loaders())
        return run

    return train
