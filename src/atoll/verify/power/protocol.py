"""Protocol: the words that Linux and a file system in user space say to each other over /dev/fuse.

A phrase book. Each request begins with the same header; behind it stand fixed fields, then names or data.

Source: the kernel's include/uapi/linux/fuse.h, protocol 7.31.
Departure: only what a server's data folder needs; no locks (the kernel keeps those), no attributes.
"""

from __future__ import annotations

import os
import stat
import struct

IN = struct.Struct("<IIQQIIIHH")
"""len, opcode, unique, nodeid, uid, gid, pid, extension, padding."""
OUT = struct.Struct("<IiQ")
"""len, minus errno, unique."""
ATTR = struct.Struct("<QQQQQQIIIIIIIIII")
ENTRY = struct.Struct("<QQQQII")
ATTR_OUT = struct.Struct("<QII")
OPEN_OUT = struct.Struct("<QII")
INIT_OUT = struct.Struct("<IIIIHHIIHHI28x")
STATFS_OUT = struct.Struct("<QQQQQIIII24x")
DIRENT = struct.Struct("<QQII")
WRITE_OUT = struct.Struct("<II")

SETATTR_IN = struct.Struct("<IIQQQQQQIIIIIIII")
READ_IN = struct.Struct("<QQIIQII")
WRITE_IN = struct.Struct("<QQIIQII")
FALLOCATE_IN = struct.Struct("<QQQII")

LOOKUP, FORGET, GETATTR, SETATTR, READLINK, SYMLINK = 1, 2, 3, 4, 5, 6
MKNOD, MKDIR, UNLINK, RMDIR, RENAME, LINK, OPEN, READ, WRITE = 8, 9, 10, 11, 12, 13, 14, 15, 16
STATFS, RELEASE, FSYNC, FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR = 17, 18, 20, 25, 26, 27, 28, 29
FSYNCDIR, ACCESS, CREATE, INTERRUPT, DESTROY, BATCH_FORGET = 30, 34, 35, 36, 38, 42
FALLOCATE, RENAME2, SYNCFS = 43, 45, 50

SET_MODE, SET_UID, SET_GID, SET_SIZE, SET_ATIME, SET_MTIME = 1, 2, 4, 8, 16, 32
SET_ATIME_NOW, SET_MTIME_NOW = 128, 256

BIG_WRITES = 1 << 5
MAX_WRITE = 1 << 17
BUFFER = MAX_WRITE + 4096


def attributes(node: int, found: os.stat_result) -> bytes:
    """What `stat` tells, as the kernel wants it."""
    times = [found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns]
    seconds = [max(0, t // 1_000_000_000) for t in times]
    parts = [t % 1_000_000_000 for t in times]
    return ATTR.pack(
        node,
        found.st_size,
        found.st_blocks,
        *seconds,
        *parts,
        found.st_mode,
        found.st_nlink,
        found.st_uid,
        found.st_gid,
        0,
        4096,
        0,
    )


def entry(node: int, found: os.stat_result) -> bytes:
    """The answer to a look-up: valid for no time, so that every question reaches us."""
    return ENTRY.pack(node, 0, 0, 0, 0, 0) + attributes(node, found)


def dirent(node: int, place: int, name: bytes, mode: int) -> bytes:
    """One line of a directory, padded to eight bytes."""
    line = DIRENT.pack(node, place, len(name), stat.S_IFMT(mode) >> 12) + name
    return line + b"\0" * (-len(line) % 8)


def init_answer(minor: int, readahead: int) -> bytes:
    """What we agree on: protocol 7, writes of up to MAX_WRITE through the page cache, nothing else."""
    return INIT_OUT.pack(7, min(minor, 31), readahead, BIG_WRITES, 12, 9, MAX_WRITE, 1, 0, 0, 0)
