"""Copies off a GPU on a stream of their own, so that the processor never waits for them."""

from collections.abc import Iterable, Sequence
from typing import Any

Pair = tuple[Any, Any]  # a tensor on the host, and one on a GPU


class Streams:
    """One stream per CUDA device.

    >>> Streams().copy([])
    []
    """

    def __init__(self) -> None:
        self._streams: dict[Any, Any] = {}

    def copy(self, pairs: Iterable[Pair]) -> list[Any]:
        """Begin to copy each second tensor into the first; return an event per device, which comes when it is done.

        What the current streams do already comes before; until ``hold_back`` what they do next may come in between. The
        caller keeps the tensors until the events have come.
        """
        import torch

        by_device: dict[Any, list[Pair]] = {}
        for pair in pairs:
            by_device.setdefault(pair[1].device, []).append(pair)
        events: list[Any] = []
        for device, ours in by_device.items():
            stream = self._streams.get(device) or torch.cuda.Stream(device)
            self._streams[device] = stream
            stream.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(stream):
                targets, sources = [one[0] for one in ours], [one[1] for one in ours]
                torch._foreach_copy_(targets, sources, non_blocking=True)  # pyright: ignore
                events.append(stream.record_event())
        return events

    def hold_back(self, events: Sequence[Any]) -> None:
        """Let what the current streams do from now on come after these events."""
        import torch

        for device in self._streams:
            for event in events:
                torch.cuda.current_stream(device).wait_event(event)
