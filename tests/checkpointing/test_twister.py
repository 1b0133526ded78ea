"""The states of the global generators are the true ones, whatever was drawn or set in between."""

import random
import subprocess
import sys

import numpy as np
import pytest

from epochal.checkpointing.capture import random_state, restore_random_state
from epochal.checkpointing.twister import numpy_state, python_state


def of_numpy(choose):
    return [
        np.random.rand, np.random.randn, lambda: np.random.seed(choose.randrange(3)), lambda: np.random.shuffle([1, 2]),
        lambda: np.random.set_state(np.random.get_state()), lambda: None, lambda: np.random.normal(size=choose.randrange(4)),
    ]  # fmt: skip


def of_python(choose):
    return [
        random.random, lambda: random.gauss(0, 1), lambda: random.seed(choose.randrange(3)),
        lambda: random.shuffle([1, 2]), lambda: random.setstate(random.getstate()), lambda: None,
    ]  # fmt: skip


@pytest.mark.parametrize("deeds_of", [of_numpy, of_python])
def test_a_state_is_taken_anew_whenever_it_has_changed(deeds_of):
    choose, saved = random.Random(0), []
    deeds = deeds_of(choose)
    for _ in range(3000):
        choose.choice(deeds)()
        if saved and choose.random() < 0.05:
            restore_random_state(choose.choice(saved))
        found, expected = numpy_state(np.random), np.random.get_state()
        assert (found[0], *found[2:]) == (expected[0], *expected[2:])
        assert (found[1] == expected[1]).all()
        assert python_state() == random.getstate()
        if choose.random() < 0.1:
            saved.append(random_state())


def test_another_generator_of_numpy_is_seen():
    before = np.random.get_bit_generator()
    try:
        for generator in (np.random.MT19937(1), np.random.MT19937(2)):
            np.random.set_bit_generator(generator)
            assert (numpy_state(np.random)[1] == np.random.get_state()[1]).all()
    finally:
        np.random.set_bit_generator(before)


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="other interpreters keep their objects otherwise")
def test_in_this_interpreter_pythons_state_can_be_seen_in_place():
    code = "from epochal.checkpointing.twister import python_state; import sys; sys.exit(python_state() is not python_state())"
    subprocess.run([sys.executable, "-c", code], check=True)
