"""Makes the documentation's pictures of the live page: three runs that are over, one that is steered while it runs.

``python -m tools.dashboard_pictures``; it needs Chromium, and the page built.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.dashboard.browser import TRAINING, a_browser, a_page, served, training
from tools.house import ROOT

IMAGES = ROOT / "docs" / "images"
SWEEP = (("rings-slow", "0.004"), ("rings-steady", "0.02"), ("rings-bold", "0.2"))
LIVE = ("rings", "--rich", "--epochs", "40", "--batches", "60", "--lr", "0.01", "--pause", "0.012", "--patience", "40")


def ask(page: Any, label: str, **fields: str) -> None:
    """Press a control's button, fill its dialog in, and wait for the training's answer."""
    before = page.locator(".answer.good").count()
    page.get_by_role("toolbar", name="Steer the training").get_by_role("button", name=label, exact=True).click()
    box = page.get_by_role("dialog")
    for name, value in fields.items():
        box.get_by_label(name).first.fill(value)
    if box.is_visible():
        box.locator("footer button").last.click()
    page.wait_for_function("count => document.querySelectorAll('.answer.good').length > count", arg=before)


def steer(page: Any, epochs: int) -> None:
    """Look on until so many epochs have gone, with some wishes on the way."""
    page.get_by_role("link", name="rings", exact=True).click(timeout=90_000)
    page.locator(".answers").wait_for(state="attached")
    for at, label, fields in (
        (10, "Scale the learning rate", {"factor": "0.5"}),
        (15, "Save now", {}),
        (epochs, "", {}),
    ):
        page.wait_for_function(
            "at => Number(/^\\d+/.exec(document.querySelector('.progress-text').textContent)[0]) >= at",
            arg=at,
            timeout=90_000,
        )
        if label:
            ask(page, label, **fields)
    while page.locator(".answer button").count():
        page.locator(".answer button").first.click()


def shoot(page: Any, name: str, width: int, height: int) -> None:
    """Take a picture of what is in the window."""
    page.set_viewport_size({"width": width, "height": height})
    page.evaluate("window.scrollTo(0, 0)")
    page.mouse.move(5, 5)
    page.wait_for_timeout(1200)
    page.screenshot(path=IMAGES / f"dashboard-{name}.png")


def compare(page: Any) -> None:
    """Open the comparison of the runs that are over."""
    page.locator("main > div").wait_for()
    if page.get_by_role("link", name="All runs").is_visible():
        page.get_by_role("link", name="All runs").click()
    for name, _ in SWEEP:
        page.get_by_role("checkbox", name=f"Choose {name} for a comparison").check()
    page.get_by_role("button", name="Compare 3").click()
    page.locator("canvas").first.wait_for()


def main() -> None:
    """Make the runs, then the pictures."""
    with tempfile.TemporaryDirectory() as place:
        runs = Path(place) / "runs"
        for seed, (name, rate) in enumerate(SWEEP):
            arguments = ("--dir", str(runs), "--rich", "--epochs", "24", "--lr", rate, "--seed", str(seed))
            subprocess.run([*TRAINING, name, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        with served(runs) as link, a_browser() as browser, training(runs, *LIVE):
            for scheme in ("light", "dark"):
                with a_page(browser, link, color_scheme=scheme, device_scale_factor=1.5) as page:
                    if scheme == "light":
                        steer(page, 22)
                        page.get_by_role("slider", name="Smoothing").fill("0.6")
                        shoot(page, "light", 1280, 860)
                        shoot(page, "narrow", 390, 844)
                        page.set_viewport_size({"width": 1280, "height": 860})
                    compare(page)
                    shoot(page, "dark" if scheme == "dark" else "compare", 1280, 860)


if __name__ == "__main__":
    sys.exit(main())
