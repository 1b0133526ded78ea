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

    packages = ("epochal", *_PACKAGES)
    imported = {name: str(getattr(sys.modules[name], "__version__", "?")) for name in packages if name in sys.modules}
    return {"python": platform.python_version(), **imported}
