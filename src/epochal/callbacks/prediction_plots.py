"""Pictures of what a model predicts: boxes and masks beside the truth, or a confusion matrix."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, final

from epochal.callbacks.boxes_view import Boxes
from epochal.callbacks.confusion_view import Confusion
from epochal.callbacks.figure import check_drawing, write_png
from epochal.callbacks.marks import marks
from epochal.callbacks.of_validation import OfValidation, Read
from epochal.callbacks.read_predictions import predictions_of
from epochal.conditions.arguments import check_amount, check_count
from epochal.core.errors import ArgumentError

if TYPE_CHECKING:
    from epochal.conditions.base import Condition
    from epochal.core.run import Run


@final
class PredictionPlots(OfValidation):
    """Draw what the model predicts in validation: images with boxes and masks, or a confusion matrix.

    >>> import torch
    >>> from epochal import Loop
    >>> net, plots = torch.nn.Linear(2, 3), PredictionPlots()
    >>> data = [(torch.randn(8, 2), torch.randint(3, (8,)))]
    >>> with Loop(model=net, optimizer=torch.optim.SGD(net.parameters(), lr=0.1), callbacks=[plots]) as run:
    ...     for epoch in run.epochs(1):
    ...         with run.validation():
    ...             for x, y in run.batches(data):
    ...                 outputs = net(x)
    >>> [path.name for path in (run.dir / "prediction_plots").iterdir()]
    ['confusion_matrix-epoch-0000.png']

    when
        A condition, such as ``Best("fitness")`` or ``Every(epochs=10)``; None draws each epoch's last validation. The
        picture shows the newest validation at the moment at which the condition holds.
    images, min_score, size
        For boxes: how many images, the validation's first; the score from which a box is drawn; the longer side of an
        image in the picture, in pixels.
    worst
        For classification: how many images are shown whose true class got the lowest score.
    names
        The classes' names, a list or a mapping, where the trainer does not know them.
    read
        In a ``Loop``: a function of the run that returns targets (n,) and scores (n, classes), at the end of each
        validation batch; None takes the batch's second element and what the model returned.
    keep_last
        How many pictures stay; -1 all.

    In YOLO it draws detection, segmentation and pose (their boxes; masks where there are any) beside the truth, and a
    confusion matrix for classification. Pictures are PNG files in ``run.dir/prediction_plots``; ``run.log_image`` gets
    them too, and each image with its boxes and masks. Nothing of the training changes: no random number is drawn, only
    the images to be drawn are copied. It is guarded. MissingExtra where matplotlib is not installed.
    """

    what = "pictures"

    def __init__(
        self,
        when: "Condition | None" = None,
        *,
        images: int = 8,
        min_score: float = 0.25,
        size: int = 240,
        worst: int = 0,
        names: Sequence[str] | Mapping[int, str] | None = None,
        read: Read | None = None,
        keep_last: int = -1,
        name: str | None = None,
    ) -> None:
        check_drawing("PredictionPlots")
        super().__init__(when, read=read, names=names, keep_last=keep_last, name=name)
        check_count(images, owner="PredictionPlots", argument="images")
        check_count(size, owner="PredictionPlots", argument="size")
        check_amount(min_score, owner="PredictionPlots", argument="min_score", zero=True)
        if isinstance(worst, bool) or not isinstance(worst, int) or worst < 0:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"PredictionPlots: worst must be a whole number of at least 0, not {worst!r}")
        self.images, self.min_score, self.size, self.worst = images, float(min_score), size, worst
        self._shown: Boxes | Confusion | None = None

    def begin(self, run: "Run") -> None:
        """Begin with nothing."""
        self._shown = None

    def collect(self, run: "Run") -> None:
        """Keep the images that will be drawn, or count."""
        shown = self._shown
        room = shown.room if isinstance(shown, Boxes) else self.images
        if not room:
            return
        pixels = self.worst > 0 or not isinstance(shown, Confusion)
        found = predictions_of(run, self.read, self.names, min_score=self.min_score, first=room, pixels=pixels)
        if found is None or not found.images:
            return
        if shown is None:
            of_classes = found.images[0].boxes is None
            self._shown = shown = Confusion(self.worst) if of_classes else Boxes(self.images, self.size)
        shown.add(found.images, found.names)

    def use(self, run: "Run", epoch: int) -> bool:
        """Draw, write and log the picture."""
        shown, self._shown = self._shown, None
        of = "" if run.num_epochs is None else f" of {run.num_epochs}"
        from_score = f", boxes of score {self.min_score:g} or more" if isinstance(shown, Boxes) else ""
        image = None if shown is None else shown.draw(f"epoch {epoch + 1}{of}{from_score}")
        if shown is None or image is None:
            return False
        folder = self.folder(run)
        write_png(folder / f"{shown.name}-epoch-{epoch:04d}.png", image)
        self.tidy(folder, f"{shown.name}-epoch-*.png")
        run.log_image(shown.name, image)
        if isinstance(shown, Boxes):
            for number, one in enumerate(shown.images):
                run.log_image(f"{shown.name}/{number}", one.image, boxes=marks(one, shown.names))
        return True

    def drop(self) -> None:
        """Forget the validation."""
        self._shown = None
