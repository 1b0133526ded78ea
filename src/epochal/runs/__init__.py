"""The runs of a folder: ``epochal.runs.open("runs")``."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from epochal.runs.catalog import open_runs as open  # noqa: A004  # the contract's name

__all__ = ["open"]


def __getattr__(name: str) -> Any:
    if name == "open":
        from epochal.runs.catalog import open_runs

        return open_runs
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
