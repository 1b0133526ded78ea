"""The checkpoint store: one folder through which all saves of a run go."""

import errno
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Unpack

from epochal.checkpointing.commit import commit, remove, remove_leftovers, sync_folder, write_pointer
from epochal.checkpointing.incremental import Incremental
from epochal.checkpointing.layout import BAD, LEFT, STATE, About, FileRecord, Manifest
from epochal.checkpointing.listing import Listing, read_listing
from epochal.checkpointing.parts import Encoded, encode_parts, state_content
from epochal.checkpointing.retention import Keep, kept, ranked, surplus
from epochal.checkpointing.saved import SavedCheckpoint
from epochal.checkpointing.verify import Verdict
from epochal.checkpointing.versions import versions
from epochal.checkpointing.view import Checkpoints
from epochal.core.errors import CheckpointError

_log = logging.getLogger("epochal")
_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_RIGHTS = {errno.EACCES, errno.EPERM, errno.EROFS}


class CheckpointStore:
    """The committed checkpoints in a folder, which is made at the first save.

    >>> import tempfile
    >>> store = CheckpointStore(tempfile.mkdtemp())
    >>> store.keep("each epoch", Keep(last=1, best=1))
    >>> for epoch, fitness in enumerate([0.5, 0.9, 0.7, 0.6]):
    ...     _ = store.save({"run": {}}, epoch=epoch, step=epoch, asked_by=["each epoch"], fitness=fitness)
    >>> [one.manifest.epoch for one in store.checkpoints]
    [1, 3]

    One writer at a time. A failed save is a `CheckpointError`; what was saved before it stays as it is.
    """

    in_memory = False

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory).absolute()  # a script may change its directory between two saves
        self._rules: dict[str, Keep] = {}
        self._protected: set[str] = set()
        self._incremental = Incremental()
        if self.directory.is_dir():
            try:
                remove_leftovers(self.directory)
            except OSError as error:
                _log.warning("leftovers of dead writers stay in %s: %s", self.directory, error.strerror)

    @cached_property
    def _listing(self) -> Listing:
        return read_listing(self.directory)

    @property
    def rules(self) -> Mapping[str, Keep]:
        """The rule of each asker."""
        return self._rules

    @property
    def checkpoints(self) -> Checkpoints[SavedCheckpoint]:
        """The committed checkpoints, oldest first, read-only."""
        return Checkpoints(lambda: tuple(self._listing.saved), self._rules)  # a writer may be adding to it

    def place(self, directory: Path) -> None:
        """Go elsewhere, before the first save."""
        if directory != self.directory and not self._listing.saved:
            self.directory = directory
            self.__dict__.pop("_listing", None)

    def keep(self, label: str, rule: Keep) -> None:
        """Set what one asker keeps of the checkpoints it asked for, from the next save on."""
        self._rules[label] = rule

    def protect(self, name: str) -> None:
        """Keep one checkpoint, the one resumed from, until a newer resume point is committed and verified."""
        self._protected.add(name)

    def save(
        self,
        parts: Mapping[str, Any],
        **about: Unpack[About],
    ) -> SavedCheckpoint:
        """Write one checkpoint and commit it, then set the pointers and apply the rules.

        ``parts`` maps a name to a state tree. Raises `CheckpointError` when the disk refuses or a value cannot be
        saved; training can go on, older checkpoints are untouched.
        """
        return self.write(encode_parts(parts), about)

    def write(
        self,
        encoded: Encoded,
        about: About,
        *,
        confirm: Callable[[], None] | None = None,
        committed: Callable[[], None] | None = None,
    ) -> SavedCheckpoint:
        """Do what ``save`` does with parts that are taken apart already; any thread may call it, one at a time.

        ``confirm`` is called when all is written and nothing is committed: what it raises stops that. ``committed`` is
        called when the checkpoint is on the disk, before others are deleted.
        """
        self._forget_what_is_gone()
        try:
            manifest = self._commit(encoded, about, confirm)
        except OSError as error:
            raise CheckpointError(self._failure(error)) from error
        if committed is not None:
            committed()
        saved = SavedCheckpoint(self.directory / manifest.name, manifest)
        self._listing.saved.append(saved)
        self._release(saved)
        self._point()
        self.retain()
        return saved

    def newest_resume_point(self) -> SavedCheckpoint | None:
        """Return the newest checkpoint from which a training can go on exactly, verified.

        A damaged one is renamed to ``.bad-...`` and logged as an error, and the one before is taken.
        """
        for path, verdict in list(self._listing.damaged.items()):
            del self._listing.damaged[path]
            self._set_aside(path, verdict)
        for saved in reversed(tuple(self._listing.saved)):
            if not saved.manifest.resume_point:
                continue
            verdict = saved.verify()
            if verdict.ok:
                return saved
            self._listing.saved.remove(saved)
            self._set_aside(saved.path, verdict)
        return None

    def go_on_from(self, name: str) -> None:
        """Set aside, as ``.left-...``, what was saved after one checkpoint: a run goes on from there another way."""
        serial = next(one.manifest.serial for one in self._listing.saved if one.manifest.name == name)
        for later in [one for one in self._listing.saved if one.manifest.serial > serial]:
            _log.warning("checkpoint %s is later than %s and set aside.", later.path, name)
            self._listing.saved.remove(later)
            self._rename(later.path, LEFT)

    def _commit(
        self, encoded: Encoded, about: About, confirm: Callable[[], None] | None, *, again: bool = True
    ) -> Manifest:
        """Commit one checkpoint; where the disk is full, drop what is surplus and try once more."""

        def describe(records: Mapping[str, FileRecord]) -> Manifest:
            if confirm is not None:
                confirm()
            serial = 1 + max((one.manifest.serial for one in self._listing.saved), default=0)
            manifest = Manifest.of(about, free=self._free, serial=serial)
            return replace(manifest, files=records, versions=versions())

        before = self._listing.saved[-1] if self._listing.saved else None
        try:
            files = self._incremental.files(encoded.tensors, before)
            return commit(self.directory, {**files, STATE: state_content(encoded)}, describe)
        except OSError as error:
            if not (again and error.errno in _FULL and self._make_room(encoded)):
                raise
        return self._commit(encoded, about, confirm, again=False)

    def _forget_what_is_gone(self) -> None:
        """Take out of the list what somebody deleted: it must not count as the best, nor as the newest."""
        for saved in [one for one in self._listing.saved if not one.path.is_dir()]:
            self._listing.saved.remove(saved)
            _log.warning("checkpoint %s is gone: somebody deleted it.", saved.path)

    def _make_room(self, encoded: Encoded) -> bool:
        """Drop surplus checkpoints, oldest first, until there is room for one more; say whether any went."""
        listed = self._listing.saved
        going = surplus([one.manifest for one in listed], self._rules, protected=self._protected)
        needed = encoded.size + 64 * 1024  # what its small files and names take
        dropped = 0
        for saved in [one for one in listed if one.manifest.name in going]:
            if dropped and shutil.disk_usage(self.directory).free >= needed:
                break
            if self._drop(saved):
                dropped += 1
                _log.warning("the disk is full: checkpoint %s, which only keep_last= kept, is dropped.", saved.path)
        return dropped > 0

    def _set_aside(self, path: Path, verdict: Verdict) -> None:
        if verdict.newer:  # not damaged, and going on without it would lose what it holds
            raise CheckpointError(f"{path} is {verdict}")
        _log.error("checkpoint %s is damaged, the one before it is taken: %s", path, verdict)
        self._rename(path, BAD)

    def _rename(self, path: Path, prefix: str) -> None:
        try:
            os.rename(path, path.with_name(self._free(prefix + path.name)))
            sync_folder(path.parent)
        except OSError as error:
            _log.error("%s could not be set aside: %s", path, error.strerror)

    def _release(self, saved: SavedCheckpoint) -> None:
        if not (self._protected and saved.manifest.resume_point):
            return
        verdict = saved.verify()
        if verdict.ok:
            self._protected.clear()
        else:
            _log.error("checkpoint %s cannot be read back: %s", saved.path, verdict)

    def _point(self) -> None:
        manifests = [one.manifest for one in self._listing.saved]
        best = ranked(manifests) or next(
            (ranked(manifests, metric=rule.metric, mode=rule.mode) for rule in self._rules.values() if rule.best), []
        )
        try:
            write_pointer(self.directory / "last", manifests[-1].name)
            if best:
                write_pointer(self.directory / "best", best[0].name)
        except OSError as error:
            _log.warning("the pointers in %s are not up to date: %s", self.directory, error.strerror)

    def retain(self) -> None:
        """Apply the rules now: delete what none of them keeps; not while a save is being written."""
        listed = self._listing.saved
        staying = kept([one.manifest for one in listed], self._rules, protected=self._protected)
        for saved in [one for one in listed if one.manifest.name not in staying]:
            self._drop(saved)

    def _drop(self, saved: SavedCheckpoint) -> bool:
        try:
            remove(saved.path)
        except FileNotFoundError:
            pass  # somebody else deleted it
        except OSError as error:
            _log.warning("checkpoint %s could not be deleted: %s", saved.path, error.strerror)
            return False
        self._listing.saved.remove(saved)
        return True

    def _free(self, name: str) -> str:
        count, free = 1, name
        while (self.directory / free).exists():
            count += 1
            free = f"{name}-{count}"
        return free

    def _failure(self, error: OSError) -> str:
        if error.errno in _SPACE:
            cure = "free some space, keep fewer (keep_last=, keep_best=), or save elsewhere (dir=)"
        elif error.errno in _RIGHTS:
            cure = "make the folder writable, or save elsewhere (dir=)"
        else:
            cure = "check the disk, or save elsewhere (dir=)"
        return (
            f"the checkpoint could not be written to {self.directory}: {error.strerror or error}. "
            f"Nothing of it is left, older checkpoints are intact; {cure}"
        )
