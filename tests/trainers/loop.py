"""A tiny training in a plain loop: shuffled data, dropout, a schedule of learning rates."""

from pathlib import Path

from epochal import Loop


def make(directory: Path):
    """Return what trains it, its runs below a directory."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    x = torch.randn(12, 2, generator=torch.Generator().manual_seed(1))
    y = x.sum(1, keepdim=True)

    def train(callbacks, epochs, *, error=None, accumulation=1, validations=1, resume=False):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Dropout(0.25), torch.nn.Linear(8, 1))
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
        loader = DataLoader(TensorDataset(x[:8], y[:8]), batch_size=2, shuffle=True)
        held_out = DataLoader(TensorDataset(x[8:], y[8:]), batch_size=2)

        def validate(run):
            net.eval()
            with run.validation():
                evaluate(run)
            net.train()

        @torch.no_grad()
        def evaluate(run):
            net.eval()
            losses = [(net(a) - b).square().mean() for a, b in run.batches(held_out)]
            run.log({"val/loss": torch.stack(losses).mean()})

        options = {"dir": directory, "name": "loop", "resume": resume}
        with Loop(model=net, optimizer=optimizer, scheduler=scheduler, callbacks=callbacks, **options) as run:
            run.validator(evaluate)
            for _ in run.epochs(epochs):
                for index, (a, b) in enumerate(run.batches(loader)):
                    loss = (net(a) - b).square().mean()
                    if error is not None and index == 1:
                        raise error
                    (loss / accumulation).backward()
                    run.log({"train/loss": loss})
                    if (index + 1) % accumulation == 0:
                        optimizer.step()
                        optimizer.zero_grad()
                    if validations == 2 and index == 1:
                        validate(run)
                scheduler.step()
                validate(run)
        return run

    return train
