"""Whether a training that ends before its time is saved once more."""

from typing import TYPE_CHECKING

from epochal.checkpointing.retention import Keep
from epochal.core.requests import SaveRequest

if TYPE_CHECKING:
    from epochal.checkpointing.view import Store

LABEL = "leaving"  # who asked for it


def last_request(store: "Store", reason: str, *, resumable: bool) -> SaveRequest | None:
    """Return what to ask for, or None: no checkpoints are kept, or only an older point is one to resume from.

    >>> from epochal.checkpointing.memory import MemoryStore
    >>> store = MemoryStore()
    >>> last_request(store, "SIGTERM", resumable=True)
    >>> store.keep("each epoch", Keep(last=1))
    >>> last_request(store, "SIGTERM", resumable=True)
    SaveRequest(reason='SIGTERM', by='leaving', pinned=False, ...)

    The newest of these checkpoints stays.
    """
    if not (store.rules or store.checkpoints):
        return None
    if not resumable and any(one.manifest.resume_point for one in store.checkpoints):
        return None
    store.keep(LABEL, Keep(last=1))
    return SaveRequest(reason, LABEL)
