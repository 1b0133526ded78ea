"""A method of one object is replaced and given back exactly, whoever else wraps it in between, and no copy carries it."""

import copy
import inspect
import pickle

import cloudpickle
import pytest

from epochal.hooks.method import Method

torch = pytest.importorskip("torch")


class Lamp:
    def light(self, colour="white"):
        return f"{colour} {id(self)}"


def shout(original, *args, **options):
    return original(*args, **options).upper()


def test_what_was_there_is_put_back():
    lamp = Lamp()
    method = Method(lamp, "light", shout)
    assert lamp.light(colour="red") == f"RED {id(lamp)}"
    method.remove()
    method.remove()
    assert vars(lamp) == {}
    lamp.light = own = lambda: "own"
    method = Method(lamp, "light", shout)
    assert lamp.light() == "OWN"
    method.remove()
    assert lamp.light is own


@pytest.mark.parametrize("first", [0, 1])
def test_two_are_removed_in_any_order(first):
    lamp = Lamp()
    both = [Method(lamp, "light", shout), Method(lamp, "light", lambda original: original() + "!")]
    assert lamp.light() == f"WHITE {id(lamp)}!"
    both.pop(first).remove()
    assert lamp.light() == (f"white {id(lamp)}!" if first == 0 else f"WHITE {id(lamp)}")
    both.pop().remove()
    assert vars(lamp) == {}


def test_a_wrapper_of_somebody_else_stays_and_ours_passes_on_inside_it():
    lamp = Lamp()
    method = Method(lamp, "light", shout)
    ours = lamp.light
    lamp.light = theirs = lambda: ours() + "?"
    method.remove()
    assert lamp.light is theirs
    assert lamp.light() == f"white {id(lamp)}?"


def test_copies_have_the_method_of_their_class():
    lamp = Lamp()
    method = Method(lamp, "light", shout)
    for copied in (copy.deepcopy(lamp), copy.copy(copy.deepcopy(lamp))):
        assert copied.light() != lamp.light()
        assert copied.light().startswith("white")
    net = torch.nn.BatchNorm1d(2)
    Method(net, "train", lambda original, mode=True: original(False))
    for copied in (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), pickle.loads(cloudpickle.dumps(net))):
        assert copied.train().training
        assert vars(copied)["train"].__func__ is torch.nn.Module.train
    assert not net.train().training
    method.remove()


def test_schedulers_made_before_and_after_see_an_optimizer_as_they_know_it(recwarn):
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.ones(1)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    before = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    steps, signature = [], inspect.signature(optimizer.step)
    method = Method(optimizer, "step", lambda original, *args: (steps.append(1), original(*args))[1])
    after = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    assert inspect.signature(method.placed) == signature
    optimizer.step()
    before.step()
    after.step()
    method.remove()
    optimizer.step()
    assert (len(steps), [str(one.message) for one in recwarn]) == (1, [])


def test_the_wrapper_of_torch_compile_is_reached_itself():
    net = torch.nn.Linear(1, 1)
    compiled = torch.compile(net, backend="eager")
    calls = []
    method = Method(compiled, "zero_grad", lambda original, **options: calls.append(1))
    compiled.zero_grad()
    assert calls == [1]
    assert "zero_grad" not in vars(net)
    method.remove()
    assert "zero_grad" not in vars(compiled)
