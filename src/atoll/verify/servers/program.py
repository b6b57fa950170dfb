"""Program: an executable that a server needs, where it may be, and how to get it where it is not."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from atoll.errors import MissingExtra


@dataclass(frozen=True, slots=True)
class Program:
    """`names`: commands or absolute paths, the first that is there counts. `get`: the line to type."""

    product: str
    names: Sequence[str]
    get: str

    def find(self) -> Path | None:
        """Where it is, None where it is not installed."""
        for name in self.names:
            found = shutil.which(name) or (name if name.startswith("/") and Path(name).is_file() else None)
            if found:
                return Path(found)
        return None

    def expect(self) -> Path:
        """Where it is; else what to type to have it."""
        found = self.find()
        if found is None:
            raise MissingExtra(
                f"found no {self.product} on this machine (looked for {', '.join(self.names)}). "
                f"Type: {self.get}"
            )
        return found
