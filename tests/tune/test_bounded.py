"""Calls that hang or fail cost a bounded wait."""

import threading

import pytest

from epochal.tune.bounded import Bounded


def fail():
    raise OSError("no such storage")


@pytest.mark.parametrize("timeout", [5.0, None])
def test_an_answer_comes_back_and_an_error_is_kept(timeout):
    calls = Bounded(timeout)
    assert calls.ask(lambda: 42) == 42
    assert calls.ask(fail) is None
    assert isinstance(calls.error, OSError)
    assert (calls.asked, calls.unanswered) == (2, 1)


def test_calls_are_made_on_another_thread_unless_the_caller_waits_for_ever():
    assert Bounded(5.0).ask(threading.get_ident) != threading.get_ident()
    assert Bounded(None).ask(threading.get_ident) == threading.get_ident()


def test_of_a_hundred_failing_calls_seven_are_made():
    calls, made = Bounded(5.0), []

    def count():
        made.append(calls.asked)
        fail()

    for _ in range(100):
        calls.ask(count)
    assert made == [1, 2, 4, 8, 16, 32, 64]
    assert calls.unanswered == 100


def test_a_success_begins_anew():
    calls = Bounded(5.0)
    calls.ask(fail)
    calls.ask(lambda: 1)
    calls.ask(fail)
    assert calls.ask(lambda: 2) == 2  # one failure in a row leaves nothing out


def test_a_call_that_hangs_is_left_to_itself_and_no_other_is_made_meanwhile():
    calls, release = Bounded(0.05), threading.Event()
    assert calls.ask(release.wait) is None
    assert "no answer within 0.05 seconds" in str(calls.error)
    assert calls.ask(lambda: pytest.fail("asked while another call hangs")) is None
    assert "still hangs" in str(calls.error)
    release.set()
    calls.thread.join()
    assert calls.ask(lambda: 1) is None  # left out
    assert calls.ask(lambda: 1) == 1


def test_what_ends_the_program_is_no_failure():
    def leave():
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        Bounded(5.0).ask(leave)
