"""One column of the demo: an app under `atoll up`, the record replayed through it, and a killer outside.

The killer reads who runs from the admin port and sends SIGKILL by a seeded plan: so many kills, at so many
answered flights. It knows nothing of what the victims are doing.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass(kw_only=True)
class Seen:
    """What was seen while a column ran."""

    kills: int = 0
    kills_of_the_leader: int = 0
    restarts: int = 0
    in_doubt_most: int = 0
    replay: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


class Column:
    """Starts the app in `folder`, watches it to its end. `env`: what the services get besides."""

    def __init__(self, name: str, manifest: Path, env: dict[str, str]) -> None:
        self.name = name
        self.manifest = manifest
        self.folder = manifest.parent / ".atoll"
        self.seen = Seen()
        self._env = {**os.environ, **env}
        self._up: subprocess.Popen[bytes] | None = None
        self._admin = ""

    def start(self) -> None:
        """A fresh folder, and `atoll up` in it; its output goes to a file there."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        log = (self.folder / "up.log").open("wb")
        command = [sys.executable, "-m", "atoll", "up", str(self.manifest)]
        self._up = subprocess.Popen(command, env=self._env, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def status(self) -> dict[str, Any] | None:
        """What the admin port says now, None before it answers."""
        try:
            if not self._admin:
                self._admin = json.loads((self.folder / "up.json").read_text())["admin"]
            with urllib.request.urlopen(f"{self._admin}/status.json", timeout=5) as answer:
                return dict(json.load(answer))
        except (OSError, ValueError, KeyError):
            return None

    def alive(self) -> bool:
        return self._up is not None and self._up.poll() is None

    def stop(self) -> int:
        """Ctrl-C, as a person would; answers the exit code."""
        assert self._up is not None
        if self.alive():
            self._up.send_signal(signal.SIGINT)
        try:
            return self._up.wait(timeout=40)
        except subprocess.TimeoutExpired:
            self._up.kill()
            return self._up.wait()

    def kill_one(self, service: str, dice: random.Random) -> bool:
        """SIGKILL a running instance of `service`: the elected one where there is one, else by chance."""
        pids = self.pids(service)
        if not pids:
            return False
        leading = [pid for pid in pids if pid in self.leaders()]
        try:
            os.kill(dice.choice(leading or pids), signal.SIGKILL)
        except ProcessLookupError:  # it died meanwhile, of something else; the next try finds another
            return False
        self.seen.kills += 1
        self.seen.kills_of_the_leader += bool(leading)
        return True

    def leaders(self) -> set[int]:
        """The processes that lead now, by the owners the admin port names."""
        locks = ((self.status() or {}).get("locks") or {}).get("rows") or []
        return {int(pid) for one in locks for pid in re.findall(r"pid (\d+)", str(one.get("owner")))}

    def pids(self, service: str) -> list[int]:
        """Of the instances that are up."""
        status = self.status() or {"services": []}
        for one in status["services"]:
            if one["service"] == service:
                return [i["pid"] for i in one["instances"] if i["pid"] and i["state"] in ("ready", "running")]
        return []

    def answered(self) -> int:
        """Flights answered so far, as the replay's last line says."""
        try:
            text = (self.folder / "progress").read_text()
            return int(text or 0)
        except (OSError, ValueError):
            return 0

    def replay_over(self) -> bool:
        """Whether the replay has written its report."""
        try:
            self.seen.replay = json.loads((self.folder / "replay.json").read_text())
            return True
        except (OSError, ValueError):
            return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One line of the killer's plan: at so many answered flights, one of this service."""

    at: int
    service: str


def plan(seed: int, flights: int, *, dispatch: int, statistics: int, auditor: int) -> list[Kill]:
    """The same for both columns: where in the record which service is hit."""
    dice = random.Random(seed)
    services = ["dispatch"] * dispatch + ["statistics"] * statistics + ["auditor"] * auditor
    kills = [Kill(at=dice.randrange(flights // 10, flights * 9 // 10), service=s) for s in services]
    return sorted(kills, key=lambda kill: kill.at)


def wait_for(true: Callable[[], bool], seconds: float, what: str, every_s: float = 0.05) -> None:
    """Wait until `true`; the demo fails with a sentence when it does not come."""
    due = time.monotonic() + seconds
    while not true():
        if time.monotonic() > due:
            raise SystemExit(f"waited {seconds:g} s in vain: {what}")
        time.sleep(every_s)
