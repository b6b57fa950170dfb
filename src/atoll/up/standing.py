"""How the app stands: everything the page, the command and the metrics show, as plain values.

The sentence on a doctor's note comes first: well, or what hurts most. The figures are behind it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from atoll import clock
from atoll.up.panels import Panels
from atoll.up.supervisor import Supervisor
from atoll.up.traffic import Traffic

FORMAT = 1
IN_DOUBT_S = 10.0  # younger ones are transactions at work


class Standing:
    """Answers the question "how is it?" for one running app."""

    def __init__(self, supervisor: Supervisor, panels: Panels, traffic: Mapping[str, Traffic]) -> None:
        self._supervisor = supervisor
        self._panels = panels
        self.traffic = traffic
        self._began = clock.loop_now()
        self.addresses: dict[str, str | None] = {"gateway": None, "admin": None}

    async def now(self) -> dict[str, Any]:
        """The whole status. Its shape carries a format number."""
        panels = await self._panels.look()
        manifest = self._supervisor.manifest
        services = self._supervisor.rows()
        for row in services:
            known = self.traffic.get(row["service"])
            row["traffic"] = known.row() if known else None
        problems = _problems(services, panels)
        return {
            "format": FORMAT,
            "app": manifest.name,
            "pid": os.getpid(),
            "up_s": round(clock.loop_now() - self._began, 1),
            "at": clock.wall_now(),
            **self.addresses,
            "draining": self._supervisor.draining,
            "ok": not problems,
            "sentence": self._sentence(services, problems),
            "problems": problems,
            "services": services,
            "urls": self._panels.places(),
            **panels,
        }

    def _sentence(self, services: list[dict[str, Any]], problems: list[dict[str, str]]) -> str:
        name = self._supervisor.manifest.name
        if self._supervisor.draining:
            return f"{name} is stopping."
        if problems:
            more = f" And {len(problems) - 1} more." if len(problems) > 1 else ""
            return f"{name} needs a look: {problems[0]['text']}.{more}"
        late = [row["service"] for row in services if row["state"] in ("starting", "waiting")]
        if late:
            return f"{name} is starting; not ready yet: {', '.join(late)}."
        running = [row["service"] for row in services if row["state"] == "running"]
        if running:
            return f"{name} is well; still running: {', '.join(running)}."
        return f"{name} is well: everything that should run is ready."


def _problems(services: list[dict[str, Any]], panels: Mapping[str, dict[str, Any]]) -> list[dict[str, str]]:
    """The worst first: undecided transactions, then services, then dead letters."""
    found = []
    old = [row for row in panels["transactions"]["rows"] if row["age_s"] >= IN_DOUBT_S]
    if old:
        ids = len({row["id"] for row in old})
        many = "1 transaction is" if ids == 1 else f"{ids} transactions are"
        found.append(
            {
                "kind": "transactions",
                "text": f"{many} in doubt, the oldest for {max(row['age_s'] for row in old):.0f} s",
            }
        )
    for row in services:
        name = row["service"]
        if row["gave_up"]:
            who = ", ".join(row["gave_up"])
            found.append({"kind": "services", "text": f"{who} gave up; see: atoll logs {name}"})
        elif row["state"] in ("restarting", "unready", "stopping"):
            found.append({"kind": "services", "text": f"{name} has {row['ready']} of {row['wanted']} ready"})
    dead = {row["queue"]: row["dead"] for row in panels["queues"]["rows"] if row["dead"]}
    for queue, many_dead in dead.items():
        letters = "1 dead letter" if many_dead == 1 else f"{many_dead} dead letters"
        found.append({"kind": "queues", "text": f"{letters} in {queue}; see: atoll queue dead {queue}"})
    return found
