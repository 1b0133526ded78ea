"""TensorBoard: event files, written without TensorFlow and without PyTorch."""

import itertools
import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from epochal.core.errors import MissingExtra
from epochal.core.host import Record
from epochal.loggers.base import About, Logger
from epochal.loggers.crc32c import masked
from epochal.loggers.curves import Curves
from epochal.loggers.files import LogFile
from epochal.loggers.pictures import Histogram, picture_of
from epochal.loggers.worker import Limits

_numbers = itertools.count()


class TensorBoardLogger(Logger):
    """Write TensorBoard event files: scalars over ``run.step``, hyper-parameters, images, texts and histograms.

    ``dir`` defaults to ``tensorboard`` in the run's folder: ``tensorboard --logdir runs`` shows all runs. Values of
    batches keep their name, their means over an epoch are ``epoch/<name>``; ``lr/<group>`` and ``fitness`` come once
    per epoch. A resumed training hides the steps it repeats. Where the run has a store, it is read from there, all goes
    into one file, and a folder that was deleted is written again. MissingExtra where tensorboard is not installed.

    >>> TensorBoardLogger(flush_limit=5.0).replaces
    frozenset({'tensorboard'})
    """

    replaces: ClassVar[frozenset[str]] = frozenset({"tensorboard"})
    destination: ClassVar[str] = "tensorboard"
    limits: ClassVar[Limits] = Limits(pause=1.0)

    def __init__(
        self,
        dir: str | os.PathLike[str] | None = None,  # noqa: A002
        *,
        keep_native: bool = False,
        flush_limit: float = 10.0,
        name: str | None = None,
    ) -> None:
        super().__init__(keep_native=keep_native, flush_limit=flush_limit, name=name)
        if find_spec("tensorboard") is None:
            raise MissingExtra("tensorboard", "tensorboard", "TensorBoardLogger")
        self.path = None if dir is None else Path(dir)

    def needs_folder(self) -> bool:
        """Say whether the run's folder is wanted: not when a folder is given."""
        return self.path is None

    def options(self) -> dict[str, Any]:
        """Return the folder."""
        return {"dir": None if self.path is None else str(self.path.absolute())}

    def open(self, about: About) -> "TensorBoardWriter":
        """Begin an event file of this training's own, or go on in that of the run's store."""
        folder = about.place(self.path, "tensorboard", "TensorBoardLogger").absolute()
        told = about.told
        if about.stored and told and Path(told["file"]).parent == folder and Path(told["file"]).exists():
            writer = TensorBoardWriter(Path(told["file"]), about, purge=None)
            writer.go_on(told)
            return writer
        return TensorBoardWriter(folder / event_file_name(), about, purge=about.step + 1 if about.resumed else None)


