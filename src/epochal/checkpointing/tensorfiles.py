"""The tensors of one part, wherever they lie: in one file, or in several."""

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from epochal.checkpointing.tensorfile import Entry, TensorFile
from epochal.core.errors import CheckpointError


class TensorFiles:
    """Several open tensor files that are read as one.

    >>> import tempfile
    >>> from epochal.checkpointing.blob import Blob
    >>> from epochal.checkpointing.tensorfile import stream
    >>> paths = [Path(tempfile.mkdtemp()) / f"{name}.safetensors" for name in "ab"]
    >>> for path in paths:
    ...     _ = path.write_bytes(b"".join(stream({path.stem: Blob("U8", (3,), 3, lambda: memoryview(b"abc"))})))
    >>> with TensorFiles(paths) as files:
    ...     files.entry("b").shape
    (3,)
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._open = ExitStack()
        self._homes: dict[str, TensorFile] = {}
        try:
            for path in paths:
                self._add(self._open.enter_context(TensorFile(path)))
        except BaseException:
            self._open.close()
            raise

    def __enter__(self) -> "TensorFiles":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def entry(self, name: str) -> Entry:
        """Return where a tensor lies in its file; `CheckpointError` when none holds it."""
        return self._home(name).entry(name)

    def read_into(self, name: str, target: memoryview) -> None:
        """Fill ``target``, which is as long as the tensor, with its bytes."""
        self._home(name).read_into(name, target)

    def _add(self, file: TensorFile) -> None:
        for name in file.entries:
            if name in self._homes:
                raise CheckpointError(f"tensor {name!r} lies both in {self._homes[name].path} and in {file.path.name}")
            self._homes[name] = file

    def _home(self, name: str) -> TensorFile:
        try:
            return self._homes[name]
        except KeyError:
            raise CheckpointError(f"no file of this part holds a tensor {name!r}") from None
