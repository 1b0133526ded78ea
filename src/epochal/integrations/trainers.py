"""The trainers that Epochal joins: their packages, the extra that brings them, how callbacks come in."""

from typing import NamedTuple


class TrainerKind(NamedTuple):
    """One trainer: its name, the packages whose versions matter, Epochal's extra, and how it is used."""

    title: str
    packages: tuple[str, ...]
    extra: str
    use: str


TRAINERS: dict[str, TrainerKind] = {  # the integration's name -> its trainer
    "pytorch": TrainerKind("PyTorch, your own loop", ("torch",), "pytorch", "Loop(model=..., callbacks=[...])"),
    "ultralytics": TrainerKind("Ultralytics YOLO", ("ultralytics",), "yolo", "attach(YOLO(...), ...)"),
    "keras": TrainerKind("Keras 3", ("keras", "tensorflow"), "keras", "attach(model, ...)"),
    "lightning": TrainerKind("Lightning", ("lightning",), "lightning", "attach(Trainer(...), ...)"),
    "transformers": TrainerKind(
        "Hugging Face Trainer", ("transformers", "accelerate"), "transformers", "attach(Trainer(...), ...)"
    ),
}
