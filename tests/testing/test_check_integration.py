"""``check_integration`` finds what is wrong in somebody's integration, and says what it is."""

from pathlib import Path

import pytest

from epochal.testing import check_integration
from tests.trainers.fitter import make

OUTSIDE = (Path(__file__).parents[1] / "contract" / "outside.py").read_text()
LOG = 'self.engine.log({"train/loss": loss})'
VALIDATED = 'self.engine.log({"val/loss": loss})'


def behind(log: str, end: str) -> tuple[str, str]:
    """A value is logged when it is too late."""
    return f"{log}\n        {end}\n", f"{end}\n        {log}\n"


WRONG = {
    "a loss behind its batch": (behind(LOG, "self.engine.batch_end()"), "it is logged before engine.batch_end()"),
    "a loss behind its validation": (
        behind(VALIDATED, "self.engine.val_end()"),
        r"before engine.val_end\(\): \[\(None, 0\), \(0, 1\)\]",
    ),
    "no validation loss": ((VALIDATED, "pass"), r"val/loss at on_fit_epoch_end: \[\(None, 0\)"),
    "rates that nobody uses": (
        ('own, self.fitter.rate = self.fitter.rate, self.run.lr["pg0"]', "own = self.fitter.rate"),
        "does not use those of run.lr",
    ),
    "a cut that nobody tells": (("self.fitter.stop, self.engine.epoch_cut = True,", "self.fitter.stop, _ = True,"), "epoch_cut"),
    "steps that nobody tells": (("self.engine.stepped()", "pass"), "run.step is 0"),
    "stops in a batch": (("if self.engine.stop_now():", "if False:"), "batches done: 4, expected 2"),
    "weights that stay": (('self.fitter.slope = saved.load("model")["slope"]', "pass"), "train/loss of every epoch"),
    "nobody attached": ((".put(callbacks)", ".put([])"), "no event came"),
    "no run": (("def bind(", "def bind(*args, **options):\n    attached(*args, **options)\n\n\ndef attached("), "returned None"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_in_an_integration_is_found_and_told(name, tmp_path, monkeypatch):
    (right, wrong), said = WRONG[name]
    assert right in OUTSIDE
    changed: dict = {}
    exec(compile(OUTSIDE.replace(right, wrong), name, "exec"), changed)
    monkeypatch.setattr("tests.contract.outside.bind", changed["bind"])
    with pytest.raises(AssertionError, match=said):
        check_integration(make(tmp_path))


def test_a_trainer_without_a_loss_of_its_batches_is_no_mistake(tmp_path, monkeypatch):
    changed: dict = {}
    exec(compile(OUTSIDE.replace(LOG, "pass"), "no train/loss", "exec"), changed)
    monkeypatch.setattr("tests.contract.outside.bind", changed["bind"])
    assert not check_integration(make(tmp_path))["the_mean_of_an_epoch"].skipped
