"""Privilege: what this process may do to the machine, asked before it is tried.

The bunch of keys at the belt: being called caretaker does not mean that the cellar's is on it.
"""

from __future__ import annotations

import sys
from pathlib import Path

SYS_ADMIN, NET_ADMIN = 21, 12
_NAMES = {SYS_ADMIN: "CAP_SYS_ADMIN", NET_ADMIN: "CAP_NET_ADMIN"}


def lacking(*capabilities: int) -> str:
    """Why these may not be used here; empty where they may. Root in a container often lacks them."""
    if sys.platform != "linux":
        return f"this needs Linux, found {sys.platform}"
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError as error:
        return f"/proc cannot be read: {error}"
    line = next((line for line in status.splitlines() if line.startswith("CapEff:")), "CapEff: 0")
    effective = int(line.split()[1], 16)
    missing = [_NAMES[one] for one in capabilities if not effective >> one & 1]
    return f"this needs root with {' and '.join(missing)} (or: unshare -Urnm)" if missing else ""
