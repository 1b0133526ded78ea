"""The page in a real browser, over a real server and real runs."""

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.dashboard.browser import a_page, nameless, open_run, overflow, served, training

pytest.importorskip("playwright")
pytest.importorskip("torch")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def live(place: Path) -> Iterator[subprocess.Popen[str]]:
    """A training of its own process, which begins with the module's first test: by its last one it runs."""
    with training(place, "live", "--epochs", "10000", "--batches", "40", "--pause", "0.04") as process:
        yield process


@pytest.fixture(scope="module")
def folder(place: Path, live: Any) -> Path:
    """The folder with two runs that are over, and the one that begins."""
    from tests.dashboard.training import train

    for seed, rate in ((1, "0.02"), (2, "0.05")):
        arguments = ("--epochs", "4", "--batches", "15", "--rich", "--lr", rate, "--seed", str(seed))
        train(f"sweep-{seed}", "--dir", str(place), *arguments)
    return place


@pytest.fixture(scope="module")
def link(folder: Path) -> Iterator[str]:
    """The server's link."""
    with served(folder) as found:
        yield found


@pytest.fixture
def opened(browser: Any, link: str) -> Iterator[Callable[..., Any]]:
    """Open pages, which at the test's end must have had no errors."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(a_page(browser, link, **options))


def test_the_list_tells_each_runs_state_course_and_best(opened):
    page = opened()
    row = page.locator("tr", has=page.get_by_role("link", name="sweep-1"))
    row.wait_for()
    assert "finished" in row.inner_text()
    assert "4/4" in row.inner_text()
    assert row.locator("svg.spark path").get_attribute("d").count("L") == 3
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_role("searchbox", name="Filter runs").fill("sweep")  # another run begins at any time
    names = page.locator("a.run-link")
    assert names.all_inner_texts() == ["sweep-1", "sweep-2"]
    page.get_by_role("button", name="Run", exact=True).click()
    assert names.all_inner_texts() == ["sweep-2", "sweep-1"]
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("Run")


def test_everything_can_be_done_with_the_keys(opened):
    page = opened()
    page.get_by_role("link", name="sweep-1").wait_for()
    page.keyboard.press("/")
    page.keyboard.type("sweep-2")
    assert page.locator("a.run-link").all_inner_texts() == ["sweep-2"]
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="sweep-2", level=1).wait_for()
    page.keyboard.press("]")
    assert page.get_by_role("tab", selected=True).inner_text().startswith("Media")
    page.keyboard.press("?")
    assert page.get_by_role("dialog", name="Keys").get_by_text("back to all runs").is_visible()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="hidden")
    page.keyboard.press("u")
    page.get_by_role("link", name="sweep-1").wait_for()


def test_a_chart_is_read_point_by_point_with_the_arrow_keys(opened):
    page = opened()
    open_run(page, "sweep-1")
    chart = page.get_by_role("img", name=re.compile("^val: "))
    chart.first.locator("canvas").wait_for()
    chart.first.focus()
    page.keyboard.press("Home")
    said = page.locator(".sr[aria-live]")
    first = said.inner_text()
    assert first.startswith("step 15: ")
    page.keyboard.press("ArrowRight")
    assert said.inner_text().startswith("step 30: ")


def test_dragging_over_a_chart_asks_for_that_part_of_it(opened):
    page = opened()
    open_run(page, "sweep-1")
    over = page.get_by_role("article", name="train/loss", exact=True).locator(".u-over")
    over.wait_for()
    box = over.bounding_box()
    with page.expect_request(re.compile("name=train%2Floss.*begin=")) as asked:
        page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 60)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 60, steps=4)
        page.mouse.up()
    begin, end = (int(re.search(rf"{name}=(\d+)", asked.value.url)[1]) for name in ("begin", "end"))
    assert 10 < begin < 20 < end < 35  # a quarter to a half of 60 steps
    page.get_by_role("button", name="Show all").click()
    page.get_by_role("button", name="Show all").wait_for(state="hidden")


def test_two_runs_are_compared_in_the_same_charts_and_their_parameters_in_one_table(opened):
    page = opened()
    for name in ("sweep-1", "sweep-2"):
        page.get_by_role("checkbox", name=f"Choose {name} for a comparison").check()
    page.get_by_role("button", name="Compare 2").click()
    chart = page.get_by_role("article", name="val/loss", exact=True)
    chart.locator("canvas").wait_for()
    assert set(chart.locator(".label").all_inner_texts()) == {"sweep-1", "sweep-2"}
    table = page.get_by_role("table", name="Parameters")
    assert table.get_by_role("rowheader").all_inner_texts() == ["lr0\n(differs)", "seed\n(differs)"]
    assert table.get_by_role("row", name=re.compile("^lr0")).get_by_role("cell").all_inner_texts() == ["0.02", "0.05"]
    page.get_by_role("button", name="Only differences").click()
    assert "momentum" in table.inner_text()


@pytest.mark.slow
def test_charts_are_saved_as_pictures_and_tables(opened):
    page = opened()
    open_run(page, "sweep-1")
    chart = page.get_by_role("article", name="val/loss", exact=True)
    chart.locator("canvas").wait_for()
    with page.expect_download() as picture:
        chart.get_by_role("button", name="Save val/loss as PNG").click()
    assert Path(picture.value.path()).read_bytes().startswith(b"\x89PNG")
    with page.expect_download() as table:
        chart.get_by_role("button", name="Save val/loss as CSV").click()
    head, first, *_ = Path(table.value.path()).read_text().splitlines()
    assert head.split(",")[0] == "curve"
    assert first.split(",")[:3] == ["val/loss", "15", "0"]


def test_notes_and_tags_are_kept_and_are_text(opened):
    page = opened()
    open_run(page, "sweep-2")
    page.get_by_role("tab", name="About").click()
    page.get_by_role("textbox", name="A note").fill(EVIL)
    page.get_by_role("button", name="Add the note").click()
    page.get_by_text(EVIL).wait_for()
    page.get_by_role("textbox", name="Add a tag").fill("baseline")
    page.get_by_role("button", name="Add", exact=True).click()
    page.get_by_role("button", name="Take the tag baseline off").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("link", name="All runs").click()
    page.get_by_role("searchbox", name="Filter runs").fill("tag:base")
    assert page.locator("a.run-link").all_inner_texts() == ["sweep-2"]


def test_a_metric_named_as_html_is_text(browser, tmp_path):
    from tests.dashboard.training import train

    train("evil", "--dir", str(tmp_path / "runs"), "--epochs", "2", "--batches", "3", "--metric", EVIL)
    with served(tmp_path / "runs") as link, a_page(browser, link) as page:
        open_run(page, "evil")
        page.get_by_role("heading", name=EVIL).first.wait_for()
        assert page.locator("img[src=x]").count() == 0
        page.get_by_role("link", name="All runs").click()
        page.get_by_role("link", name="evil").wait_for()
        assert page.locator("img[src=x]").count() == 0


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [("light", 1280, "light"), pytest.param("dark", 1280, "dark", marks=pytest.mark.slow), ("narrow", 390, "light")],
)
def test_nothing_is_cut_off_or_nameless(opened, tmp_path, name, width, scheme):
    page = opened(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.get_by_role("link", name="sweep-1").wait_for()
    assert (overflow(page), nameless(page)) == (0, [])
    open_run(page, "sweep-1")
    page.locator("canvas").first.wait_for()
    for tab in page.get_by_role("tab").all():
        tab.click()
        assert (overflow(page), nameless(page)) == (0, []), tab.inner_text()
    light = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(246, 247, 249)"
    assert light == (scheme == "light")
    page.get_by_role("tab", name="Charts").click()
    page.locator("canvas").first.wait_for()
    picture = tmp_path / f"{name}.png"
    page.screenshot(path=picture)
    assert picture.stat().st_size > 20_000


def test_a_training_runs_its_curve_grows_and_stop_ends_it(opened, live):
    page = opened()
    open_run(page, "live")
    chart = page.get_by_role("article", name="train/loss", exact=True)
    plot = chart.get_by_role("img")
    plot.locator("canvas").wait_for()
    step = "plot => Number(/at step ([\\d,]+)/.exec(plot.ariaLabel)[1].replaceAll(',', ''))"
    first = plot.evaluate(step)
    page.wait_for_function(f"([plot, first]) => ({step})(plot) > first + 20", arg=[plot.element_handle(), first])
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Stop", exact=True).click()
    answer = page.locator(".answer.good")
    answer.wait_for()
    assert "applied at step" in answer.inner_text()
    page.locator(".run-title .state.stopped").wait_for()
    out, _ = live.communicate(timeout=30)
    assert "ended: stopped" in out
    assert live.returncode == 0
    page.get_by_role("tab", name="History").click()
    assert page.get_by_role("region", name="What was asked of this training").get_by_text("applied").is_visible()
    assert page.get_by_role("button", name="Stop", exact=True).get_attribute("aria-disabled") == "true"
