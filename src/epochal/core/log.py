"""Where Epochal speaks: ``logging.getLogger("epochal")``, brought in when there is something to say."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logging import Logger


def log() -> "Logger":
    """Return the logger of all of Epochal; importing ``logging`` costs what importing Epochal need not.

    >>> log().name
    'epochal'
    """
    import logging

    return logging.getLogger("epochal")
