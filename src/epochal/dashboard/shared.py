"""Answers that many ask for at the same time, each made once."""

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

MOST = 16  # answers that are kept


class Shared:
    """The newest answers, by their questions; who asks while one is made waits for it.

    >>> shared = Shared()
    >>> shared.answer("name=val/loss", lambda: b"made"), shared.answer("name=val/loss", lambda: b"made again")
    (b'made', b'made')
    """

    def __init__(self) -> None:
        self.lock = Lock()
        self.known: OrderedDict[str, Answer] = OrderedDict()

    def answer(self, question: str, make: Callable[[], bytes]) -> bytes:
        """Return the answer to a question."""
        with self.lock:
            answer = self.known.setdefault(question, Answer())
            self.known.move_to_end(question)
            if len(self.known) > MOST:
                self.known.popitem(last=False)
        with answer.lock:
            if answer.body is None:
                answer.body = make()
            return answer.body


class Answer:
    """One answer, None until it is made."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.body: bytes | None = None
