"""The command line: what it prints is true, and a mistake is one line and exit status 2, never a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from epochal.checkpointing.store import CheckpointStore
from epochal.core.events import EVENTS


def epochal(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in the current folder, without a terminal, 200 columns wide."""
    return subprocess.run(
        [sys.executable, "-m", "epochal", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
    )


@pytest.fixture
def two_checkpoints(tmp_path: Path) -> Path:
    """A run `runs/mnist` with two checkpoints."""
    run = tmp_path / "runs" / "mnist"
    store = CheckpointStore(run / "checkpoints")
    for epoch, fitness in enumerate([0.5, 0.75]):
        store.save(
            {"run": {"big": "x" * 1000}},
            epoch=epoch,
            step=10 * (epoch + 1),
            reason="Best(fitness)",
            metrics={"val/loss": 0.25},
            fitness=fitness,
            pinned=True,
        )
    (run / "run.json").write_text("{}")
    return run


def test_events_prints_every_event_and_the_grammar():
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


@pytest.mark.parametrize("how", ["path", "name", "latest"])
def test_checkpoints_are_listed_by_path_by_name_and_as_latest(two_checkpoints, how):
    done = epochal("checkpoints", {"path": str(two_checkpoints), "name": "mnist", "latest": "latest"}[how])
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line.strip().startswith("epoch-")]
    names = ["epoch-0000-step-000010", "epoch-0001-step-000020"]
    assert [row[0] for row in rows] == [*names, *(f"{name}:" for name in names)]
    assert "0.75" in rows[1]
    assert "Best(fitness)" in rows[2]


def test_a_run_is_found_by_the_name_in_its_mark(two_checkpoints):
    (two_checkpoints / "run.json").write_text('{"name": "digits"}')
    done = epochal("checkpoints", "digits")
    assert done.returncode == 0, done.stderr


def test_verify_names_the_damaged_one_and_fails(two_checkpoints):
    assert epochal("checkpoints", "mnist", "--verify").returncode == 0
    victim = next((two_checkpoints / "checkpoints").glob("epoch-0001*/state.json"))
    content = bytearray(victim.read_bytes())
    content[100] ^= 1
    victim.write_bytes(content)
    assert epochal("checkpoints", "mnist").returncode == 0  # a listing does not read the files
    done = epochal("checkpoints", "mnist", "--verify")
    assert done.returncode == 2
    assert "epoch-0001-step-000020: " in done.stderr
    assert "verified" in done.stdout
    assert "damaged" in done.stdout


def test_listing_changes_nothing(two_checkpoints):
    def tree():
        return {path: path.stat().st_mtime_ns for path in two_checkpoints.rglob("*")}

    before = tree()
    epochal("checkpoints", "mnist", "--verify")
    assert tree() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["checkpoints", "mnits"], "did you mean mnist?"),
        (["checkpoints", "runs"], "runs holds no committed checkpoint"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(two_checkpoints, arguments, said):
    done = epochal(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize("arguments", [["evnts"], ["demo", "--task", "pose"], ["checkpoints"]])
def test_wrong_usage_is_status_2_without_a_traceback(arguments):
    done = epochal(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr + done.stdout
