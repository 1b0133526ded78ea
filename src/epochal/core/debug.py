"""Debug mode: with EPOCHAL_DEBUG=1 every event of a training is held against the grammar as it comes."""

import os
from functools import partial
from typing import TYPE_CHECKING

from epochal.core.dispatch import Handle
from epochal.core.events import EVENT_NAMES, Grammar

if TYPE_CHECKING:
    from epochal.core.run import Run


def wanted() -> bool:
    """Say whether debug mode is on."""
    return os.environ.get("EPOCHAL_DEBUG", "") not in ("", "0")


class GrammarWatch:
    """Feeds a training's events to the grammar; a wrong one raises where it comes."""

    def __init__(self, run: "Run") -> None:
        self.grammar = Grammar(run.engine.dispatcher.events())
        self.grammar.declared -= frozenset(EVENT_NAMES)
        self.handles: list[Handle] = []
        for event in EVENT_NAMES:
            call = partial(self.feed, event)
            self.handles.append(run.engine.dispatcher.listen(event, call, label="EPOCHAL_DEBUG", guarded=False))

    def feed(self, event: str, _run: "Run") -> None:
        """Take one event."""
        self.grammar.feed(event)

    def remove(self) -> None:
        """Listen no more."""
        for handle in self.handles:
            handle.remove()
