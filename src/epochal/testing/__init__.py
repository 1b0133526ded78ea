"""For tests of callbacks, yours and ours: a training without a framework, the grammar, the contract suites."""

from epochal.core.events import check_events
from epochal.testing.simulate import RecordEvents, Simulation, simulate

__all__ = ["RecordEvents", "Simulation", "check_events", "simulate"]
