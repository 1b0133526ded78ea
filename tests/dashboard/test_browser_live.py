"""The page over a training that is steered, a server that goes and comes back, and a run that was resumed."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.dashboard.browser import a_page, nameless, open_run, served, training

pytest.importorskip("playwright")
pytest.importorskip("torch")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

STEP = (
    "() => Number(/step ([\\d,]+)/.exec(document.querySelector('.progress-text').textContent)[1].replaceAll(',', ''))"
)


@pytest.fixture(scope="module")
def live(place: Path) -> Iterator[subprocess.Popen[str]]:
    """A training of its own process."""
    arguments = ("--rich", "--epochs", "10000", "--batches", "30", "--pause", "0.02", "--patience", "9999")
    with training(place, "live", *arguments) as process:
        yield process


@pytest.fixture(scope="module")
def page(place: Path, live: Any, resumed: Any, browser: Any) -> Iterator[Any]:
    """The page, open at the live training, for all tests that steer it."""
    with served(place) as link, a_page(browser, link) as found:
        open_run(found, "live")
        found.locator("canvas").first.wait_for()
        yield found


@pytest.fixture(scope="module")
def resumed(place: Path, live: Any) -> None:
    """A run that failed in its third epoch, and was resumed from a checkpoint of before; made while ``live`` begins."""
    from tests.dashboard.training import train

    arguments = ("resumed", "--dir", str(place), "--rich", "--epochs", "4", "--batches", "15")
    with pytest.raises(RuntimeError, match="failed as asked"):
        train(*arguments, "--fail-at", "40")
    train(*arguments, "--resume")


def press(page: Any, label: str, **fields: str) -> str:
    """Press a control's button, fill its dialog in, and return the training's answer."""
    before = page.locator(".answer button").count()
    page.get_by_role("toolbar", name="Steer the training").get_by_role("button", name=label, exact=True).click()
    box = page.get_by_role("dialog")
    for name, value in fields.items():
        box.get_by_label(name).first.fill(value)
    if fields:
        box.locator("footer button").last.click()
    page.wait_for_function("count => document.querySelectorAll('.answer button').length > count", arg=before)
    answer = page.locator(".answer").first
    text = answer.locator("span").inner_text()
    while page.locator(".answer button").count():
        page.locator(".answer button").first.click()
    return text


def test_a_pause_holds_the_training_and_continue_lets_it_go_on(page):
    assert press(page, "Pause").startswith("pause: applied at step")
    page.locator(".run-title .state.paused").wait_for()
    first = page.evaluate(STEP)
    page.wait_for_timeout(400)
    assert page.evaluate(STEP) == first
    assert press(page, "Continue").startswith("continue: applied at step")
    page.locator(".run-title .state.running").wait_for()
    page.wait_for_function(f"first => ({STEP})() > first + 3", arg=first)


def test_a_rate_that_is_set_is_answered_drawn_and_written_down(page):
    assert "0.00625" in press(page, "Set the learning rate", value="0.00625")
    page.get_by_role("tab", name="History").click()
    asked = page.get_by_role("region", name="What was asked of this training").get_by_role("row")
    asked.nth(1).get_by_text("value 0.00625").wait_for()
    assert asked.nth(1).get_by_text("applied").is_visible()
    page.get_by_role("region", name="What happened").get_by_text("rate", exact=True).first.wait_for()
    page.get_by_role("tab", name="Charts").click()


def test_a_validation_that_is_asked_for_is_answered_with_what_it_measured(page):
    assert re.search(r"validate: applied at step [\d,]+ · .*val/accuracy [01]", press(page, "Validate now"))


def test_what_the_training_refuses_is_shown_with_its_reason(page):
    answer = press(page, "Scale the learning rate", factor="0.5", group="no such group")
    assert answer.startswith("scale lr: refused")
    assert "no such group" in answer


def test_what_cannot_be_is_said_before_it_is_asked(page):
    page.get_by_role("button", name="Scale the learning rate").click()
    box = page.get_by_role("dialog")
    box.get_by_label("factor").first.fill("-1")
    box.locator("footer button").last.click()
    assert box.get_by_role("alert").first.inner_text()
    box.get_by_role("button", name="Cancel").click()
    assert page.locator(".answer").count() == 0


def test_the_console_has_the_colours_that_were_printed(page):
    page.get_by_role("tab", name="Console").click()
    coloured = page.get_by_role("log").locator(".fg-c2").first
    coloured.wait_for()
    assert re.fullmatch(r"[01]\.\d{3}", coloured.inner_text())
    line = coloured.locator("xpath=..").inner_text()
    assert re.fullmatch(r"epoch \d+/10000  accuracy [01]\.\d{3}", line)
    page.get_by_role("tab", name="Charts").click()


def test_an_image_has_its_boxes_and_masks_true_and_predicted_apart(page):
    page.get_by_role("tab", name="Media").click()
    picture = page.locator("figure", has=page.get_by_text("shapes", exact=True))
    picture.locator(".boxes rect").first.wait_for()
    assert picture.locator(".truth rect").count() == 3
    masks = picture.locator(".masks canvas.truth")
    assert masks.count() == 3
    painted = "one => one.getContext('2d').getImageData(0, 0, one.width, one.height).data.filter((v, at) => at % 4 === 3 && v).length"
    assert [masks.nth(at).evaluate(painted) > 300 for at in range(3)] == [True] * 3
    assert masks.first.evaluate("one => [one.width, one.height]") == [160, 160]
    page.get_by_role("button", name="True boxes").click()
    assert not masks.first.is_visible()
    page.get_by_role("button", name="True boxes").click()
    page.get_by_role("slider", name="Least score of a box").fill("0")
    assert picture.locator(".predicted rect").count() == 3
    page.get_by_role("slider", name="Least score of a box").fill("1")
    assert picture.locator(".predicted rect").count() == 0
    page.get_by_role("tab", name="Charts").click()


def test_every_control_is_reached_with_tab_and_can_be_seen_there(page):
    """WCAG 2.1.1 and 2.4.7: all that a mouse can press, the keyboard reaches, and one sees where one is."""
    page.get_by_role("heading", name="live", level=1).focus()
    page.evaluate("window.scrollTo(0, 0); document.activeElement.blur()")
    seen = page.evaluate(
        """() => { window.walked = new Set(); window.unseen = [];
            return [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex]")].filter(
            (one) => one.tabIndex >= 0 && !one.disabled && one.checkVisibility()).length }"""
    )
    for _ in range(seen + 12):
        page.keyboard.press("Tab")
        again = page.evaluate(
            """() => { const one = document.activeElement; const style = getComputedStyle(one);
            if (one !== document.body && (style.outlineStyle === "none" || style.outlineWidth === "0px")) window.unseen.push(one.outerHTML.slice(0, 120));
            const before = window.walked.has(one); window.walked.add(one); return before; }"""
        )
        if again:
            break
    missed = page.evaluate(
        """() => [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex]")].filter(
            (one) => one.tabIndex >= 0 && !one.disabled && one.checkVisibility() && !window.walked.has(one)).map((one) => one.outerHTML.slice(0, 120))"""
    )
    assert seen > 20
    assert (missed, page.evaluate("window.unseen"), nameless(page)) == ([], [], [])


def test_nothing_moves_by_itself_for_who_wants_less_of_it(page):
    assert page.evaluate("matchMedia('(prefers-reduced-motion: reduce)').matches")
    moving = "document.getAnimations().map((one) => one.effect.target.outerHTML)"
    page.get_by_role("button", name="Save now").click()
    assert page.evaluate(moving) == []
    page.locator(".answer.good").wait_for()
    assert page.evaluate(moving) == []


def test_what_an_earlier_attempt_measured_stays_visible(page):
    page.get_by_role("link", name="All runs").click()
    open_run(page, "resumed")
    assert "session 2" in page.locator(".progress-text").inner_text()
    chart = page.get_by_role("article", name="train/loss", exact=True)
    chart.locator("canvas").wait_for()
    assert "attempt 1, repeated since" in chart.locator(".label").all_inner_texts()
    page.get_by_role("link", name="All runs").click()


def test_a_server_that_goes_and_comes_back_is_told_and_nothing_is_missed(place, live, browser):
    with served(place) as link:
        port = urlsplit(link).port
        context = a_page(browser, link, tolerate="ERR_|Failed to load|status of|net::")
        page = context.__enter__()
        open_run(page, "live")
        page.locator("canvas").first.wait_for()
        page.get_by_text("live", exact=True).first.wait_for()
    try:
        page.get_by_text("server away").wait_for()
        first = page.evaluate(STEP)
        with served(place, port=port):
            page.locator("header .live:not(.away)").wait_for()
            page.wait_for_function(f"first => ({STEP})() > first", arg=first)
            assert "live" in page.locator("header .live").inner_text()
    finally:
        context.__exit__(None, None, None)
