"""Where progress is shown: a terminal, a notebook, or plain lines."""

import sys
from typing import TYPE_CHECKING, Any, Protocol

from epochal.callbacks.summary_view import as_text, render

if TYPE_CHECKING:
    from epochal.core.summary import Summary


class Screen(Protocol):
    """Something that shows a training."""

    @property
    def live(self) -> bool:
        """Whether a status is shown that changes."""
        ...

    def status(self, text: str) -> None:
        """Show where the training stands, in place of what was said before."""
        ...

    def line(self, text: str) -> None:
        """Write a line that stays."""
        ...

    def summary(self, summary: "Summary") -> None:
        """Show the summary, which stays."""
        ...

    def close(self) -> None:
        """Take the status away."""
        ...


class Plain:
    """Plain lines on standard output, without control characters.

    >>> Plain().line("epoch=1/3 train/loss=0.5")
    epoch=1/3 train/loss=0.5
    """

    live = False

    def status(self, text: str) -> None:
        """Show nothing: a line that changes cannot be had here."""

    def line(self, text: str) -> None:
        """Write a line, at once; what the stream cannot encode is replaced."""
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding) + "\n")
        sys.stdout.flush()

    def summary(self, summary: "Summary") -> None:
        """Write the summary as lines."""
        encoding = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "")
        self.line(as_text(summary, ascii_only=not encoding.startswith("utf")))

    def close(self) -> None:
        """Nothing is left to take away."""


class Terminal:
    """A status in the last line of a terminal, by rich; what others print goes above it.

    >>> Terminal().live
    True
    """

    live = True

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self.console = Console()
        # Without a thread of its own: the training says when there is something new.
        self.shown = Live(console=self.console, auto_refresh=False, transient=True)

    def status(self, text: str) -> None:
        """Redraw the status."""
        from rich.text import Text

        if not self.shown.is_started:
            self.shown.start()
        self.shown.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)

    def line(self, text: str) -> None:
        """Write a line above the status."""
        self.console.print(text, markup=False, highlight=False, no_wrap=True, overflow="ellipsis", crop=True)

    def summary(self, summary: "Summary") -> None:
        """Draw the summary."""
        self.console.print(render(summary))

    def close(self) -> None:
        """Take the status away and give standard output back."""
        self.shown.stop()


class Notebook:
    """A status in a notebook's output that is replaced in place; needs nothing but IPython.

    >>> Notebook.live
    True
    """

    live = True

    def __init__(self) -> None:
        self.handle: Any = None

    def status(self, text: str) -> None:
        """Replace the status."""
        from IPython.display import display  # pyright: ignore[reportMissingImports, reportUnknownVariableType]

        data = {"text/plain": text}
        if self.handle is None:
            self.handle = display(data, raw=True, display_id=True)
        else:
            self.handle.update(data, raw=True)

    def line(self, text: str) -> None:
        """Print a line."""
        print(text)  # a notebook's cell

    def summary(self, summary: "Summary") -> None:
        """Print the summary as text, which every front end shows."""
        print(as_text(summary))

    def close(self) -> None:
        """Empty the status."""
        if self.handle is not None:
            self.handle.update({"text/plain": ""}, raw=True)
            self.handle = None


def in_notebook() -> bool:
    """Say whether this runs in a notebook's kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and type(shell).__name__ in ("ZMQInteractiveShell", "Shell")  # the latter is Colab's


def choose(live: bool | None, *, trainer_draws: bool) -> Screen:
    """Return the place to show progress: plain lines where nothing can change in place, or the trainer has a bar.

    >>> type(choose(False, trainer_draws=False)).__name__
    'Plain'
    """
    if live is False or (live is None and trainer_draws):
        return Plain()
    if in_notebook():
        return Notebook()
    if live or sys.stdout.isatty():
        return Terminal()
    return Plain()
