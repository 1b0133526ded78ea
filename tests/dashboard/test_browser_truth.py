"""What the page shows in the end is what the runs' files hold, however it was looked at while they grew."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import epochal.runs
from tests.dashboard.browser import a_page, open_run, served

pytest.importorskip("playwright")
pytest.importorskip("torch")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

READ = """(chart) => { const said = document.querySelector('.sr[aria-live]'), plot = chart.querySelector('[role=img]'), all = [];
    const press = (key) => plot.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true }));
    for (let key = 'Home'; all.at(-1) !== said.textContent; key = 'ArrowRight') {
        if (all.length > 0 || key !== 'Home') all.push(said.textContent);
        press(key);
    }
    press('Escape');
    return all; }"""


TRAIN = """document.querySelector('article[aria-label="train/loss"]')"""
LAST = f"""(last) => {{ const plot = {TRAIN}.querySelector('[role=img]');
    plot.dispatchEvent(new KeyboardEvent('keydown', {{ key: 'End', bubbles: true, cancelable: true }}));
    return document.querySelector('.sr[aria-live]').textContent === last; }}"""


class Steered:
    """A training that goes on as far as a test says."""

    def __init__(self, folder: Path, name: str, micro: int = 1) -> None:
        self.folder, self.name, self.micro = folder, name, micro
        self.tickets = threading.Semaphore(0)
        self.thread = threading.Thread(target=self.train)
        self.thread.start()

    def go(self, count: int = 1) -> None:
        """Let so many parts of it be done: a batch, or a validation."""
        self.tickets.release(count)

    def train(self) -> None:
        import torch

        from epochal import Loop

        net = torch.nn.Linear(1, 1)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        with Loop(model=net, optimizer=optimizer, dir=self.folder, name=self.name) as run:
            for epoch in run.epochs(2):
                for batch in run.batches(range(4)):
                    self.tickets.acquire()
                    for part in range(self.micro):
                        run.log({"train/loss": 100 * epoch + 10 * batch + part})
                    optimizer.step()
                with run.validation():
                    self.tickets.acquire()
                    run.log({"val/loss": float(epoch)})

    def end(self) -> None:
        self.go(10)
        self.thread.join(20)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of this test's own."""
    return tmp_path / "runs"


@pytest.fixture
def two(folder: Path) -> Iterator[list[Steered]]:
    """Two trainings that have done one batch each."""
    found = [Steered(folder, name) for name in ("first", "second")]
    for one in found:
        one.go()
    yield found
    for one in found:
        one.end()


def labels(page: Any, title: str) -> set[str]:
    """The lines of a chart."""
    return set(page.get_by_role("article", name=title, exact=True).locator("footer .label").all_inner_texts())


def test_what_begins_later_joins_the_charts_that_are_open(folder, two, browser):
    first, second = two
    with served(folder) as link, a_page(browser, link) as page:
        open_run(page, "first")
        page.get_by_role("article", name="train/loss", exact=True).locator("canvas").wait_for()
        assert labels(page, "train/loss") == set()  # one line needs no name
        first.go(4)
        page.get_by_role("article", name="train/loss", exact=True).get_by_text("mean of the epoch").wait_for()
        assert labels(page, "train/loss") == {"each batch", "mean of the epoch"}
        page.get_by_role("link", name="All runs").click()
        for name in ("first", "second"):
            page.get_by_role("checkbox", name=f"Choose {name} for a comparison").check()
        page.get_by_role("button", name="Compare 2").click()
        chart = page.get_by_role("article", name="val/loss", exact=True)
        chart.locator("canvas").wait_for()
        second.go(4)
        chart.get_by_text("second").wait_for()
        assert labels(page, "val/loss") == {"first", "second"}
        first.end()
        second.end()


