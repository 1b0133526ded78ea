"""`epochal dashboard`: the live page of a folder of runs, on this machine, until Ctrl-C."""

import os
import signal
import sys
import webbrowser
from contextlib import suppress
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from epochal.core.errors import ArgumentError, MissingExtra

if TYPE_CHECKING:
    from epochal.dashboard.server import Dashboard, Place

NICE = 3  # how far behind other processes: a step comes first, and a full machine does not starve the page
UNBUILT = "the page was not built with this package; in its sources `python hatch_build.py` does that"


def start(folder: Path, place: "Place", *, read_only: bool = False, forget: bool = False, show: bool = False) -> None:
    """Serve a folder until Ctrl-C; the address with the token is printed once."""
    if folder.exists() and not folder.is_dir():
        raise ArgumentError(f"{folder} is no folder of runs")
    from epochal.dashboard.server import Dashboard

    dashboard = Dashboard(folder, place, read_only=read_only, forget=forget)
    if place.port and dashboard.port != place.port:
        print(f"port {place.port} is taken; this is another one", file=sys.stderr)
    if not folder.exists():
        print(f"{folder} is not there yet; runs are shown as soon as there are some", file=sys.stderr)
    if not dashboard.page.is_built:
        print(UNBUILT, file=sys.stderr)
    print(f"{folder} is shown at\n\n    {dashboard.invitation}\n\nCtrl-C ends this; trainings go on.", flush=True)

    def interrupted(*_: object) -> None:
        """End the server, also where Python swallows what a handler raises, as it does in callbacks of its own."""
        dashboard.stop()
        raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        signal.signal(signal.SIGINT, interrupted)
        if show:
            open_browser(dashboard)
        give_way()
        dashboard.serve()
    print("\nended")


def give_way() -> None:
    """Let the trainings of this machine go first from now on: a page can wait some milliseconds, a step should not."""
    if hasattr(os, "nice"):
        with suppress(OSError):
            os.nice(NICE)


def need_packages() -> None:
    """Raise MissingExtra unless what the page's server is made of is installed.

    >>> need_packages()
    """
    for package in ("starlette", "uvicorn"):
        if find_spec(package) is None:
            raise MissingExtra(package, "dashboard", "epochal dashboard")


def open_browser(dashboard: "Dashboard") -> None:
    """Open the page in the browser through a private file: everybody can see what programs are started with."""
    from epochal.dashboard.private_files import private_file, write_private

    file = private_file(dashboard.folder, ".html")
    address = escape(dashboard.invitation, quote=True)
    try:
        write_private(file, f'<!doctype html><meta http-equiv="refresh" content="0; url={address}">')
    except OSError as error:
        print(f"the browser is not opened: {error}", file=sys.stderr)
        return
    if not webbrowser.open(file.as_uri()):
        print("there is no browser here; open the address yourself", file=sys.stderr)
