"""``compat=`` decides as the library does: recorded decisions, and the libraries' own classes put through anything."""

import importlib.util
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.oracle_agreement import CASES, main, read
from tests.presets import peers

RECORDED = Path(__file__).parent.parent / "data" / "presets"

ODD = [math.nan, math.inf, -math.inf]
NEAR = [1.0, 1.0 + 1e-9, 1.0 - 1e-9, 0.9, 0.90001, 0.0, -0.1]  # ties, and what float32 makes one
value = st.one_of(st.sampled_from([0.5, 0.4, 0.25, *NEAR, *ODD]), st.floats(-3, 3).map(lambda one: round(one, 4)))
values = st.lists(value, min_size=1, max_size=12)
with_gaps = st.lists(st.one_of(value, st.none()), min_size=1, max_size=12)
mode = st.sampled_from(["min", "max"])
deltas = st.sampled_from([0.0, 0.001, 0.01, 0.1])
level = st.sampled_from([None, 0.0, 0.5, 0.9, 1.0])


def cases(seq, **opts):
    """Yield cases as they are recorded."""
    return st.fixed_dictionaries({"seq": seq, "opts": st.fixed_dictionaries(opts)})


def agree(name, case):
    """Ours decides what theirs has decided."""
    compared = CASES[name](case)
    assert compared.ours == compared.theirs, case


few = settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", CASES)
def test_it_repeats_what_was_recorded(name):
    for case in read(RECORDED / f"{name}.jsonl"):
        agree(name, case)


def test_a_folder_without_cases_is_no_agreement(tmp_path):
    assert main(tmp_path) == 1


@few
@given(
    cases(
        values, mode=mode, patience=st.integers(0, 3), threshold=st.sampled_from([0, 1e-4, 0.01, 0.1, -0.01]),
        threshold_mode=st.sampled_from(["rel", "abs"]), factor=st.sampled_from([0.1, 0.5, 0.9]),
        cooldown=st.integers(0, 3), min_lr=st.sampled_from([0, 0.01, [0.01, 0.001]]),
        eps=st.sampled_from([1e-8, 0.001]),
    )
)  # fmt: skip
def test_reduce_lr_cuts_as_torch_does(case):
    pytest.importorskip("torch")
    case["lr0"] = [0.1, 0.02]
    agree("torch_reduce_lr_on_plateau", {**case, "dec": peers.torch_reduce_lr_on_plateau(case)})


@few
@given(cases(with_gaps, patience=st.sampled_from([0, 1, 2, 4, None]), save_period=st.sampled_from([-1, 1, 3])))
def test_early_stopping_and_checkpoint_decide_as_ultralytics_does(case):
    pytest.importorskip("ultralytics")
    agree("ultralytics_early_stopping", {**case, "dec": peers.ultralytics_early_stopping(case)})


@few
@given(
    cases(
        with_gaps, mode=mode, patience=st.integers(0, 3), min_delta=st.sampled_from([0.0, 0.001, 0.1, -0.01]),
        check_finite=st.booleans(), stopping_threshold=st.sampled_from([None, 0.3, 0.9]),
        divergence_threshold=st.sampled_from([None, -0.5, 2.5]),
    )
)  # fmt: skip
def test_early_stopping_decides_as_lightning_does(case):
    pytest.importorskip("lightning")
    agree("lightning_early_stopping", {**case, "dec": peers.lightning_early_stopping(case)})


@settings(few, max_examples=3)
@given(
    st.lists(
        cases(
            st.lists(value, min_size=9, max_size=9), mode=mode, save_top_k=st.sampled_from([-1, 0, 1, 2, 3]),
            save_last=st.sampled_from([None, True]), every_n_epochs=st.sampled_from([None, 2, 3]),
            monitor=st.just("m"),
        ),
        min_size=12, max_size=12,
    )
)  # fmt: skip
def test_checkpoint_saves_and_keeps_as_lightning_does(many):
    pytest.importorskip("lightning")
    for case in many[:3]:  # without a metric it takes none of the others
        if case["opts"]["save_top_k"] < 2:
            case["opts"]["monitor"] = None
    for case, decided in zip(many, peers.lightning_model_checkpoints(many), strict=True):
        agree("lightning_model_checkpoint", {**case, "dec": decided})


@settings(few, max_examples=5)
@given(
    cases(
        values, greater_is_better=st.booleans(), early_stopping_patience=st.integers(1, 3),
        early_stopping_threshold=deltas, save_strategy=st.sampled_from(["epoch", "best"]),
        save_total_limit=st.sampled_from([None, 1, 2, 3]), load_best_model_at_end=st.booleans(),
    )
)  # fmt: skip
def test_early_stopping_and_checkpoint_decide_as_transformers_does(case):
    pytest.importorskip("transformers")
    agree("hf_early_stopping", {**case, "dec": peers.hf_early_stopping(case)})


@pytest.fixture(scope="module")
def keras():
    """Keras in a process of its own, where TensorFlow may be."""
    if importlib.util.find_spec("keras") is None:
        pytest.skip("could not import 'keras'")
    with peers.beside() as ask:
        yield ask


@few
@given(
    cases(
        with_gaps, mode=mode, patience=st.integers(0, 3), min_delta=st.sampled_from([0.0, 0.001, 0.1, -0.01]),
        baseline=level, restore_best_weights=st.booleans(), start_from_epoch=st.sampled_from([0, 1, 3]),
    )
)  # fmt: skip
def test_early_stopping_decides_as_keras_does(keras, case):
    agree("keras_early_stopping", {**case, "dec": keras("keras_early_stopping", case)})


@few
@given(
    cases(
        with_gaps, mode=mode, patience=st.integers(0, 3), min_delta=st.sampled_from([0, 1e-4, 0.1, -0.1]),
        factor=st.sampled_from([0.1, 0.2, 0.5, 0.9]), cooldown=st.integers(0, 3),
        min_lr=st.sampled_from([0, 0.001, 0.05]),
    )
)  # fmt: skip
def test_reduce_lr_cuts_as_keras_does(keras, case):
    case["lr0"] = 0.1
    agree("keras_reduce_lr_on_plateau", {**case, "dec": keras("keras_reduce_lr_on_plateau", case)})


@settings(few, max_examples=12)
@given(
    cases(with_gaps, mode=mode, save_best_only=st.booleans(), initial_value_threshold=level),
    st.sampled_from(["ck.weights.h5", "ck-{epoch:02d}.weights.h5"]),
)
def test_checkpoint_saves_as_keras_does(keras, case, template):
    case["template"] = template
    agree("keras_model_checkpoint", {**case, "dec": keras("keras_model_checkpoint", case)})
