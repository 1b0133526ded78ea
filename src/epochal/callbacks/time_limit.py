"""Stop a training after some time."""

from typing import final

from epochal.callbacks.stop import Stopping, speaking_as
from epochal.conditions.schedule import Elapsed


@final
class TimeLimit(Stopping):
    """Stop so long after the start of training: ``Stop(when=Elapsed(...))``; the times add up, one is needed.

    >>> TimeLimit(hours=7, minutes=30)
    TimeLimit(hours=7, minutes=30)

    The clock starts at ``on_train_start`` in this process and is monotonic; a resumed training has the whole time
    again. It stops at the end of the batch that passes the limit: leave room for the last validation and checkpoint.
    """

    def __init__(
        self,
        *,
        hours: float | None = None,
        minutes: float | None = None,
        seconds: float | None = None,
        name: str | None = None,
    ) -> None:
        with speaking_as("TimeLimit", "Elapsed"):
            when = Elapsed(hours=hours, minutes=minutes, seconds=seconds)
        super().__init__(when, name=name)

    def __repr__(self) -> str:
        return repr(self.when).replace("Elapsed", "TimeLimit", 1)
