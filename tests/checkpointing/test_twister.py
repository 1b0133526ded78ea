"""The states of the global generators are the true ones, whatever was drawn or set in between."""

import random
import subprocess
import sys

import numpy as np
import pytest

from epochal.checkpointing.capture import random_state, restore_random_state
from epochal.checkpointing.twister import numpy_state, python_state


def test_numpys_state_is_taken_anew_whenever_it_has_changed():
    choose = random.Random(0)
    deeds = [
        np.random.rand, np.random.randn, lambda: np.random.seed(choose.randrange(3)), lambda: np.random.shuffle([1, 2]),
        lambda: np.random.set_state(np.random.get_state()), lambda: None, lambda: np.random.normal(size=choose.randrange(4)),
    ]  # fmt: skip
    saved = []
    for _ in range(3000):
        choose.choice(deeds)()
        if saved and choose.random() < 0.05:
            restore_random_state(choose.choice(saved))
        found, expected = numpy_state(np.random), np.random.get_state()
        assert found[0] == expected[0]
        assert (found[1] == expected[1]).all()
        assert found[2:] == expected[2:]
        if choose.random() < 0.1:
            saved.append(random_state())


def test_pythons_state_is_taken_anew_whenever_it_has_changed():
    choose = random.Random(0)
    deeds = [
        random.random, lambda: random.gauss(0, 1), lambda: random.seed(choose.randrange(3)),
        lambda: random.shuffle([1, 2]), lambda: random.setstate(random.getstate()), lambda: None,
    ]  # fmt: skip
    saved = []
    for _ in range(3000):
        choose.choice(deeds)()
        if saved and choose.random() < 0.05:
            restore_random_state(choose.choice(saved))
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
