"""For tests of callbacks, yours and ours: a training without a framework, the grammar, the contract suites."""

from epochal.core.events import check_events
from epochal.testing.check_callback import check_callback
from epochal.testing.check_integration import check_integration
from epochal.testing.check_logger import check_logger
from epochal.testing.simulate import RecordEvents, Simulation, simulate

__all__ = [
    "RecordEvents",
    "Simulation",
    "check_callback",
    "check_events",
    "check_integration",
    "check_logger",
    "simulate",
]
