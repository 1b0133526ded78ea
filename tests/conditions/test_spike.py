"""Spike judges as a plain reading of its rule does, value by value."""

import json
import math
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochal import Spike
from epochal.core.errors import ArgumentError
from epochal.core.moment import Moment

NAN, INF = float("nan"), float("inf")


def moment(*values):
    return Moment("batch", epoch=0, arrived={"train/loss": values})


def brute_force(values, window, factor, min_rise):
    """Look at every value with everything before it in hand."""
    answers = []
    for place, value in enumerate(values):
        recent = [one for one in values[:place] if math.isfinite(one)][-window:]
        if not math.isfinite(value):
            answers.append(True)
        elif len(recent) * 2 < window:
            answers.append(False)
        else:
            median = statistics.median(recent)
            sigma = 1.4826 * statistics.median(abs(one - median) for one in recent)
            answers.append(value - median > factor * sigma and value - median > min_rise * abs(median))
    return answers


numbers = st.one_of(st.integers(-64, 64).map(lambda n: n / 16), st.sampled_from([NAN, INF, -INF, 100.0, 1e6]))


@settings(max_examples=300, deadline=None)
@given(
    values=st.lists(numbers, max_size=60),
    window=st.integers(1, 12),
    factor=st.sampled_from([0.5, 2.0, 8.0]),
    min_rise=st.sampled_from([0.0, 0.5, 2.0]),
    cut=st.integers(0, 60),
)
def test_judges_as_the_rule_read_plainly_also_when_restarted_and_however_values_arrive(
    values, window, factor, min_rise, cut
):
    def make():
        return Spike("train/loss", window=window, factor=factor, min_rise=min_rise)

    expected = brute_force(values, window, factor, min_rise)
    first, second = make(), make()
    answers = [first.ask(moment(value)) for value in values[:cut]]
    second.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
    answers += [second.ask(moment(value)) for value in values[cut:]]
    assert answers == expected
    begun = sum(now and not before for before, now in zip([False, *expected], expected, strict=False))
    assert second.state.spikes == begun
    together = make()
    assert together.ask(moment(*values)) == any(expected)
    assert together.state.spikes == begun


def test_a_level_that_stays_is_no_spike_for_long():
    spike = Spike("train/loss", window=10)
    losses = [1.0, 1.1, 0.9, 1.0, 1.2, 0.8, 1.0, 1.1, 0.9, 1.0, *[5.0] * 20]
    answers = [spike.ask(moment(loss)) for loss in losses]
    assert answers == [*[False] * 10, *[True] * 5, *[False] * 15]
    assert spike.state.spikes == 1


def test_holds_only_at_moments_that_brought_a_spike_and_says_which():
    spike = Spike("train/loss", window=4)
    assert not spike.known
    for loss in (1.0, 1.0, 1.2, 1.0):
        assert not spike.ask(moment(loss))
    assert spike.known
    now = moment(9.5)
    assert spike.ask(now)
    assert spike.reason(now) == "train/loss 9.5 is far above its recent values (median 1, limit 1.5)"
    assert not spike.ask(moment())
    now = moment(NAN)
    assert spike.ask(now)
    assert spike.reason(now) == "train/loss is nan"


def test_what_cannot_work_is_said():
    for options, message in [
        ({"metric": ""}, "metric"),
        ({"window": 0}, "window must be a whole number of at least 1"),
        ({"factor": 0}, "factor must be a finite number above 0"),
        ({"min_rise": -1}, "min_rise must be a finite number of at least 0"),
    ]:
        with pytest.raises(ArgumentError, match=f"Spike: {message}"):
            Spike(**{"metric": "train/loss", **options})
    assert repr(Spike("train/loss", window=8)) == "Spike('train/loss', window=8)"
