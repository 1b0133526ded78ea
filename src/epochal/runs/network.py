"""Whether a folder lies on another machine's disk, where processes share no memory through files."""

import os
import sys
from pathlib import Path

NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "9p", "ceph", "glusterfs", "lustre", "gpfs", "beegfs", "orangefs"}
    | {"fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone", "fuse.juicefs", "fuse.cephfs"}
)
MOUNTS = Path("/proc/self/mountinfo")


def network_filesystem(folder: Path, mounts: Path = MOUNTS) -> str | None:
    """Return the kind of the network's file system that a folder lies on, None for a disk or where nobody can tell.

    ``EPOCHAL_NETWORK_FILESYSTEM=0`` or ``=1`` says what a mount table cannot. Peer: proc(5), mountinfo.

    >>> network_filesystem(Path("/proc")) is None
    True
    """
    said = os.environ.get("EPOCHAL_NETWORK_FILESYSTEM")
    if said in ("0", "1"):
        return "told" if said == "1" else None
    if sys.platform != "linux":
        return None
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    place, best, kind = os.path.realpath(folder), "", None
    for line in lines:
        before, _, after = line.partition(" - ")
        point = before.split(" ")[4].encode("utf-8", "surrogateescape").decode("unicode_escape")
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # of two at one place the later one is seen
            best, kind = point, after.split(" ")[0]
    return kind if kind in NETWORK else None
