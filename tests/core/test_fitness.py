"""The fitness: where it comes from, that NaN is never best, one check per validation, across a resume."""

import math

import pytest

from epochal import Best, Checkpoint, EarlyStopping, Plateau, Stop
from epochal.core.errors import ArgumentError
from epochal.testing import simulate

NAN = math.nan


def of_each_epoch(epochs, **options):
    """Return the fitness at each on_fit_epoch_end."""
    from epochal import Callback

    class Read(Callback):
        def on_fit_epoch_end(self, run):
            read.append(run.fitness)

    read = []
    result = simulate([Read()], epochs, **options)
    return read, result.run


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("val/acc", 0.5),
        ("-val/loss", -2.0),
        (lambda metrics: metrics["val/acc"] - metrics["val/loss"], -1.5),
        (None, 0.25),
    ],
)
def test_what_fitness_names_comes_before_a_logged_fitness(spec, expected):
    read, _ = of_each_epoch([{"val/acc": 0.5, "val/loss": 2.0, "fitness": 0.25}], fitness=spec)
    assert read == [expected]


def test_without_a_name_a_logged_fitness_then_the_trainers_own_then_minus_val_loss(drive):
    driver = drive().begin()

    def epoch(number, native=None, **logged):
        driver.engine.epoch_start(number)
        driver.engine.train_epoch_end()
        driver.engine.val_start()
        driver.engine.fitness_rule.native = native
        driver.run.log({name.replace("_", "/"): value for name, value in logged.items()})
        driver.engine.val_end()
        driver.engine.epoch_end()
        return driver.run.fitness

    assert epoch(0) is None
    assert epoch(1, val_loss=2.0) == -2.0
    assert epoch(2, native=0.7, val_loss=2.0) == 0.7
    assert epoch(3, native=0.7, val_loss=2.0, fitness=0.9) == 0.9


def test_a_fitness_logged_after_the_validation_comes_before_minus_val_loss(drive):
    driver = drive().begin()
    read = []
    for number, (loss, fitness) in enumerate([(1.0, -10.0), (0.5, -20.0), (0.1, -5.0)]):
        driver.epoch(number, val={"val/loss": loss}, end={"fitness": fitness})
        read.append((driver.run.fitness, driver.run.best_fitness))
    assert read == [(-10.0, -10.0), (-20.0, -10.0), (-5.0, -5.0)]
    assert [row["fitness"] for row in driver.run.history] == [-10.0, -20.0, -5.0]


def test_a_fitness_of_training_metrics_is_measured_at_the_epochs_end(drive):
    driver = drive(fitness="-train/loss").begin()
    driver.epoch(0, batches=[{"train/loss": 1.0}, {"train/loss": 3.0}], mid={"val/loss": 9.0}, val={"val/loss": 9.0})
    assert driver.run.fitness == -2.0
    driver.epoch(1, batches=[{"train/loss": 5.0}])
    assert (driver.run.fitness, driver.run.best_fitness) == (-5.0, -2.0)


def test_the_fitness_of_an_epoch_without_a_measurement_stays_and_is_no_check():
    read, _ = of_each_epoch([{"val/loss": 1.0}, {"train/loss": 3.0}, {"val/loss": 2.0}])
    assert read == [-1.0, -1.0, -2.0]
    losses = [{"val/loss": 1.0}, {}, {}, {"val/loss": 2.0}, {}, {"val/loss": 3.0}, {}]
    assert simulate([EarlyStopping("fitness", patience=2)], losses).epochs_run == 6


def test_nan_is_never_best():
    _, run = of_each_epoch([{"fitness": x} for x in (NAN, 0.5, NAN, 0.4)])
    assert run.best_fitness == 0.5
    _, run = of_each_epoch([{"fitness": NAN}])
    assert run.best_fitness is None
    assert math.isnan(run.fitness)


@pytest.mark.parametrize("spec", ["", "-", 5, ["val/loss"]])
def test_a_fitness_that_says_nothing_is_refused(spec):
    with pytest.raises(ArgumentError, match="fitness= is a metric's name"):
        simulate([], [{}], fitness=spec)


@pytest.mark.parametrize("value", [None, "high"])
def test_a_function_that_returns_no_number_says_so(value):
    with pytest.raises(
        ArgumentError, match=f"the function given as fitness= returned {value!r}; it must return a number"
    ):
        simulate([], [{"val/loss": 1.0}], fitness=lambda metrics: value)


def test_a_function_reads_metrics_as_a_mapping_and_waits_until_they_are_there():
    read, _ = of_each_epoch(
        [{"x": 1.0}, {"val/acc": 0.5}, {"val/acc": 0.7}],
        fitness=lambda metrics: metrics["val/acc"] + metrics.get("none", 0) + ("x" in metrics),
    )
    assert read == [None, 1.5, 1.7]


def test_every_validation_is_a_check_of_the_fitness(drive):
    driver = drive(Stop(Plateau("fitness", patience=3))).begin()
    for number in range(2):
        driver.epoch(number, batches=[{}, {}], mid={"val/loss": 1.0}, val={"val/loss": 1.0})
    assert driver.run.stop_reason == "Stop: fitness has not improved for 3 checks (best -1 in epoch 1)"


def test_best_holds_at_each_better_validation_and_only_there(drive):
    moments = []

    class Save(Stop.__mro__[2]):
        def act(self, run, now):
            moments.append((now.ended, now.epoch))

    driver = drive(Save(Best("fitness"))).begin()
    driver.epoch(0, batches=[{}, {}], mid={"val/loss": 3.0}, val={"val/loss": 2.0})
    driver.epoch(1, batches=[{}, {}], mid={"val/loss": 1.0}, val={"val/loss": 2.0})
    driver.epoch(2, batches=[{}, {}], mid={"val/loss": 2.0}, val={"val/loss": 1.0})
    assert moments == [("validation", 0), ("validation", 0), ("validation", 1)]


def test_fitness_and_best_fitness_are_those_of_the_whole_run_when_it_is_resumed():
    logged = [{"val/loss": x} for x in (3.0, 1.0, 2.0, 5.0)]
    first = simulate([Checkpoint(keep_last=-1)], logged[:3])
    saved = first.run.checkpoints[-1]
    again = simulate([Checkpoint()], logged, state={part: saved.load(part) for part in ("run", "callbacks")})
    assert (again.run.fitness, again.run.best_fitness) == (-5.0, -1.0)
    assert again.run.past[-1].best_epoch == 1
    assert [row["val/loss"] for row in again.run.history] == [3.0, 1.0, 2.0, 5.0]


def test_the_kind_of_fitness_survives_a_resume(drive):
    first = drive().begin()
    first.epoch(0, val={"val/loss": 1.0, "fitness": 0.5})
    saved = {"run": first.engine.state_dict(), "callbacks": {}}
    again = drive().begin(saved)
    again.epoch(1, val={"val/loss": 1.0}, end={"fitness": 0.4})
    assert (again.run.fitness, again.run.best_fitness) == (0.4, 0.5)
    assert again.run.history[1]["fitness"] == 0.4
