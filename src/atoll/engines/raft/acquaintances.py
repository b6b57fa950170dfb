"""Acquaintances: which data folder stands behind each member's name, remembered for ever.

A porter who remembers faces. A name that comes back with another face has lost its memory: whatever it had
promised to others, it does not know any more. It is asked to come in under a new name.

Why: a member whose disk was wiped may vote twice in one term, or let an acknowledged write go by voting for
someone who never had it. Its log cannot tell it so; the others' memory can.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec

from atoll.algorithms.raft.messages import Member
from atoll.engines.raft import files
from atoll.errors import FormatRefused

FORMAT = 1
FILE = "acquaintances"


class _Kept(msgspec.Struct):
    format: int
    born: dict[str, str]


class Acquaintances:
    """Names and folders; forced to disk before anybody new is believed."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        self._born: dict[Member, str] = {}
        self._writing = asyncio.Lock()
        try:
            kept = msgspec.json.decode(self._file.read_bytes(), type=_Kept)
        except FileNotFoundError:
            return
        except msgspec.DecodeError as error:
            raise FormatRefused(f"found {self._file}, which cannot be read: {error}") from None
        if kept.format > FORMAT:
            raise FormatRefused(
                f"found {self._file} of format {kept.format}; this release reads up to {FORMAT}. "
                "Use a newer one."
            )
        self._born = kept.born

    def born(self, name: Member) -> str:
        """What `name`'s folder is named, "" if it was never met."""
        return self._born.get(name, "")

    def stranger(self, name: Member, born: str) -> str:
        """A sentence where `name` comes with another folder than it had; "" where all is well."""
        known = self._born.get(name, born)
        if known == born:
            return ""
        return self.sentence(name, born, known)

    @staticmethod
    def sentence(name: Member, born: str, known: str) -> str:
        """Why a name with another folder is turned away."""
        return (
            f"the member {name!r} comes with another data folder ({born[:8]}) than it had ({known[:8]}): "
            "what it had promised is lost with the old one, so it must not vote. Remove it, and add it under "
            "a new name with an empty folder; or start it again on its old folder."
        )

    async def remember(self, name: Member, born: str) -> str:
        """Believe that `born` is `name`'s folder, from now on and after a crash too; else why not."""
        if self._born.get(name) == born:
            return ""
        async with self._writing:
            stranger = self.stranger(name, born)
            if stranger or self._born.get(name) == born:
                return stranger
            kept = _Kept(FORMAT, {**self._born, name: born})
            await asyncio.to_thread(_write, self._file, msgspec.json.encode(kept))
            self._born[name] = born
            return ""


def _write(path: Path, data: bytes) -> None:
    """Put `data` in the place of the file, so that a power cut leaves the old or the new one."""
    fresh = path.with_name(path.name + ".new")
    files.write_whole(fresh, [data], files.force)
    os.replace(fresh, path)
    files.force_folder(path.parent, files.force)
