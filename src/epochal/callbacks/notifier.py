"""Tell somebody when a training ends, fails, or when its loss jumps: by a webhook, or by a command of yours."""

import subprocess
from collections.abc import Callable, Sequence
from math import isfinite
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, final, get_args
from urllib.parse import urlsplit

from epochal.conditions.arguments import check_amount
from epochal.core.background import Background
from epochal.core.callback import Callback
from epochal.core.errors import ArgumentError
from epochal.core.log import log
from epochal.core.preemption import within

if TYPE_CHECKING:
    from epochal.core.run import Run

Event = Literal["end", "failure", "spike"]
WAITING = 16  # messages that may wait for a webhook
LONGEST_TEXT = 300  # characters of an error's text


class Message(NamedTuple):
    """What is told; ``best`` maps "fitness" to its best value."""

    event: str
    text: str
    run: str
    state: str
    epoch: int
    step: int
    best: dict[str, float]

    def payload(self) -> dict[str, Any]:
        """Return it as JSON values; "text" is what Slack, Teams and Mattermost show, "content" what Discord shows.

        JSON has no infinities: a best value that is one is None.
        """
        best = {name: value if isfinite(value) else None for name, value in self.best.items()}
        return {**self._asdict(), "best": best, "content": self.text}


@final
class Notifier(Callback):
    """Send a message when a training ends, fails, or when its loss jumps.

    >>> Notifier("https://hooks.example.com/services/T0/B0/a-secret")
    Notifier(https://hooks.example.com/..., on=('end', 'failure', 'spike'))
    >>> Notifier(command=["mail", "-s", "training", "me@example.com"], on=["failure"])
    Notifier(command=mail ..., on=('failure',))

    url
        Where a JSON object is posted to: "text" (and the same as "content"), "event", "run", "state", "epoch" (from 0),
        "step", "best". Slack, Mattermost, Teams and Discord take it as it is.
    command
        Instead: a program and its arguments, started without a shell; the text comes on its standard input, and
        ``{text}``, ``{run}``, ``{event}`` and ``{state}`` in an argument are replaced.
    on
        Which events are told: "end" (completed, stopped, interrupted or preempted), "failure" (an error), "spike" (the
        event ``on_loss_spike``, which a ``LossSpike`` gives).
    timeout
        How many seconds a webhook or a command may take.
    pause
        The least number of seconds between two messages about spikes.
    clock
        Seconds, as ``time.monotonic`` gives them.

    It is sent on a thread of its own, from the first process only; the end of a training waits at most ``timeout``
    seconds for it, fewer after a signal. What cannot be sent is tried once more, said once, and costs nothing else.
    Neither the address nor the arguments are logged, shown or kept: they may hold a secret. A process that is killed
    (``kill -9``, no memory) can send nothing. ``send(text)`` sends a message of your own, from any thread:
    ``Watchdog(tell=notifier.send)``.
    """

    guarded = True

    def __init__(
        self,
        url: str | None = None,
        *,
        command: Sequence[str] | None = None,
        on: Sequence[Event] = ("end", "failure", "spike"),
        timeout: float = 5.0,
        pause: float = 60.0,
        clock: Callable[[], float] = monotonic,
        name: str | None = None,
    ) -> None:
        if (url is None) == (command is None):
            raise ArgumentError("Notifier: give either the url of a webhook or a command")
        if url is not None and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
            raise ArgumentError("Notifier: url must begin with http:// or https:// and name a host")
        if command is not None and (isinstance(command, str) or not command):
            raise ArgumentError('Notifier: command is a list, the program and its arguments: ["notify-send", "{text}"]')
        wrong = [one for one in ((on,) if isinstance(on, str) else on) if one not in get_args(Event)]
        if isinstance(on, str) or wrong:
            raise ArgumentError(f"Notifier: on must be a list of {', '.join(get_args(Event))}, not {on!r}")
        self.url, self.command, self.on = url, None if command is None else tuple(command), tuple(on)
        self.timeout = check_amount(timeout, owner="Notifier", argument="timeout")
        self.pause, self.clock = pause, clock
        object.__setattr__(self, "_first_argument", None)  # the usual name would show the address
        self.name = name
        self.background: Background | None = None
        self.run: Run | None = None
        self.told = float("-inf")  # when a spike was told
        self.failed = 0

    def __repr__(self) -> str:
        if self.url is not None:
            where = f"{urlsplit(self.url).scheme}://{urlsplit(self.url).hostname}/..."
        else:
            assert self.command is not None
            where = f"command={self.command[0]} ..."
        return f"Notifier({where}, on={self.on!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "background": None, "run": None}  # a thread cannot travel

    def on_train_start(self, run: "Run") -> None:
        """Begin anew; the thread starts with the first message."""
        self.run, self.told, self.failed = (None if run.rank else run), float("-inf"), 0

    def on_loss_spike(self, run: "Run") -> None:
        """Tell of a spike, unless one was told a short while ago."""
        if "spike" in self.on and self.clock() - self.told >= self.pause:
            self.told = self.clock()
            self.put(run, "spike", "its loss jumps")

    def teardown(self, run: "Run") -> None:
        """Tell how the training ended, and wait a little until that is sent."""
        event = "failure" if run.end_reason == "exception" else "end"
        if self.run is not None and event in self.on:
            self.put(run, event, ending(run))
        background, self.background, self.run = self.background, None, None
        if background is None:
            return
        done = background.close(limit=within(run.engine, self.timeout))
        if self.failed or not done:
            run.engine.notes.append(f"{run.label(self)}: {self.failed or 'some'} messages could not be sent")

    def send(self, text: str) -> None:
        """Send a message of your own, while a training runs; it never raises and never waits."""
        if self.run is not None:
            self.put(self.run, "message", text)

    def put(self, run: "Run", event: str, text: str) -> None:
        """Have a message sent."""
        if self.run is None:
            return
        if self.background is None:
            self.background = Background("notifier", waiting=WAITING)
        message = message_of(run, event, text)
        if not self.background.do(lambda: self.deliver(message), patience=0.0):
            self.failed += 1

    # -- on its own thread ------------------------------------------------------------------------------------------

    def deliver(self, message: Message) -> None:
        """Send a message, with a second try."""
        for last in (False, True):
            try:
                if self.url is not None:
                    post(self.url, message, self.timeout)
                else:
                    assert self.command is not None
                    start(self.command, message, self.timeout)
            except Exception as error:
                if last:
                    self.missed(error)
            else:
                return

    def missed(self, error: Exception) -> None:
        """Say, once, that a message was not sent; an error's text may hold the address, its kind does not."""
        self.failed += 1
        if self.failed == 1:
            code = getattr(error, "code", None) or getattr(error, "returncode", None)
            said = type(error).__name__ + (f" {code}" if isinstance(code, int) else "")
            log().warning("%s could not send a message (%s); the training is not touched by it.", self.name, said)


