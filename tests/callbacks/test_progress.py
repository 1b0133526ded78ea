"""Progress shows lines where nothing can change in place, a bar where it can, and the summary at the end."""

import io
import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochal import EarlyStopping, Progress
from epochal.callbacks import screen
from epochal.callbacks.screen import Notebook, Plain, Terminal, choose
from epochal.callbacks.summary_view import BLOCKS, Curve, as_text, curves, draw, render, thinned
from epochal.core.callback import Callback
from epochal.core.errors import ArgumentError
from epochal.core.summary import Summary
from epochal.testing import simulate

NAN = float("nan")
EPOCHS = [{"train/loss": 1.0 / (n + 1), "val/loss": abs(n - 2) + 0.5, "val/acc": n / 10} for n in range(5)]


def test_plain_lines_can_be_parsed(capsys):
    simulate([Progress(summary=False)], EPOCHS, batches=3)
    rows = [dict(pair.split("=", 1) for pair in line.split()) for line in capsys.readouterr().out.splitlines()]
    assert [row["epoch"] for row in rows] == ["1/5", "2/5", "3/5", "4/5", "5/5"]
    assert [int(row["step"]) for row in rows] == [3, 6, 9, 12, 15]
    assert [float(row["val/loss"]) for row in rows] == [2.5, 1.5, 0.5, 1.5, 2.5]
    assert [row.get("best") for row in rows] == ["1", "1", "1", None, None]
    assert {row["lr"] for row in rows} == {"0.1"}


def test_plain_output_has_no_control_characters(capsys):
    simulate([Progress(callback_times=True)], EPOCHS)
    assert re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", capsys.readouterr().out) == []


def test_the_summary_tells_why_it_ended_the_best_what_failed_and_what_it_cost(capsys):
    class Broken(Callback):
        guarded = True

        def on_fit_epoch_end(self, run):
            raise OSError("no space")

    simulate([Progress(callback_times=True), EarlyStopping("val/loss", patience=2), Broken()], EPOCHS)
    text = capsys.readouterr().out
    assert "stopped      after 5 epochs, 5 steps" in text
    assert "why          EarlyStopping(val/loss): val/loss has not improved for 2 checks (best 0.5 in epoch 3)" in text
    assert "best         fitness -0.5 in epoch 3 (index 2)" in text
    assert "failed       Broken: 5 times" in text
    assert re.search(r"cost +EarlyStopping\(val/loss\): \d+ calls, [\d.]+ s, [\d.]+ us each", text)
    assert "2.5 -> 2.5, best 0.5 in epoch 3" in text


def test_a_failed_training_has_its_summary_too(capsys):
    class Fails(Callback):
        def on_fit_epoch_end(self, run):
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        simulate([Progress(), Fails()], EPOCHS)
    assert "exception    after" in capsys.readouterr().out


