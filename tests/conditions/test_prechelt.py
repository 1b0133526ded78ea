"""Prechelt's rules against the formulas of the paper, written down for whole curves."""

from hypothesis import given
from hypothesis import strategies as st

from epochal.conditions.prechelt import GeneralizationLoss, ProgressQuotient, SuccessiveIncreases
from epochal.core.moment import Moment

# Multiples of 1/64 below 16: sums and minima are exact, whatever the order.
error = st.integers(1, 1000).map(lambda x: x / 64)
curve = st.lists(error, min_size=1, max_size=40)
pairs = st.lists(st.tuples(error, error), min_size=1, max_size=40)


def ask_all(condition, curves):
    return [condition.ask(Moment("epoch", epoch=e, settled=values)) for e, values in enumerate(curves)]


def gl(va, t):
    return 100 * (va[t] / min(va[: t + 1]) - 1)


@given(curve, st.sampled_from([0.0, 1.5, 20.5, 100.3]))
def test_gl_holds_where_the_formula_exceeds_alpha(va, alpha):
    answers = ask_all(GeneralizationLoss("val/loss", alpha=alpha), [{"val/loss": x} for x in va])
    for t, answer in enumerate(answers):
        if abs(gl(va, t) - alpha) > 1e-9 or alpha == 0:
            assert answer == (va[t] > min(va[: t + 1]) if alpha == 0 else gl(va, t) > alpha)


@given(pairs, st.sampled_from([0.051, 0.53, 2.07]), st.integers(1, 6))
def test_pq_holds_from_the_end_of_a_strip_where_the_quotient_exceeds_alpha(both, alpha, k):
    va, tr = [v for v, _ in both], [t for _, t in both]
    answers = ask_all(
        ProgressQuotient("val/loss", alpha=alpha, k=k), [{"val/loss": v, "train/loss": t} for v, t in both]
    )
    expected = False
    for t, answer in enumerate(answers):
        if (t + 1) % k == 0:
            strip = tr[t - k + 1 : t + 1]
            progress = 1000 * (sum(strip) / (k * min(strip)) - 1)
            above = va[t] > min(va[: t + 1])
            expected = above if progress < 1e-9 else gl(va, t) / progress > alpha
        assert answer == expected


def up(va, t, s, k):
    """UP_s stops after t if UP_(s-1) stops after t - k and the error has increased over the strip (t is 1-based)."""
    if s == 0:
        return True
    return t - k >= 1 and va[t - 1] > va[t - k - 1] and up(va, t - k, s - 1, k)


@given(curve, st.integers(1, 4), st.integers(1, 6))
def test_up_holds_from_the_end_of_a_strip_as_the_recursion_says(va, s, k):
    answers = ask_all(SuccessiveIncreases("val/loss", s=s, k=k), [{"val/loss": x} for x in va])
    for t, answer in enumerate(answers, 1):
        end = t - t % k
        assert answer == (end >= k and up(va, end, s, k))


def test_validation_may_settle_before_the_training_mean_of_its_epoch():
    curves = [(1.0, 1.0), (0.9, 0.99), (0.9, 0.98), (1.2, 0.979)]
    together = ask_all(
        ProgressQuotient("val/loss", alpha=1, k=2), [{"val/loss": v, "train/loss": t} for v, t in curves]
    )
    apart = ProgressQuotient("val/loss", alpha=1, k=2)
    answers = []
    for epoch, (validation, training) in enumerate(curves):
        apart.ask(Moment("validation", epoch=epoch, settled={"val/loss": validation}))
        answers.append(apart.ask(Moment("epoch", epoch=epoch, settled={"train/loss": training})))
    assert answers == together == [False, False, False, True]


def test_each_of_the_two_metrics_is_missed_by_name():
    rule = ProgressQuotient("val/loss", alpha=1)
    rule.ask(Moment("epoch", epoch=0, settled={"val/loss": 1.0}))
    assert rule.missing() == {"train/loss"}
    assert not rule.known
    assert rule.settles == {"val/loss", "train/loss"}


def test_nan_is_infinitely_bad_and_zero_and_negative_errors_divide_nothing_by_zero():
    nan, inf = float("nan"), float("inf")
    assert ask_all(GeneralizationLoss("m", alpha=5), [{"m": x} for x in [nan, 1.0, nan, 1.0]]) == [
        False,
        False,
        True,
        False,
    ]
    assert ask_all(GeneralizationLoss("m", alpha=5), [{"m": x} for x in [0.0, 0.0, 1e-9]]) == [False, False, True]
    assert ask_all(GeneralizationLoss("m", alpha=5), [{"m": x} for x in [-10.0, -9.6, -9.4]]) == [False, False, True]
    assert ask_all(SuccessiveIncreases("m", s=1, k=1), [{"m": x} for x in [1.0, nan, inf, 2.0]]) == [
        False,
        True,
        False,
        False,
    ]
