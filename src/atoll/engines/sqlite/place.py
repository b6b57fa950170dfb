"""Place: is this a folder where SQLite can keep its word?

Two kernels that look at one file through a network see neither each other's locks nor each other's
shared memory. Like two clerks with a copy of the ledger each: every entry is right, and the sum is not.
"""

from __future__ import annotations

import os

import apsw

from atoll.errors import ConfigurationError, NotSent
from atoll.ports.address import Address

SQLITE_MIN = (3, 51, 3)
"""Before it, two connections that write and checkpoint at once can corrupt a file in WAL mode."""

_NETWORK = frozenset(
    "nfs nfs4 cifs smb3 smbfs 9p virtiofs ceph lustre afs glusterfs beegfs gpfs gfs2 vboxsf prl_fs".split()
)


def path_of(address: Address) -> str:
    """The path that a `sqlite://` URL names; ConfigurationError where it names a host."""
    if address.host:
        raise ConfigurationError(
            f"found the host {address.host!r} in {address}; sqlite:// takes a path: "
            "sqlite:///relative.db or sqlite:////absolute.db."
        )
    return address.path


def check_library() -> None:
    """Refuse a SQLite that may corrupt the file in this very use."""
    version = apsw.sqlite_lib_version()
    if tuple(int(part) for part in version.split(".")) < SQLITE_MIN:
        raise ConfigurationError(
            f"found SQLite {version} inside apsw {apsw.apsw_version()}; expected 3.51.3 or newer, because "
            'older ones can corrupt a file that several processes write. Type: pip install -U "apsw>=3.51.3"'
        )


def check_folder(path: str, *, shared_kernel: bool) -> None:
    """Refuse a folder that is not there, and a file system that other machines see too."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise ConfigurationError(
            f"found no folder {folder} for {os.path.basename(path)}; expected it to be there. "
            f"Type: mkdir -p {folder}"
        )
    if os.path.isdir(path):
        raise ConfigurationError(f"found the folder {path}; expected a file. Name a file inside it.")
    kind = file_system(folder)
    if not shared_kernel and networked(kind):
        raise ConfigurationError(
            f"found {folder} on a {kind} file system, where other machines may see the file but not its "
            "locks; expected a local disk. Put it on one. If only this kernel ever opens it, add "
            "?shared_kernel=true."
        )


def check_there(path: str) -> None:
    """NotSent when there is no such file, for those who only ask."""
    if not os.path.exists(path):
        raise NotSent(
            f"found no file {path}, so there was nobody to ask; expected one that an app has made. "
            "Correct the path (a relative one begins at the folder you are in); nothing was made."
        )


def nothing_of_ours(path: str) -> str:
    """What to say of a SQLite file in which Atoll has never kept what is asked for."""
    return (
        f"found nothing of Atoll's in {path} to answer from; expected a file that an app has opened as this. "
        "Name that file; nothing was made or changed."
    )


def networked(kind: str) -> bool:
    """Whether a file system of this type may be seen by other machines."""
    return kind in _NETWORK or kind.startswith("fuse.")


def file_system(folder: str, mounts: str = "/proc/self/mountinfo") -> str:
    """The type of the file system under `folder`, "" where the system does not say."""
    best, kind = "", ""
    try:
        with open(mounts, encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                left, _, right = line.partition(" - ")
                point = left.split(" ")[4].replace("\\040", " ")
                inside = folder == point or folder.startswith(point.rstrip("/") + "/")
                if inside and len(point) >= len(best):
                    best, kind = point, right.split(" ")[0]
    except (OSError, IndexError):
        return ""
    return kind
