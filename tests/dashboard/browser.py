"""What the browser's tests share: a server of our own, Debian's Chromium, a page that must not complain."""

import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tools.house import ROOT

STATIC = ROOT / "src" / "epochal" / "dashboard" / "static"
TRAINING = [sys.executable, "-m", "tests.dashboard.training"]


def chromium() -> str:
    """Where Chromium is; without it, or without the built page, the test is skipped."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("there is no Chromium here (apt-get install chromium)")
    if not (STATIC / "index.html").is_file():
        pytest.skip("the page is not built (python hatch_build.py)")
    return found


@contextmanager
def served(folder: Path, port: int = 0) -> Generator[str]:
    """Serve a folder's runs on a thread, and give the link that lets a browser in."""
    from epochal.dashboard.server import Dashboard, Place

    folder.mkdir(parents=True, exist_ok=True)
    dashboard = Dashboard(folder, Place(port=port))
    thread = threading.Thread(target=dashboard.serve, daemon=True)
    thread.start()
    try:
        yield dashboard.invitation
    finally:
        dashboard.stop()
        thread.join(10)


@contextmanager
def a_browser() -> Generator[Any]:
    """Start Chromium without a window."""
    api = pytest.importorskip("playwright.sync_api")
    executable = chromium()
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def a_page(browser: Any, link: str, *, tolerate: str = "", **options: Any) -> Generator[Any]:
    """Open the page; at its end nothing may have gone wrong in it: no error, no breach of its own rules.

    ``tolerate`` is a regular expression of what may stand in the console all the same.
    """
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce", **options})
    page = context.new_page()
    page.set_default_timeout(15_000)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("dialog", lambda dialog: wrong.append(f"dialog: {dialog.message}"))
    page.on("response", lambda answer: wrong.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
    page.goto(link)
    try:
        yield page
    finally:
        context.close()
    wrong = [one for one in wrong if not (tolerate and re.search(tolerate, one))]
    if wrong:
        raise AssertionError(f"the page complained: {wrong}")


@contextmanager
def training(folder: Path, name: str, *arguments: str) -> Generator[subprocess.Popen[str]]:
    """Run a training in a process of its own."""
    command = [*TRAINING, name, "--dir", str(folder), *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def open_run(page: Any, name: str) -> None:
    """Open a run from the list."""
    page.get_by_role("link", name=name, exact=True).click(timeout=60_000)
    page.get_by_role("heading", name=name, level=1).wait_for()


def nameless(page: Any) -> list[str]:
    """Return the controls of a page that a screen reader could not name."""
    return page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, textarea, a, [role=img], img")].filter((one) =>
            one.checkVisibility() && !(one.getAttribute("aria-label") || one.getAttribute("alt") || one.textContent.trim()
            || one.labels?.[0]?.textContent.trim() || one.placeholder)).map((one) => one.outerHTML.slice(0, 200))"""
    )


def overflow(page: Any) -> int:
    """Return by how many pixels a page is wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
