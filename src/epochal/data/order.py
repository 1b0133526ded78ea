"""What decides in which order a loader gives its batches: described, compared, written in a checkpoint's manifest."""

from collections.abc import Mapping
from typing import Any, Literal

Kind = Literal["own", "stateful", "torch", "iterator", "iterable"]


def kind_of(loader: Any) -> Kind:
    """Return what kind of loader this is; torch and torchdata are recognised, not imported.

    >>> kind_of([1, 2]), kind_of(iter([1, 2]))
    ('iterable', 'iterator')
    """
    for one in type(loader).__mro__:
        if one.__module__ == "epochal.data.resumable_loader":
            return "own"
        if one.__module__.startswith("torchdata.") and one.__name__ == "StatefulDataLoader":
            return "stateful"
        if one.__module__.startswith("torch.utils.data") and one.__name__ == "DataLoader":
            return "torch"
    return "iterator" if hasattr(loader, "__next__") else "iterable"


def length_of(loader: Any) -> int | None:
    """Return how many batches a loader has, or None if it does not say.

    >>> length_of([1, 2]), length_of(iter([1, 2]))
    (2, None)
    """
    try:
        return len(loader)
    except TypeError:
        return None


def order_of(loader: Any) -> dict[str, Any]:
    """Return what decides the order of a loader's batches, as far as it can be seen.

    >>> order_of([1, 2, 3])
    {'loader': 'list', 'batches': 3}
    """
    kind = kind_of(loader)
    order: dict[str, Any] = {"loader": type(loader).__name__, "batches": length_of(loader)}
    if kind == "own":
        return order | loader.order()
    if kind in ("torch", "stateful"):
        sampler = getattr(loader, "sampler", None)
        if getattr(loader, "batch_size", None) is None:
            sampler = getattr(loader, "batch_sampler", None) or sampler
        order |= {
            "samples": length_of(loader.dataset),
            "batch_size": getattr(loader, "batch_size", None),
            "sampler": type(sampler).__name__,
            "drop_last": bool(getattr(loader, "drop_last", False)),
            "workers": loader.num_workers,
        }
    return order


def order_text(order: Mapping[str, Any]) -> str:
    """Return an order as one line, the fingerprint in a manifest.

    >>> order_text({"loader": "list", "batches": 3})
    'list(batches=3)'
    """
    told = ", ".join(f"{name}={value}" for name, value in order.items() if name != "loader")
    return f"{order['loader']}({told})"


def order_differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs between two orders, in words; nothing for data in the same order.

    >>> order_differences({"loader": "DataLoader", "batch_size": 4}, {"loader": "DataLoader", "batch_size": 8})
    ['batch_size was 4, is 8']
    """
    names = [*saved, *(name for name in now if name not in saved)]
    return [
        f"{name} was {saved.get(name)}, is {now.get(name)}"
        for name in names
        if name != "workers" and saved.get(name) != now.get(name)
    ]
