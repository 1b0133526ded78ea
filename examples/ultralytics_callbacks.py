"""Ultralytics' usual callback example with one added line, `attach`; beside it the same function on the run.

At `on_train_epoch_end` this epoch has not been validated yet, so the fitness read there is one epoch old (none in the
first). Ultralytics prints it without a word; the run warns once and names the event that has it fresh.
"""

from ultralytics import YOLO

from epochal import attach


def on_train_epoch_end(trainer):
    """Ultralytics' own: it is given Ultralytics' trainer, and goes on working."""
    print(f"Epoch {trainer.epoch + 1} of the trainer. Current fitness: {trainer.fitness}")


def report(run):
    """Ours: the same function for every trainer."""
    print(f"Epoch {run.epoch + 1} complete. Current fitness: {run.fitness}")


if __name__ == "__main__":
    model = YOLO("yolo26n.pt")
    model.add_callback("on_train_epoch_end", on_train_epoch_end)

    run = attach(model)
    run.add_callback("on_train_epoch_end", report)  # too early: warns once
    run.add_callback("on_fit_epoch_end", report)  # the right number, every epoch

    model.train(data="coco8.yaml", epochs=3)