class TensorBoardWriter:
    """One event file; errors leave it as it was, so what is in it stays readable.

    ``begins``: it holds nothing of the run yet.
    """

    def __init__(self, path: Path, about: About, purge: int | None) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2

        self.event_pb2, self.summary_pb2 = event_pb2, summary_pb2
        self.about = about
        self.file = LogFile(path)
        self.purge = purge  # what the file's head voids
        self.void: int | None = None  # what the next write voids first
        self.curves = Curves()
        self.last_step = -1
        self.hparams = False
        self.begins = True

    def go_on(self, told: Mapping[str, Any]) -> None:
        """Go on where the last process stopped; what it wrote and could not note is taken back."""
        self.begins = False
        if self.file.path.stat().st_size > told["size"]:
            os.truncate(self.file.path, told["size"])
        self.file.began = told["size"] > 0
        self.last_step, self.hparams = told["last_step"], told["hparams"]
        self.curves.load_state_dict(told["curves"])

    def go_back(self, step: int) -> None:
        """Void with the next write what comes behind a step."""
        if self.last_step > step:
            self.void, self.last_step = step + 1, step

    def remember(self) -> dict[str, Any]:
        """Return what another process needs to go on in the file."""
        size = self.file.path.stat().st_size if self.file.began else 0
        curves = self.curves.state_dict()
        return {
            "file": str(self.file.path), "size": size, "last_step": self.last_step, "hparams": self.hparams,
            "curves": curves, "where": str(self.file.path.parent),
        }  # fmt: skip

    def write(self, records: Sequence[Record]) -> None:
        """Append the events of these records."""
        self.file.check()
        curves, last = self.curves, self.last_step
        events = list(self.head())
        for points in curves.points(records):
            if points.step < last:  # rolled back: what came after is void
                events.append(self.start_session(points.step))
            last = points.step
            value_of = self.summary_pb2.Summary.Value
            values = [value_of(tag=tag, simple_value=value) for tag, value in points.values.items()]
            events.append(self.event(values, points.step, points.time))
        for record in records:
            events += self.others(record)
        if events:
            self.file.append(b"".join(framed(event) for event in events))
            self.void = None
        self.last_step = last

    def finish(self, end_reason: str) -> None:
        """Say how the training ended, for the page of hyper-parameters."""
        if not self.hparams:
            return
        api_pb2, plugin_data_pb2 = hparams_messages()
        status = api_pb2.STATUS_SUCCESS if end_reason in ("completed", "stopped") else api_pb2.STATUS_FAILURE
        end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
        data = plugin_data_pb2.HParamsPluginData(version=0, session_end_info=end)
        self.file.append(framed(self.plugin_event("_hparams_/session_end_info", data)))

    def head(self) -> Iterator[bytes]:
        """Return what every event file begins with, and what voids the steps that a resumed training repeats."""
        if not self.file.began:
            yield self.event_pb2.Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString()
            if self.purge is not None:
                yield self.start_session(self.purge)
        if self.void is not None:
            yield self.start_session(self.void)

    def start_session(self, step: int) -> bytes:
        """Return the event that voids everything from ``step`` on."""
        log = self.event_pb2.SessionLog(status=self.event_pb2.SessionLog.START)
        return self.event_pb2.Event(wall_time=time.time(), step=step, session_log=log).SerializeToString()

    def event(self, values: Sequence[Any], step: int, when: float) -> bytes:
        """Return an event with these summary values."""
        summary = self.summary_pb2.Summary(value=values)
        return self.event_pb2.Event(wall_time=when, step=step, summary=summary).SerializeToString()

    def others(self, record: Record) -> Iterator[bytes]:
        """Return the events of layers, images, texts, histograms and hyper-parameters."""
        if record.kind == "layers":  # these come late, which is no rollback
            value_of = self.summary_pb2.Summary.Value
            values = [value_of(tag=tag, simple_value=value) for tag, value in record.values.items()]
            yield self.event(values, record.at.step, record.time)
        elif record.kind == "image":
            for name, image in record.values.items():
                png = picture_of(image, record.boxes)
                shown = self.summary_pb2.Summary.Image(
                    height=png.height, width=png.width, colorspace=png.channels, encoded_image_string=png.data
                )
                value = self.summary_pb2.Summary.Value(tag=name, image=shown)
                yield self.event([value], record.at.step, record.time)
        elif record.kind == "text":
            yield self.event([self.text(*one) for one in record.values.items()], record.at.step, record.time)
        elif record.kind == "histogram":
            yield self.event([self.histogram(*one) for one in record.values.items()], record.at.step, record.time)
        elif record.kind == "params":
            yield self.params(record.values)

    def text(self, name: str, text: str) -> Any:
        """Return a text as the TEXT page reads it, which takes it for Markdown."""
        from tensorboard.compat.proto import tensor_pb2, tensor_shape_pb2, types_pb2

        tensors: Any = tensor_pb2  # made at import: no type checker knows them
        shapes: Any = tensor_shape_pb2
        types: Any = types_pb2
        shape = shapes.TensorShapeProto(dim=[shapes.TensorShapeProto.Dim(size=1)])
        data = [text.encode("utf-8", "replace")]
        tensor = tensors.TensorProto(dtype=types.DT_STRING, string_val=data, tensor_shape=shape)
        plugin = self.summary_pb2.SummaryMetadata.PluginData(plugin_name="text")
        return self.summary_pb2.Summary.Value(
            tag=name, metadata=self.summary_pb2.SummaryMetadata(plugin_data=plugin), tensor=tensor
        )

    def histogram(self, name: str, shown: Histogram) -> Any:
        """Return a histogram; its sums are what mean and deviation say."""
        count = float(sum(shown.counts))
        summed = self.summary_pb2.HistogramProto(
            min=shown.low, max=shown.high, num=count, sum=shown.mean * count,
            sum_squares=(shown.deviation**2 + shown.mean**2) * count, bucket_limit=shown.edges[1:], bucket=shown.counts,
        )  # fmt: skip
        return self.summary_pb2.Summary.Value(tag=name, histo=summed)

    def params(self, params: Mapping[str, Any]) -> bytes:
        """Return hyper-parameters as the HPARAMS page reads them: numbers, booleans, else text."""
        _, plugin_data_pb2 = hparams_messages()
        start = plugin_data_pb2.SessionStartInfo(start_time_secs=self.about.started, group_name=self.about.name)
        for name, value in params.items():
            field = start.hparams[name]
            if isinstance(value, bool):
                field.bool_value = value
            elif isinstance(value, (int, float)):
                field.number_value = value
            else:
                field.string_value = str(value)
        self.hparams = True
        data = plugin_data_pb2.HParamsPluginData(version=0, session_start_info=start)
        return self.plugin_event("_hparams_/session_start_info", data)

    def plugin_event(self, tag: str, data: Any) -> bytes:
        """Return an event for the hyper-parameters' plugin."""
        plugin = self.summary_pb2.SummaryMetadata.PluginData(plugin_name="hparams", content=data.SerializeToString())
        metadata = self.summary_pb2.SummaryMetadata(plugin_data=plugin)
        return self.event([self.summary_pb2.Summary.Value(tag=tag, metadata=metadata)], 0, time.time())


def hparams_messages() -> tuple[Any, Any]:
    """Return the modules of the HPARAMS page's messages, which are made at import: no type checker knows them."""
    from importlib import import_module

    return (
        import_module("tensorboard.plugins.hparams.api_pb2"),
        import_module("tensorboard.plugins.hparams.plugin_data_pb2"),
    )


def event_file_name() -> str:
    """Return a name that sorts by time, as TensorBoard reads the files of a folder, and that nobody else takes."""
    return f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"


def framed(event: bytes) -> bytes:
    """Return an event as a record of the file: length, checksum, data, checksum."""
    head = struct.pack("<Q", len(event))
    return b"".join((head, struct.pack("<I", masked(head)), event, struct.pack("<I", masked(event))))
