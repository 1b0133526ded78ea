"""One list of scenarios over every trainer; what all can deliver comes in the same order, with the same numbers."""

from contextlib import nullcontext
from importlib import import_module, util
from typing import NamedTuple

import pytest

from epochal.testing import check_integration
from epochal.testing.scenarios import SCENARIOS
from tests import triton_first


class Trainer(NamedTuple):
    """A trainer of tests/trainers: its integration, the packages it needs, and the scenarios that it cannot play."""

    home: str
    packages: tuple[str, ...] = ()
    leaves_out: frozenset[str] = frozenset()


TRAINERS = {
    "loop": Trainer("pytorch_run", ("torch",)),
    "yolo": Trainer("ultralytics", ("ultralytics", "sklearn"), frozenset({"mid_epoch_validation"})),
    "keras": Trainer("keras", ("keras", "tensorflow"), frozenset({"the_outputs", "mid_epoch_validation"})),
    "lightning": Trainer("lightning", ("lightning",)),
    "transformers": Trainer("transformers", ("transformers", "accelerate")),
    "fitter": Trainer(
        "tests.contract.outside",
        (),
        frozenset({"the_outputs", "mid_epoch_validation", "accumulation", "stop_in_a_group", "validate"}),
    ),
}
# Comes also where the trainer writes files of its own; before the training; with or without anybody asking.
OF_THE_TRAINER = {"on_model_save", "on_pretrain_routine_start", "on_pretrain_routine_end"}


@pytest.fixture(scope="module")
def conformance(tmp_path_factory, offline_ultralytics):
    """Return a function that plays all scenarios on a trainer, once, and gives their outcomes."""
    triton_first.install()
    played = {}

    def play(name):
        if name not in played:
            trainer = TRAINERS[name]
            absent = [one for one in (*trainer.packages, f"tests.trainers.{name}") if util.find_spec(one) is None]
            if absent:
                pytest.skip(f"{name}: {', '.join(absent)} is not here")
            played[name] = None
            home = import_module(f"tests.trainers.{name}")
            with getattr(home, "preloaded", nullcontext)(tmp_path_factory.mktemp("first")):
                played[name] = check_integration(home.make(tmp_path_factory.mktemp(name)))
        if played[name] is None:
            pytest.skip(f"{name} does not keep the contract")
        return played[name]

    return play


def provided(name):
    """Return the events that a trainer delivers."""
    home = TRAINERS[name].home
    return import_module(home if "." in home else f"epochal.integrations.{home}").PROVIDES


def story(seen, events):
    """Return what was seen of some events, without validations outside an epoch, which only some trainers make."""
    told, inside = [], False
    for one in seen:
        inside = one.event == "on_train_epoch_start" or (
            inside and one.event not in ("on_fit_epoch_end", "on_train_end")
        )
        if one.event in events and (inside or not one.event.startswith("on_val")):
            told.append(tuple(one))
    return told


@pytest.mark.timeout(590)
@pytest.mark.parametrize("name", TRAINERS)
def test_every_trainer_keeps_the_contract(conformance, name):
    outcomes = conformance(name)
    assert {scenario for scenario, one in outcomes.items() if one.skipped} == TRAINERS[name].leaves_out


@pytest.mark.parametrize("name", [name for name in TRAINERS if name != "loop"])
def test_every_trainer_tells_the_same_story(conformance, name):
    ours, theirs = conformance("loop"), conformance(name)
    events = (provided("loop") & provided(name)) - OF_THE_TRAINER
    for scenario in ours:
        if not theirs[scenario].skipped:
            told = story(theirs[scenario].seen, events)
            assert told, scenario
            assert told == story(ours[scenario].seen, events), scenario


def test_the_page_tells_every_scenario():
    from tools.house import ROOT

    page = (ROOT / "docs/integrations.md").read_text()
    assert [one.name for one in SCENARIOS if f"`{one.name}`" not in page] == []
