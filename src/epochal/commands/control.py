"""`epochal stop`, `save`, `set-lr`, `scale-lr`, `pause`, `continue`, `validate`, `do`: asking a running training."""

import getpass
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from epochal.core.errors import ArgumentError
from epochal.runs.asking import Refused, answer, ask, offered
from epochal.runs.commands import OPEN
from epochal.runs.stored import StoredRun

STATUS = {"applied": 0, "refused": 1, "expired": 1, "taken": 3, "queued": 3}  # how a command ended -> the exit status
SCHEDULE = "schedule"  # in place of a rate: what the trainer's own schedule says


def control(folder: Path, name: str, arguments: Mapping[str, Any], *, wait: float, as_json: bool) -> int:
    """Ask a run's training for something, print what became of it, and return the exit status."""
    run = StoredRun(folder)
    row: dict[str, Any]
    try:
        row = answer(run, ask(run, name, arguments, by=who()), seconds=wait)
    except Refused as error:
        row = {"id": None, "name": name, "state": "refused", "step": None, "epoch": None, "answer": str(error)}
    print(json.dumps(row) if as_json else in_words(row))
    return STATUS.get(str(row["state"]), 1)


def in_words(row: Mapping[str, Any]) -> str:
    """Return what became of a command as a line.

    >>> in_words({"name": "stop", "state": "applied", "step": 12, "epoch": 3, "answer": "the training ends here"})
    'stop: applied at step 12, in epoch 4: the training ends here'
    """
    where = "" if row["step"] is None else f" at step {row['step']}, in epoch {row['epoch'] + 1}"
    waits = row["state"] in OPEN
    state = "not applied yet" if waits else row["state"]
    text = row["answer"] or ("the training is busy, and does it at its next safe point" if waits else "")
    return f"{row['name']}: {state}{where}{': ' if text else ''}{text}"


def who() -> str:
    """Return who is asking."""
    try:
        return f"{getpass.getuser()} (terminal)"
    except (OSError, KeyError, ImportError):  # a user without a name
        return "terminal"


def rate(text: str) -> float | None:
    """Return a learning rate, None for ``schedule``.

    >>> rate("0.01"), rate("schedule")
    (0.01, None)
    """
    if text == SCHEDULE:
        return None
    try:
        return float(text)
    except ValueError:
        raise ArgumentError(f"a learning rate is a number, or {SCHEDULE}, not {text!r}") from None


def of_words(folder: Path, name: str, words: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of a command of the user's own that ``key=value`` words tell."""
    try:
        rows = offered(StoredRun(folder)).get(name, {}).get("arguments", ())
    except Refused:  # said when it is asked for
        rows = ()
    kinds = {row["name"]: row["type"] for row in rows}
    found: dict[str, Any] = {}
    for word in words:
        key, is_given, value = word.partition("=")
        if not is_given:
            raise ArgumentError(f"{word!r}: an argument is key=value")
        found[key] = number(value) if kinds.get(key) in ("number", "integer") else value
    return found


def number(text: str) -> float | str:
    """Return a text as a number, if it is one.

    >>> number("3"), number("0.5"), number("x")
    (3, 0.5, 'x')
    """
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