def post(url: str, message: Message, timeout: float) -> None:
    """Post a message as JSON; OSError where that fails."""
    import json
    from urllib.request import Request, urlopen

    head = {"Content-Type": "application/json", "User-Agent": "epochal"}
    data = json.dumps(message.payload()).encode()
    with urlopen(Request(url, data=data, headers=head, method="POST"), timeout=timeout):
        pass


def start(command: Sequence[str], message: Message, timeout: float) -> None:
    """Run a command with a message; subprocess.SubprocessError or OSError where that fails."""
    words = {"text": message.text, "run": message.run, "event": message.event, "state": message.state}
    filled = [*command[:1], *(replaced(one, words) for one in command[1:])]
    subprocess.run(
        filled, input=message.text.encode(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=timeout,
        check=True,
    )  # fmt: skip


def replaced(argument: str, words: dict[str, str]) -> str:
    """Return an argument with its ``{words}`` replaced, in one go: what a word brings is not replaced again.

    >>> replaced("{run} {other}: {text}", {"run": "digits", "text": "{run}"})
    'digits {other}: {run}'
    """
    import re

    return re.sub(r"\{(\w+)\}", lambda found: words.get(found[1], found[0]), argument)


def message_of(run: "Run", event: str, text: str) -> Message:
    """Return what is told of a run at this moment."""
    best = {"fitness": run.best_fitness} if run.best_fitness is not None else {}
    state = run.end_reason or "running"
    parts = [f"{run.name}: {text}", f"epoch {run.epoch + 1}" + (f" of {run.num_epochs}" if run.num_epochs else "")]
    parts += [f"step {run.step}", *(f"best {name} {value:.4g}" for name, value in best.items())]
    last = run.engine.history[-1] if run.engine.history else {}
    shown = [name for name in ("train/loss", "val/loss") if name in last]
    parts += [f"{name} {last[name]:.4g}" for name in shown]
    return Message(event, ", ".join(parts), run.name, state, run.epoch, run.step, best)


def ending(run: "Run") -> str:
    """Return how a training ended, in words."""
    error = run.engine.error
    if run.end_reason == "exception" and error is not None:
        first = str(error).strip().partition("\n")[0][:LONGEST_TEXT]
        return f"failed with {type(error).__name__}" + (f": {first}" if first else "")
    return f"stopped ({run.stop_reason})" if run.end_reason == "stopped" else str(run.end_reason)
