"""The command line: what it prints is true, and a mistake is one line and exit status 2, never a traceback."""

import subprocess
import sys

import pytest

from epochal.core.events import EVENTS


def test_events_prints_every_event_and_the_grammar(epochal):
    done = epochal("events")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[: len(EVENTS)]] == [event.name for event in EVENTS]
    assert "step       := optimizer_step on_before_zero_grad" in lines


def test_doctor_tells_versions_and_imports_nothing_heavy():
    script = (
        "import sys; sys.argv=['epochal', 'doctor']\nfrom epochal.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'numpy', 'ultralytics', 'mlflow'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Python" in done.stdout
    assert "rich" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["checkpoints", "mnits"], "did you mean mnist?"),
        (["checkpoints", "runs"], "runs holds no committed checkpoint"),
        (["export", "mnist", "--to", "pt", "--which", "epoch-0001-step-20"], "did you mean epoch-0001-step-000020?"),
        (["resume", "mnist"], "no command is recorded for this run"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(two_checkpoints, epochal, arguments, said):
    done = epochal(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize("arguments", [["evnts"], ["demo", "--task", "pose"], ["checkpoints"], ["export", "mnist"]])
def test_wrong_usage_is_status_2_without_a_traceback(epochal, arguments):
    done = epochal(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr + done.stdout
