"""The page stays usable with a thousand runs, with hundreds of charts, and after hours of going to and fro."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.dashboard.browser import a_browser, a_page, chromium, open_run, served

pytest.importorskip("playwright")
pytest.importorskip("torch")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

RUNS, CHARTS = 1000, 300
LEFT = ("Nodes", "JSEventListeners")
LONG = 1000  # milliseconds in which a page may not answer
DRAWN = "() => [...document.querySelectorAll('article')].every((one) => one.querySelector('canvas'))"
WATCH = """new PerformanceObserver((list) => { window.longest = Math.max(window.longest ?? 0, ...list.getEntries().map((one) =>
    one.duration)); }).observe({ type: "longtask" })"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A thousand runs, and one of hundreds of curves."""
    chromium()
    import torch

    from epochal import Loop

    folder = tmp_path_factory.mktemp("many") / "runs"
    with Loop(model=torch.nn.Linear(1, 1), dir=folder, name="run-0000") as run:
        for epoch in run.epochs(3):
            for batch in run.batches(range(4)):
                run.log({"train/loss": 1 / (1 + batch + epoch)})
            with run.validation():
                run.log({"val/loss": 1 / (1 + epoch)})
    for number in range(1, RUNS):
        (folder / f"run-{number:04d}").mkdir()
        shutil.copyfile(folder / "run-0000" / "run.db", folder / f"run-{number:04d}" / "run.db")
    with Loop(model=torch.nn.Linear(1, 1), dir=folder, name="wide") as run:
        for _ in run.epochs(1):
            for batch in run.batches(range(30)):
                run.log({f"part/{number:03d}": number / (1 + batch) for number in range(CHARTS)})
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[Any]:
    """The list of them all, and a clock for what keeps the page from answering."""
    with served(folder) as link, a_browser() as browser, a_page(browser, link) as found:
        found.get_by_role("link", name="wide").wait_for(timeout=60_000)
        found.evaluate(WATCH)
        yield found


@pytest.fixture(scope="module")
def session(page: Any) -> Any:
    """What Chromium counts of the page."""
    found = page.context.new_cdp_session(page)
    found.send("Performance.enable")
    return found


def counted(session: Any) -> dict[str, float]:
    """Return nodes, listeners, seconds of tasks and of the processor in them."""
    return {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}


def left(page: Any, session: Any) -> dict[str, float]:
    """Return what stays of nodes and listeners: an answer that is still on its way may hold the last page for a while."""
    counts: list[dict[str, float]] = []
    for _ in range(5):
        session.send("HeapProfiler.collectGarbage")
        counts.append(counted(session))
        page.wait_for_timeout(200)
    return {what: min(one[what] for one in counts) for what in LEFT}


@contextmanager
def never_long(page: Any, session: Any) -> Iterator[None]:
    """No task takes a second of the processor, whatever else the machine does meanwhile."""
    before = counted(session)
    page.evaluate("window.longest = 0")
    yield
    after = counted(session)
    share = (after["ThreadTime"] - before["ThreadTime"]) / (after["TaskDuration"] - before["TaskDuration"])
    longest = page.evaluate("window.longest")
    assert longest * min(1, share) < LONG, f"{longest} ms, {share:.0%} of them on the processor"


def test_a_thousand_runs_are_listed_searched_and_sorted(page, session):
    with never_long(page, session):
        assert page.locator("tbody tr").count() < 200  # the others as one scrolls to them
        page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
        page.wait_for_function("document.querySelectorAll('tbody tr').length > 120")
        page.get_by_role("searchbox", name="Filter runs").fill("run-0777")
        page.wait_for_function("document.querySelectorAll('tbody tr').length === 1")
        page.get_by_role("searchbox", name="Filter runs").fill("")
        page.get_by_role("button", name="Run", exact=True).click()
        assert page.locator("a.run-link").first.inner_text() == "run-0000"


def test_hundreds_of_charts_are_drawn_as_they_are_seen(page, session):
    with never_long(page, session):
        page.get_by_role("searchbox", name="Filter runs").fill("wide")
        open_run(page, "wide")
        page.locator("article canvas").first.wait_for()
        assert page.locator("article.chart").count() == CHARTS + 1  # and the rate of the epoch
        last = page.locator("article.chart").last
        last.scroll_into_view_if_needed()
        last.locator("canvas").wait_for()
        assert page.locator("canvas").count() < 60
        page.get_by_role("searchbox", name="Filter charts").fill("part/07")
        page.wait_for_function(
            "[...document.querySelectorAll('article.chart')].filter((one) => one.checkVisibility()).length === 10"
        )


@pytest.mark.slow
def test_going_from_run_to_run_leaves_nothing_behind(page, session):
    found = []
    for number in range(30):
        page.evaluate("location.hash = '#/'")
        page.get_by_role("searchbox", name="Filter runs").fill(f"run-{number:04d}")
        open_run(page, f"run-{number:04d}")
        page.locator("article canvas").first.wait_for()
        page.wait_for_function(DRAWN)
        if number in (9, 29):
            found.append({**left(page, session), "canvases": page.locator("canvas").count()})
    early, late = found
    assert late["canvases"] == early["canvases"]
    for what in LEFT:
        assert late[what] < 1.2 * early[what], found
