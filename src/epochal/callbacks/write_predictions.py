"""Write what a model predicts in validation as lines of JSON, off the training thread."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, final

from epochal.callbacks.of_validation import OfValidation, Read
from epochal.callbacks.predictions_file import as_line
from epochal.callbacks.read_predictions import predictions_of
from epochal.conditions.arguments import check_amount, check_count
from epochal.core.background import Background
from epochal.core.host import Predictions
from epochal.core.log import log
from epochal.core.preemption import within
from epochal.loggers.files import replace

if TYPE_CHECKING:
    from epochal.conditions.base import Condition
    from epochal.core.run import Run

PART = ".part"  # what is not whole yet
PATIENCE = 10.0  # seconds that a batch waits for room before this validation's file is given up
LIMIT = 10.0  # seconds that the end of a training waits for what is not written yet


@final
class WritePredictions(OfValidation):
    """Write the validation's predictions, one line of JSON per image, for looking at errors afterwards.

    >>> import torch
    >>> from epochal import Loop
    >>> from epochal.callbacks.predictions_file import read_predictions
    >>> net, data = torch.nn.Linear(2, 2), [(torch.ones(1, 2), torch.tensor([1]))]
    >>> _ = torch.nn.init.zeros_(net.weight), torch.nn.init.zeros_(net.bias)
    >>> with Loop(model=net, callbacks=[WritePredictions()]) as run:
    ...     for epoch in run.epochs(1):
    ...         with run.validation():
    ...             for x, y in run.batches(data):
    ...                 outputs = net(x)
    >>> list(read_predictions(run.dir / "write_predictions" / "epoch-0000.jsonl"))
    [{'index': 0, 'source': '', 'target': 1, 'predicted': 0, 'classes': [0, 1], 'scores': [0.5, 0.5]}]

    when
        A condition, such as ``Best("fitness")``; None writes each epoch's last validation.
    keep_last
        How many files stay; -1 all. The default keeps the newest; with ``when=Best("fitness")`` that is the best.
    min_score
        The score from which a box is written.
    top
        How many classes of a classification are written, the likeliest first.
    masks
        Whether masks are written: COCO's uncompressed RLE, on a grid that spans the image and may be coarser.
    names, read
        As for ``PredictionPlots``. The classes' names stand in ``classes.json`` beside the files.

    A line of detection has ``index``, ``source`` (the image's file), its ``height`` and ``width``, and lists of
    ``classes``, ``scores``, ``boxes`` (left, top, right, bottom in pixels of that file's image) and ``masks``; its
    ``truth`` has the same without scores. A line of classification has ``target``, ``predicted``, ``classes`` and
    ``scores`` (shares: the softmax of what the model returned, unless its rows add up to 1 already). A file appears
    when it is whole. Encoding and writing happen on a thread of their own; a disk that is full or slow costs the
    training at most some seconds, and the summary says what was not written. It is guarded.
    """

    what = "files"

    def __init__(
        self,
        when: "Condition | None" = None,
        *,
        keep_last: int = 1,
        min_score: float = 0.05,
        top: int = 5,
        masks: bool = True,
        names: Sequence[str] | Mapping[int, str] | None = None,
        read: Read | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(when, read=read, names=names, keep_last=keep_last, name=name)
        check_count(top, owner="WritePredictions", argument="top")
        check_amount(min_score, owner="WritePredictions", argument="min_score", zero=True)
        self.min_score, self.top, self.masks = float(min_score), top, masks
        self._session: Session | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": None}  # a thread cannot travel

    def on_train_start(self, run: "Run") -> None:
        """Begin anew."""
        super().on_train_start(run)
        if not run.rank:
            self._session = Session(run.label(self))

    def begin(self, run: "Run") -> None:
        """Begin with nothing."""
        if self._session is not None:
            self._session.begin()

    def collect(self, run: "Run") -> None:
        """Have the batch's predictions written."""
        session = self._session
        if session is None:
            return
        try:
            found = predictions_of(run, self.read, self.names, min_score=self.min_score)
            if found is not None and found.images:
                session.write(self.folder(run), found, partial(as_line, top=self.top, masks=self.masks))
        except Exception:
            session.given_up = True  # a file that lacks a batch would lie
            raise

    def use(self, run: "Run", epoch: int) -> bool:
        """Let the file of this validation appear."""
        session = self._session
        if session is None or not (session.count or session.given_up):
            return False
        session.commit(f"epoch-{epoch:04d}.jsonl", partial(self.tidy, pattern="epoch-*.jsonl"))
        return True

    def drop(self) -> None:
        """Forget the validation."""
        if self._session is not None:
            self._session.begin()

    def teardown(self, run: "Run") -> None:
        """Write what waits, within the limit, and say what was lost."""
        super().teardown(run)
        session, self._session = self._session, None
        said = None if session is None else session.close(within(run.engine, LIMIT))
        if said is not None:
            run.engine.notes.append(said)
            log().warning("%s", said)


class Session:
    """The files of one training: asked on the training thread, written on another."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.background = Background(name)
        self.file = PartFile(name)
        self.count = 0  # images of this validation
        self.given_up = False  # this validation

    def begin(self) -> None:
        """Drop what was written since the last file."""
        if self.count:
            self.background.do(self.file.discard, patience=PATIENCE)
        self.count, self.given_up = 0, False

    def write(self, folder: Path, found: Predictions, encode: Callable[..., Mapping[str, Any]]) -> None:
        """Have the predictions of a batch written."""
        if not self.given_up:
            deed = partial(self.file.write, folder, self.count, found, encode)
            self.given_up = not self.background.do(deed, patience=PATIENCE)
        self.count += len(found.images)

    def commit(self, name: str, tidy: Callable[[Path], None]) -> None:
        """Have the file appear under its name."""
        if self.given_up or not self.background.do(partial(self.file.commit, name, tidy), patience=PATIENCE):
            self.file.lost.append(name)
        self.count = 0

    def close(self, limit: float) -> str | None:
        """End within so many seconds, and say what was lost, if anything."""
        ended = self.background.close(limit=limit)
        lost, error = self.file.lost, self.file.error or self.background.error
        if ended and not lost and error is None:
            return None
        why = f" ({type(error).__name__}: {error})" if error is not None else ""
        late = "" if ended else f"; writing did not end within {limit:.3g} s"
        return f"{self.name}: {len(lost)} of its files not written{why}{late}"


class PartFile:
    """A file that grows under another name until it is whole; used on the background thread only."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.file: IO[str] | None = None
        self.folder = Path()
        self.names: Mapping[int, str] | None = None
        self.broken = False
        self.error: Exception | None = None
        self.lost: list[str] = []

    def write(self, folder: Path, start: int, found: Predictions, encode: Callable[..., Mapping[str, Any]]) -> None:
        """Append a line per image."""
        if self.broken:
            return
        try:
            lines = [json.dumps(encode(start + index, one)) for index, one in enumerate(found.images)]
            if self.file is None:
                folder.mkdir(parents=True, exist_ok=True)
                self.folder = folder
                self.file = (folder / PART).open("w", encoding="utf-8")
            if found.names and found.names != self.names:
                replace(folder / "classes.json", f"{json.dumps(dict(found.names), indent=1)}\n".encode())
                self.names = dict(found.names)
            self.file.writelines(f"{line}\n" for line in lines)
        except Exception as error:
            self.failed(error)

    def commit(self, name: str, tidy: Callable[[Path], None]) -> None:
        """Give the file its name."""
        try:
            if self.file is not None:
                self.file.close()
                (self.folder / PART).replace(self.folder / name)
                tidy(self.folder)
        except OSError as error:
            self.failed(error)
        if self.file is None or self.broken:
            self.lost.append(name)
        self.file, self.broken = None, False

    def discard(self) -> None:
        """Remove what is not whole."""
        file, self.file, self.broken = self.file, None, False
        if file is not None:
            with suppress(OSError):
                file.close()
            with suppress(OSError):
                (self.folder / PART).unlink(missing_ok=True)

    def failed(self, error: Exception) -> None:
        """Report the first failure; this file is given up, the next is tried."""
        if self.error is None:
            log().error("%s could not write; the training goes on, the next file is tried.", self.name, exc_info=error)
        self.discard()
        self.error, self.broken = error, True
