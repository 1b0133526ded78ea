"""What "better" means, in which direction, and what arguments are refused."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochal.conditions.best import Best
from epochal.conditions.better import Improvement, Track, infer_mode
from epochal.conditions.level import Diverged, NonFinite, Target
from epochal.conditions.plateau import Plateau
from epochal.conditions.prechelt import GeneralizationLoss, ProgressQuotient, SuccessiveIncreases
from epochal.conditions.schedule import Elapsed, Every
from epochal.core.errors import ArgumentError

MIN = "loss val_loss val/loss eval_loss train/box_loss valLoss BCELoss dice_loss mAP_loss val/error error_rate nll_test perplexity mae MSE rmse wer fid FID50k/fid loss2"
MAX = "fitness val/acc val/accuracy top1_acc accuracy_top5 metrics/mAP50(B) metrics/mAP50-95(B) map precision recall@10 f1 valF1 f1_macro roc_auc mIoU meanIoU val/iou dice bleu4 rouge1 rougeL r2 score reward loss_score valAccuracy R2"


@pytest.mark.parametrize("name", MIN.split())
def test_names_of_errors_are_minimised(name):
    assert infer_mode(name) == "min"


@pytest.mark.parametrize("name", MAX.split())
def test_names_of_scores_are_maximised(name):
    assert infer_mode(name) == "max"


@pytest.mark.parametrize(
    "name", ["lossless", "val/x", "glossy", "mapping", "accent", "time", "12", "lr/0", "microscore_"[:-6]]
)
def test_a_name_that_tells_nothing_asks_for_the_mode(name):
    with pytest.raises(ArgumentError, match="mode="):
        infer_mode(name)
    with pytest.raises(ArgumentError, match=r"Plateau.*mode="):
        Plateau(name, patience=1)
    assert infer_mode(name, "max") == "max"


def test_a_given_mode_wins_over_the_name_and_a_wrong_one_is_refused():
    assert infer_mode("val/loss", "max") == "max"
    with pytest.raises(ArgumentError, match="'auto'"):
        Best("val/loss", mode="auto")  # type: ignore[arg-type]


NAN = math.nan
REFUSED = [
    lambda: Plateau(5, patience=3),
    lambda: Plateau("", patience=3),
    lambda: Best(None),
    lambda: NonFinite("  "),
    lambda: Target(0.9, "fitness"),
    lambda: Diverged(["train/loss"], 3),
    lambda: Plateau("val/loss", patience=0),
    lambda: Plateau("val/loss", patience=True),
    lambda: Plateau("val/loss", patience=2.0),
    lambda: Plateau("val/loss", patience=2, min_delta=-1e-9),
    lambda: Plateau("val/loss", patience=2, min_delta=math.inf),
    lambda: Plateau("val/loss", patience=2, min_delta=NAN),
    lambda: Plateau("val/loss", patience=2, min_delta="0.1"),
    lambda: Plateau("val/loss", patience=2, baseline=NAN),
    lambda: Plateau("val/loss", patience=2, relative=1),
    lambda: Best("val/loss", min_delta=-1),
    lambda: Target("fitness", NAN),
    lambda: Target("fitness", "0.9"),
    lambda: Target("fitness", True),
    lambda: Diverged("train/loss", NAN),
    lambda: Every(),
    lambda: Every(steps=1, epochs=1),
    lambda: Every(steps=0),
    lambda: Every(batches=True),
    lambda: Every(epochs=1.5),
    lambda: Every(minutes=0),
    lambda: Every(minutes=NAN),
    lambda: Every(minutes=math.inf),
    lambda: Elapsed(),
    lambda: Elapsed(hours=0),
    lambda: Elapsed(hours=-1, minutes=90),
    lambda: Elapsed(seconds=NAN),
    lambda: GeneralizationLoss("val/loss", alpha=-1),
    lambda: GeneralizationLoss("fitness", alpha=1),
    lambda: ProgressQuotient("val/loss", alpha=1, k=0),
    lambda: ProgressQuotient("val/loss", alpha=1, train=""),
    lambda: SuccessiveIncreases("val/loss", s=0),
    lambda: SuccessiveIncreases("val/acc", s=1),
    lambda: NonFinite("x").after(epochs=0),
    lambda: NonFinite("x").after(epochs=True),
]


@pytest.mark.parametrize("build", REFUSED)
def test_an_argument_that_cannot_work_is_refused_at_construction(build):
    with pytest.raises(ArgumentError):
        build()


values = st.floats(allow_nan=True, allow_infinity=True)


@given(st.lists(values), st.sampled_from(["min", "max"]))
def test_the_best_without_delta_is_the_builtin_extreme_and_the_first_of_equals(seq, mode):
    rule, track = Improvement(mode=mode), Track()
    for epoch, value in enumerate(seq):
        rule.check(track, value, epoch)
    worst = math.inf if mode == "min" else -math.inf
    real = [value for value in seq if not math.isnan(value) and value != worst]
    expected = (min if mode == "min" else max)(real) if real else None
    assert track.best == expected
    assert track.best_epoch == (seq.index(expected) if real else None)
    assert track.checks == len(seq)
    assert track.bad == (len(seq) if not real else len(seq) - 1 - seq.index(expected))


@given(values, st.floats(allow_nan=False), st.sampled_from(["min", "max"]), st.floats(0, 1e3), st.booleans())
def test_an_improvement_is_strictly_better_and_a_tie_or_nan_is_none(value, best, mode, delta, relative):
    rule = Improvement(mode=mode, min_delta=delta, relative=relative)
    if rule.improves(value, best):
        assert value < best if mode == "min" else value > best
    assert not rule.improves(best, best)
    assert not rule.improves(math.nan, best)


@given(values, values.filter(lambda x: x == x), st.floats(0, 1e3), st.booleans())
def test_min_and_max_are_mirror_images(value, best, delta, relative):
    low = Improvement(mode="min", min_delta=delta, relative=relative).improves(value, best)
    assert low == Improvement(mode="max", min_delta=delta, relative=relative).improves(-value, -best)


@pytest.mark.parametrize("best", [-1e308, -5.0, 0.0, 5.0, 1e308, math.inf])
def test_minus_infinity_beats_every_larger_best_under_min(best):
    for relative in (False, True):
        assert Improvement(mode="min", min_delta=10.0, relative=relative).improves(-math.inf, best)
