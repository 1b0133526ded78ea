"""Versions of what a checkpoint was written with."""

import sys

_PACKAGES = ("torch", "numpy", "ultralytics", "lightning", "transformers", "keras", "tensorflow")


def versions() -> dict[str, str]:
    """Return the versions of Epochal, Python and of those packages a state depends on that are imported.

    >>> import platform
    >>> versions()["python"] == platform.python_version()
    True
    """
    import platform

    imported = {name: str(getattr(sys.modules[name], "__version__", "?")) for name in _PACKAGES if name in sys.modules}
    return {"epochal": _own(), "python": platform.python_version(), **imported}


def _own() -> str:
    from importlib.metadata import PackageNotFoundError, version  # brings a mail parser: only when one is asked for

    try:
        return version("epochal")
    except PackageNotFoundError:
        return "unknown"
