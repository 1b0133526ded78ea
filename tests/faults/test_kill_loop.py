"""kill -9 of a plain loop at any moment: resumed, it ends with the weights of one that nobody disturbed."""

import json
import os

import pytest

from tests import preloaded
from tools.house import ROOT

KILLS = 16


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_killed_at_random_moments_loops_end_with_the_same_weights():
    arguments = ["-m", "tests.faults.torture_loop", "--kills", str(KILLS), "--usual"]
    done = preloaded.run(arguments, cwd=ROOT, timeout=240)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["kills"] >= KILLS, report
    assert report["failed resumes"] == report["lost commits"] == 0, (report, done.stderr)
    assert report["weights identical"] == report["trainings"] > 0, (report, done.stderr)