def test_a_run_that_is_deleted_leaves_the_comparison_to_the_others(folder, two, browser):
    first, second = two
    first.end()
    second.end()
    with served(folder) as link, a_page(browser, link, tolerate="404") as page:
        page.get_by_role("link", name="second").wait_for()
        for name in ("first", "second"):
            page.get_by_role("checkbox", name=f"Choose {name} for a comparison").check()
        page.get_by_role("button", name="Compare 2").click()
        page.get_by_role("heading", name="2 runs compared").wait_for()
        shutil.rmtree(folder / "first")
        page.goto(link.partition("?")[0])
        page.get_by_role("link", name="second").wait_for()
        page.get_by_role("link", name="first").wait_for(state="detached")
        page.go_back()
        page.get_by_role("heading", name="1 run, the others are gone").wait_for()
        page.get_by_role("article", name="val/loss", exact=True).locator("canvas").wait_for()
        page.locator("header .live:not(.away)", has_text="live").wait_for()


def test_a_run_that_cannot_be_read_says_why(folder, browser):
    (folder / "broken").mkdir(parents=True)
    (folder / "broken" / "run.db").write_bytes(b"no database" * 1000)
    with served(folder) as link, a_page(browser, link, tolerate="404") as page:
        row = page.locator("tr", has=page.get_by_role("link", name="broken", exact=True))
        row.get_by_text("file is not a database").wait_for()
        assert row.locator(".col-progress, .col-duration").all_inner_texts() == ["–", "–"]
        row.get_by_role("link").click()
        page.get_by_role("alert").get_by_text("file is not a database").wait_for()
        page.get_by_role("heading", name="This run could not be opened.").wait_for()


@pytest.mark.parametrize("micro", [1, 3])
def test_the_last_points_of_a_training_are_shown(folder, browser, micro):
    """Also of a training that ends between two times at which the page asks, and with several batches to a step."""
    steered = Steered(folder, "digits", micro)
    steered.go()
    with served(folder) as link, a_page(browser, link) as page:
        open_run(page, "digits")
        chart = page.get_by_role("article", name="train/loss", exact=True)
        chart.locator("canvas").wait_for()
        for _ in range(3):
            steered.go(2)
            page.wait_for_timeout(300)
        steered.end()
        curve = epochal.runs.open(folder)["digits"].metric("train/loss")
        last = f"step {curve.step[-1]}: {curve.value[-1]:g}"
        page.locator(".run-title .state.finished").wait_for()
        page.wait_for_function(LAST, arg=last)
        assert len(curve.step) == 8 * micro
        whole = [f"step {step}: {value:g}" for step, value in zip(curve.step, curve.value, strict=True)]
        page.wait_for_function(f"(all) => String(({READ})({TRAIN})) === String(all)", arg=whole)


def test_another_rank_is_chosen_beside_the_runs_name(folder, browser):
    import sqlite3

    Steered(folder, "digits").end()
    shutil.copyfile(folder / "digits" / "run.db", folder / "digits" / "run-1.db")
    with sqlite3.connect(folder / "digits" / "run-1.db") as connection:
        connection.execute(
            "UPDATE newest SET value = 7 WHERE series IN (SELECT id FROM series WHERE name = 'val/loss')"
        )
    with served(folder) as link, a_page(browser, link) as page:
        open_run(page, "digits")
        values = page.get_by_role("article", name="val/loss", exact=True).locator("footer b")
        values.first.wait_for()
        assert values.first.inner_text() == "1"
        page.get_by_label("Rank").select_option("1")
        page.wait_for_function(
            "() => document.querySelector('article[aria-label=\"val/loss\"] footer b')?.textContent === '7'"
        )
        assert page.get_by_label("Rank").evaluate("one => one.selectedOptions[0].textContent") == "1"
        assert page.get_by_role("button", name="Stop", exact=True).get_attribute("aria-disabled") == "true"
        page.get_by_label("Rank").select_option("0")
        page.wait_for_function(
            "() => document.querySelector('article[aria-label=\"val/loss\"] footer b')?.textContent === '1'"
        )
