"""What importing costs: nothing that a training framework or numpy brings."""

import subprocess
import sys

HEAVY = ("numpy", "torch", "keras", "tensorflow", "rich", "typer", "ultralytics", "mlflow", "tensorboard")
REPORT = f"import sys, threading; print([m for m in {HEAVY} if m in sys.modules], threading.active_count())"


def loaded_by(statement: str) -> str:
    command = [sys.executable, "-c", f"{statement}; {REPORT}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_epochal_loads_nothing_heavy_and_starts_no_thread():
    assert loaded_by("import epochal") == "[] 1"


def test_the_contracts_usual_names_load_nothing_heavy():
    assert loaded_by("from epochal import Callback, Loop, attach, EarlyStopping, Checkpoint") == "[] 1"


def test_every_name_behind_the_door_is_there():
    loaded_by(
        "import epochal; [getattr(epochal, name) for name in epochal.__all__]; assert set(epochal.__all__) <= set(dir(epochal))"
    )
