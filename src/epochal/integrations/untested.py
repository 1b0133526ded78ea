"""A trainer that is newer than the one Epochal was tested with: said once, when it is first used."""

import re

from epochal.core.log import log
from epochal.integrations.trainers import TRAINERS
from epochal.tested import TESTED

_looked: set[str] = set()  # packages, once per process


def warn_if_untested(home: str | None) -> None:
    """Warn, once per process and package, if a trainer is of a newer version than the one tested.

    >>> warn_if_untested("no such trainer")
    """
    for package in TRAINERS[home].packages if home in TRAINERS else ():
        if package in _looked:
            continue
        _looked.add(package)
        installed, tested = installed_version(package), TESTED.get(package)
        if installed and tested and is_newer(installed, tested):
            log().warning(
                "%s %s is newer than %s, with which Epochal was tested. Should a callback come at a wrong moment,"
                " EPOCHAL_DEBUG=1 tells which event came out of its order.", package, installed, tested,
            )  # fmt: skip


def installed_version(package: str) -> str | None:
    """Return the installed version of a package, or None.

    >>> installed_version("no-such-package") is None
    True
    """
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def is_newer(version: str, other: str) -> bool:
    """Say whether a version is a later release than another; what follows the numbers (rc1, +cpu) does not count.

    >>> is_newer("2.15.1", "2.15.0+cpu"), is_newer("2.9", "2.15"), is_newer("2.15.0", "2.15")
    (True, False, False)
    """
    return release(version) > release(other)


def release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, without zeros at the end.

    >>> release("5.2.0rc1")
    (5, 2)
    """
    found = re.match(r"(?:\d+!)?v?(\d+(?:\.\d+)*)", version)
    numbers = [int(part) for part in found[1].split(".")] if found else []
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)
