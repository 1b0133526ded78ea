"""What stands around a validation that was asked for, and around a pause, on its own."""

from types import SimpleNamespace

import pytest


def test_ultralytics_own_time_limit_does_not_count_a_pause():
    from epochal.integrations.ultralytics_asked import keep_time

    trainer = SimpleNamespace(train_time_start=100.0, epoch_time_start=150.0)
    keep_time(trainer, 30.0)
    assert (trainer.train_time_start, trainer.epoch_time_start) == (130.0, 180.0)
    keep_time(SimpleNamespace(), 30.0)  # one that has not begun


def test_random_numbers_are_drawn_as_if_there_had_been_no_validation():
    import random

    np, torch = pytest.importorskip("numpy"), pytest.importorskip("torch")
    from epochal.core.requests import ValidationRequest
    from epochal.core.run import Run
    from epochal.integrations.asked import as_asked

    engine = Run(host="test", provides=frozenset()).engine
    engine.requests.add_validation(ValidationRequest("", "me", counts=False))

    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()

    def seed():
        random.seed(1), np.random.seed(1), torch.manual_seed(1)

    seed()
    wanted = draw()
    seed()
    with as_asked(engine):
        draw()
        assert (engine.asked, engine.counts) == (True, False)
    assert draw() == wanted
    assert not engine.asked


@pytest.mark.parametrize("fails", [False, True])
def test_modules_are_left_in_their_modes(fails):
    torch = pytest.importorskip("torch")
    from epochal.integrations.pytorch_modes import as_it_is

    net = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.BatchNorm1d(2).eval())
    try:
        with as_it_is(net):
            net.eval()
            net[1].train()
            if fails:
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert [one.training for one in net.modules()] == [True, True, False]
    with as_it_is(None):
        pass


def test_a_copied_run_offers_the_same_commands():
    from epochal.core.run import Run
    from epochal.integrations.portable import pack, unpack

    run = Run(host="test", provides=frozenset())
    run.command("x")(print_it)
    assert unpack(pack(run)).commands.keys() == {"x"}


def print_it(run, text: str = "a"):
    print(text)
