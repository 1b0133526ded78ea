"""A validation that somebody asked for, between two batches: the training does not notice it."""

from collections.abc import Generator
from contextlib import contextmanager

from epochal.checkpointing.capture import random_state, restore_random_state
from epochal.core.engine import Engine


def is_asked(engine: Engine) -> bool:
    """Say whether a validation is to be done now, behind a batch: not where the training is about to stop or go back.

    An integration asks for it where it has told the end of a batch, until it is False, and validates ``as_asked``.
    """
    requests = engine.requests
    return bool(requests.validations) and not (requests.stops or requests.rollbacks)


@contextmanager
def as_asked(engine: Engine) -> Generator[None]:
    """Be such a validation: random generators are put back behind it, and policies look only if they are meant to."""
    drawn = random_state()
    engine.asked = True
    engine.counts = any(request.counts for request in engine.requests.validations)
    try:
        yield
    finally:
        engine.asked = engine.counts = False
        restore_random_state(drawn)