def test_the_bar_is_drawn_on_a_terminal_and_taken_away(monkeypatch):
    class Tty(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdout", out := Tty())
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("NO_COLOR", raising=False)
    simulate([Progress(per_second=1e9)], EPOCHS, batches=4)
    assert sys.stdout is out
    text = out.getvalue()
    assert "━━━━━─────────────── 1/4" in text
    assert "it/s" in text
    assert "train/loss" in text
    assert "fitness -0.5 *best*  train/loss 0.3333  val/loss 0.5  val/acc 0.2" in text
    assert "completed" in text


@pytest.mark.parametrize("module", ["ultralytics.engine", "keras.src.trainers"])
def test_where_the_trainer_draws_a_bar_there_are_lines_unless_asked_otherwise(module, monkeypatch):
    home = module.partition(".")[0]
    assert home in __import__("epochal.callbacks.progress", fromlist=["x"]).DRAW_THEIR_OWN
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert isinstance(choose(None, trainer_draws=True), Plain)
    assert isinstance(choose(True, trainer_draws=True), Terminal)
    assert isinstance(choose(None, trainer_draws=False), Terminal)
    assert isinstance(choose(False, trainer_draws=False), Plain)


def test_a_notebook_has_one_output_that_is_replaced(monkeypatch, capsys):
    shown = []

    class Handle:
        def update(self, data, raw):
            shown.append(data["text/plain"])

    def display(data, raw, display_id):
        shown.append(data["text/plain"])
        return Handle()

    class ZMQInteractiveShell:
        pass

    class IPython:
        @staticmethod
        def get_ipython():
            return ZMQInteractiveShell()

    module = type(sys)("IPython.display")
    module.display = display
    monkeypatch.setitem(sys.modules, "IPython", IPython)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    assert isinstance(choose(None, trainer_draws=False), Notebook)
    simulate([Progress(per_second=1e9)], EPOCHS[:1], batches=2)
    assert shown[0].startswith("epoch 1/1  ━━━━━━━━━━────────── 1/2")
    assert shown[-1] == ""
    assert "completed" in capsys.readouterr().out


def test_the_loss_is_not_read_in_every_batch():
    class Tensor:
        reads = 0
        device = None

        def detach(self):
            return self

        def numel(self):
            return 1

        def __float__(self):
            Tensor.reads += 1
            return 0.5

    class Logs(Callback):
        def on_train_batch_end(self, run):
            run.log({"train/loss": Tensor()})

    class Seen(Callback):
        def on_train_batch_end(self, run):
            self.reads = Tensor.reads

    def reads(*progress):
        seen, Tensor.reads = Seen(), 0
        simulate([Logs(), *progress, seen], [{}], batches=50)
        return seen.reads

    assert reads(Progress(live=True, per_second=1e-6)) <= reads() + 1  # when the bar was drawn first


def test_a_closed_terminal_does_not_end_the_training(monkeypatch, caplog):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    assert simulate([Progress()], EPOCHS).epochs_run == 5
    assert "Progress failed" in caplog.text


def test_other_ranks_show_nothing(capsys):
    class SecondRank(Callback):
        def on_pretrain_routine_start(self, run): ...

        def on_train_start(self, run):
            run.engine.rank = 1

    simulate([SecondRank(), Progress()], EPOCHS)
    assert capsys.readouterr().out == ""


def test_a_stream_that_knows_ascii_only_is_not_broken():
    code = "from epochal import Progress; from epochal.testing import simulate; simulate([Progress()], [{'val/loss': x} for x in (3, 2, 1)])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONIOENCODING": "ascii", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "val/loss     %+.  3 -> 1, best 1 in epoch 3" in done.stdout


@pytest.mark.parametrize("options", [{"live": "yes"}, {"per_second": 0}, {"per_second": NAN}])
def test_bad_arguments_are_refused_at_construction(options):
    with pytest.raises(ArgumentError):
        Progress(**options)


values = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))


@settings(deadline=None)
@given(st.lists(values, max_size=120), st.integers(2, 60), st.integers(1, 4))
def test_any_curve_can_be_drawn(curve, width, height):
    lines = draw(curve, width=width, height=height)
    assert len(lines) == height
    assert {len(line) for line in lines} == {min(len(curve), width)}
    assert set("".join(lines)) <= set(BLOCKS)
    known = [value for value in curve if value is not None]
    if known:
        assert f"{known[-1]:.4g}" in Curve("val/loss", tuple(curve)).caption()


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=2, max_size=40, unique=True))
def test_a_drawn_curve_rises_where_the_values_do(curve):
    (line,) = draw(curve, width=len(curve))
    levels = [BLOCKS.index(one) for one in line]
    assert levels[curve.index(max(curve))] == 8
    assert levels[curve.index(min(curve))] == 1
    order = sorted(range(len(curve)), key=curve.__getitem__)
    assert [levels[index] for index in order] == sorted(levels)


def test_a_long_curve_keeps_its_ends():
    assert thinned(list(range(1000)), 10)[0] == 0
    assert thinned(list(range(1000)), 10)[-1] == 999


def test_curves_are_the_losses_the_fitness_and_what_is_better_when_high():
    row = {
        "lr": 1.0,
        "train/box_loss": 1.0,
        "val/box_loss": 1.0,
        "val/cls_loss": 1.0,
        "metrics/mAP50(B)": 0.1,
        "fitness": 0.1,
    }
    assert [curve.name for curve in curves([row])] == ["train/box_loss", "val/box_loss", "fitness", "metrics/mAP50(B)"]
    assert curves([]) == []


def test_the_summary_of_nothing_can_be_shown():
    from rich.console import Console

    empty = Summary("run", None, 0, 0, 0.0, "exception", None, None, None, None, (), 0, 0, {}, (), {}, ())
    assert as_text(empty) == "exception    after 0 epochs, 0 steps, 0.0 s"
    console = Console(file=io.StringIO(), width=100)
    console.print(
        render(empty._replace(costs={"a": (2, 0.5)}, notes=("[bold]as it is",), checkpoints=2, checkpoint_errors=1))
    )
    text = console.file.getvalue()
    assert "[bold]as it is" in text
    assert "2, 1 could not be written" in text
    assert "250000.0" in text


def test_screens_are_chosen_without_importing_a_notebook():
    assert "IPython" not in vars(screen)
