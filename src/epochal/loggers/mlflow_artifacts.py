"""MLflow's artifacts: images and texts, whose store may be another one than that of the metrics, and may fail alone."""

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from epochal.core.host import Record
from epochal.loggers.mlflow_names import safe
from epochal.loggers.pictures import picture_of
from epochal.loggers.worker import first_line

logger = logging.getLogger("epochal")
TRIES = 3  # in which nothing can be sent, before metrics do not wait for it any more


class Artifacts:
    """Sends images and texts; where their store fails and the metrics' does not, they are left out, said once.

    >>> Artifacts().left_out
    0
    """

    def __init__(self) -> None:
        self.failures = self.left_out = 0

    def send(self, client: Any, run_id: str, records: Sequence[Record]) -> None:
        """Send the images and texts among these records; an error means that all of them should come again."""
        waiting = [
            (record, name, value)
            for record in records
            if record.kind in ("image", "text")
            for name, value in record.values.items()
        ]
        for number, (record, name, value) in enumerate(waiting):
            try:
                send(client, run_id, record, name, value)
            except Exception as error:
                self.failures += 1
                if self.failures < TRIES:
                    raise
                self.leave_out(len(waiting) - number, error)
                return
            self.failures = 0

    def leave_out(self, count: int, error: Exception) -> None:
        """Let the metrics go on without these."""
        if not self.left_out:
            said = f"{type(error).__name__}: {first_line(error)}"
            logger.warning("MLflow's store of artifacts takes no images and texts (%s); metrics go on without.", said)
        self.left_out += count


def send(client: Any, run_id: str, record: Record, name: str, value: Any) -> None:
    """Send an image as ``images/<name>/step-<n>.png``, a text as ``texts/<name>/step-<n>.txt``."""
    folder, step = safe(name), record.at.step
    if record.kind == "text":
        client.log_text(run_id, value, f"texts/{folder}/step-{step}.txt")
        return
    with tempfile.TemporaryDirectory(prefix="epochal-") as place:
        file = Path(place) / f"step-{step}.png"
        file.write_bytes(picture_of(value, record.boxes).data)
        client.log_artifact(run_id, str(file), f"images/{folder}")
