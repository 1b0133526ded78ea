"""What YOLO predicted for a validation batch, in our terms."""

from collections.abc import Mapping
from typing import Any

from epochal.core.host import Frame, Prediction, Predictions

BOXES, CLASSES = ("detect", "segment", "pose"), ("classify",)


class ValidationBatch:
    """Keeps a validator's batch and predictions until the batch ends, and translates them for those who ask."""

    def __init__(self, validator: Any) -> None:
        self.validator = validator
        self.batch: Mapping[str, Any] | None = None
        self.predicted: Any = None

    def clear(self) -> None:
        """Let go of the batch."""
        self.batch = self.predicted = None

    def predictions(
        self, *, min_score: float = 0.0, first: int | None = None, pixels: bool = False
    ) -> Predictions | None:
        """Return what was predicted, as ``Predictor`` says."""
        task = self.validator.args.task
        if self.batch is None or self.predicted is None or task not in BOXES + CLASSES:
            return None
        translate = self.classified if task in CLASSES else self.detected
        count = len(self.predicted) if first is None or task in CLASSES else min(first, len(self.predicted))
        images = [translate(index, self.batch, min_score, pixels) for index in range(count)]
        return Predictions(images, {int(index): str(name) for index, name in self.validator.names.items()})

    def detected(self, index: int, batch: Mapping[str, Any], min_score: float, pixels: bool) -> Prediction:
        """Translate the boxes and masks of one image."""
        found = self.predicted[index]
        kept = found["conf"] >= min_score
        kept &= found["conf"] > 0  # a model without a box of its own fills up with nothing
        truth = self.validator._prepare_batch(index, batch)
        return Prediction(
            classes=whole(found["cls"][kept]),
            scores=host(found["conf"][kept]),
            boxes=host(found["bboxes"][kept]),
            masks=booleans(found["masks"][kept]) if "masks" in found else None,
            image=rgb(batch["img"][index]) if pixels else None,
            source=str(truth["im_file"]),
            frame=frame_of(truth),
            truth=Prediction(
                classes=whole(truth["cls"]),
                scores=host(truth["cls"]) * 0 + 1,
                boxes=host(truth["bboxes"]),
                masks=booleans(truth["masks"]) if "masks" in truth else None,
            ),
        )

    def classified(self, index: int, batch: Mapping[str, Any], min_score: float, pixels: bool) -> Prediction:
        """Translate the class scores of one image, the likeliest first."""
        scores, classes = self.predicted[index].sort(descending=True)
        return Prediction(
            classes=whole(classes),
            scores=host(scores),
            image=rgb(batch["img"][index]) if pixels else None,
            truth=Prediction(classes=whole(batch["cls"][index : index + 1]), scores=None),
        )


def frame_of(prepared: Mapping[str, Any]) -> Frame:
    """Return how the image of a file lies in what the model sees."""
    (scale_y, scale_x), (left, top) = prepared["ratio_pad"]
    height, width = prepared["ori_shape"]
    seen = (int(prepared["imgsz"][0]), int(prepared["imgsz"][1]))
    return Frame(int(height), int(width), seen, float(scale_x), float(scale_y), float(left), float(top))


def host(tensor: Any) -> Any:
    """Return a tensor's numbers as float32 on the host."""
    return tensor.detach().float().cpu().numpy()


def whole(tensor: Any) -> Any:
    """Return a tensor's numbers as whole numbers on the host."""
    return tensor.detach().long().cpu().numpy()


def booleans(masks: Any) -> Any:
    """Return masks, 0 or 1, as booleans on the host."""
    return (masks > 0.5).cpu().numpy()


def rgb(image: Any) -> Any:
    """Return the pixels of an image tensor, channels first and 0 to 1, as RGB; one channel becomes grey."""
    import torch

    pixels = (image.detach().float() * 255 + 0.5).clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return pixels[:, :, :3].copy() if pixels.shape[2] >= 3 else pixels[:, :, :1].repeat(3, axis=2)
