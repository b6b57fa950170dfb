"""Backup: a store's entries in one file, and back.

An inventory that is signed at the end. Each line is one thing; the last line counts them and seals the
whole, so a page torn off, or written over, is noticed before anything is carried in.

Format 1: lines of JSON. The first names the format, the store, its epoch and revision; then one line for
each entry without a lease, with its key and its value in base64; the last has the count and the SHA-256 of
every byte before it.

Promise: what restore writes is what was backed up, or nothing; the restored store's epoch is above both.
What can break it: a store that is written while it is restored; a file that was changed and sealed anew.
Proved by: tests/blocks/test_removal.py
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll import clock
from atoll.blocks.moving import Contents, Copied, Say, carry, moving_of, read_all
from atoll.errors import ConfigurationError, FormatRefused
from atoll.ports.register import Entry
from atoll.ports.store import Store

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """What a file holds."""

    entries: int
    bytes: int
    leased: int
    epoch: int
    revision: int
    digest: str
    one_moment: bool = True


async def backup(store: Store, path: Path, *, force: bool = False, say: Say | None = None) -> Saved:
    """Write the entries without a lease to `path`: all of it is on the disk under that name, or nothing is.

    For the owner's eyes only (mode 0600). Raises ConfigurationError where a file is there and `force` is not
    said.
    """
    if not force and os.path.exists(path):  # noqa: ASYNC240
        raise ConfigurationError(
            f"found {path} there already; expected a new file. Name another, or say --force."
        )
    await store.open()
    contents, epoch = await read_all(store, say), await store.epoch()
    head = {
        "atoll_backup": FORMAT,
        "store": store.url,
        "epoch": epoch,
        "revision": contents.revision,
        "at": round(clock.wall_now(), 3),
    }
    lines = [json.dumps(head), *(_line(entry) for entry in contents.kept)]
    body = ("\n".join(lines) + "\n").encode()
    digest = hashlib.sha256(body).hexdigest()
    tail = json.dumps({"entries": len(contents.kept), "sha256": digest}) + "\n"
    _write_whole(path, body + tail.encode())
    return Saved(
        entries=len(contents.kept),
        bytes=len(body) + len(tail),
        leased=len(contents.entries) - len(contents.kept),
        epoch=epoch,
        revision=contents.revision,
        digest=digest,
        one_moment=contents.one_moment,
    )


async def restore(
    store: Store, path: Path, *, force: bool = False, say: Say | None = None
) -> tuple[Copied, int]:
    """Write what `path` holds into the store, then raise its epoch above the file's; answers the new one.

    The file is read and checked to its end before anything is written: FormatRefused. Raises
    ConfigurationError where something else stands in the store and `force` is not said.
    """
    contents, saved = read(path)
    claims = await store.open()
    moving = moving_of(store)
    if (found := await moving.frozen()) is not None:
        raise ConfigurationError(
            f"found {store.url} frozen: {found}. Expected one that takes writes: atoll store thaw"
        )
    copied = await carry(contents, store, claims, force=force, say=say)
    return copied, await moving.bump(above=saved.epoch)


def read(path: Path) -> tuple[Contents, Saved]:
    """A backup's entries, checked against its last line."""
    raw = path.read_bytes()
    body, _, tail = raw.removesuffix(b"\n").rpartition(b"\n")
    body += b"\n"
    seal, head = _parsed(tail, path), _parsed(body.partition(b"\n")[0], path)
    if head.get("atoll_backup") != FORMAT:
        raise FormatRefused(
            f"found format {head.get('atoll_backup')!r} in {path}; this Atoll reads {FORMAT}. "
            "Name a file that `atoll store backup` made, or use the Atoll that made it."
        )
    lines = body.splitlines()[1:]
    if seal.get("sha256") != hashlib.sha256(body).hexdigest() or seal.get("entries") != len(lines):
        raise FormatRefused(
            f"found that {path} is not as it was written: its last line seals {seal.get('entries')} entries, "
            f"and there are {len(lines)}, or their bytes differ. Nothing was written: use another backup."
        )
    entries = []
    for line in lines:
        value = _parsed(line, path)
        entries.append(Entry(str(value["key"]), base64.b64decode(value["value"]), 0, 0))
    saved = Saved(
        entries=len(entries),
        bytes=len(raw),
        leased=0,
        epoch=int(head["epoch"]),
        revision=int(head["revision"]),
        digest=str(seal["sha256"]),
    )
    return Contents(entries, saved.revision), saved


def _line(entry: Entry) -> str:
    return json.dumps({"key": entry.key, "value": base64.b64encode(entry.value).decode()})


def _parsed(line: bytes, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise FormatRefused(
            f"found a line in {path} that is no JSON object, such as {line[:40]!r}: it is no backup, or not "
            "whole. Name a file that `atoll store backup` made."
        )
    return value


def _write_whole(path: Path, data: bytes) -> None:
    """Under its name only when every byte is on the disk."""
    beside = path.with_name(f".{path.name}.{clock.unique_id()[:8]}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What was read, and one sentence for each thing that is wrong."""

    entries: int
    leased: int
    revision: int
    epoch: int
    frozen: str | None
    faults: tuple[str, ...]


async def check(store: Store, say: Say | None = None) -> Checked:
    """Read everything and hold it against what the port promises, and the engine's own books where it can."""
    claims = await store.open()
    contents = await read_all(store, say)
    newest = (await store.range(limit=1)).revision
    faults: list[str] = []
    before = ""
    for entry in contents.entries:
        if entry.key <= before:
            faults.append(
                f"{entry.key!r} comes after {before!r}: keys are not in bytewise order, or twice there."
            )
        if not 1 <= entry.create_revision <= entry.revision <= newest:
            faults.append(
                f"{entry.key!r} was created at {entry.create_revision} and written at {entry.revision}, and "
                f"the store is at {newest}."
            )
        if len(entry.key.encode()) > claims.key_bytes_max or len(entry.value) > claims.value_bytes_max:
            faults.append(f"{entry.key[:60]!r} is larger than what the store takes by its own claims.")
        before = entry.key
    faults += await _dead_leases(store, contents)
    if store.examining is not None:
        faults += await store.examining.damage()
    return Checked(
        entries=len(contents.entries),
        leased=len(contents.entries) - len(contents.kept),
        revision=newest,
        epoch=await store.epoch(),
        frozen=await store.moving.frozen() if store.moving is not None else None,
        faults=tuple(faults),
    )


async def _dead_leases(store: Store, contents: Contents) -> list[str]:
    """Entries whose lease is over and that stand all the same, longer than the store claims."""
    if store.leasing is None:
        return []
    grant = await store.leasing.grant(30)
    told = await store.leasing.remaining(grant.lease) is not None
    await store.leasing.revoke(grant.lease)
    if not told:
        return []  # this engine does not tell what a lease has left
    faults = []
    for lease, key in {e.lease: e.key for e in contents.entries if e.lease is not None}.items():
        if await store.leasing.remaining(lease) is None:
            now = (await store.get(key)).entry
            if now is not None and now.lease == lease:
                faults.append(f"{key!r} stands under lease {lease}, which is over.")
    return faults
