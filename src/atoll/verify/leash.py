"""Leash: a worker of a demonstration or a run ends with the process that started it, however that ends.

The lamp that goes out with the one who carries it. A parent that is killed can clear nothing up, and a
worker that goes on without it would work for nobody, for ever.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1
_OWNER = "ATOLL_LEASH"
_LOOK_EVERY_S = 0.5


def environment() -> dict[str, str]:
    """What a worker is started with, so that it knows whose it is from its first line on."""
    return {**os.environ, _OWNER: str(os.getpid())}


def hold() -> None:
    """End this process when its parent ends. Call it first; stopped processes are killed too on Linux."""
    parent = int(os.environ.get(_OWNER, os.getppid()))
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:  # it ended before the line above
            os._exit(1)
        return

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_EVERY_S)
        os._exit(1)

    threading.Thread(target=look, name="atoll leash", daemon=True).start()
