"""B6, restart: one instance at a time, each ready before the next, and no request is lost meanwhile."""

from __future__ import annotations

import json
import threading

from up_process import SHOP, Up


def test_a_rolling_restart_replaces_every_process_and_loses_no_request(up: Up) -> None:
    up.manifest(SHOP).start().ready("api")
    before = {one["pid"] for one in up.service("api")["instances"]}
    over, statuses = threading.Event(), []

    def visit() -> None:
        while not over.is_set():
            statuses.append(up.ask("gateway", "POST", "/x?slow_s=0.02")[0])

    visitors = [threading.Thread(target=visit, daemon=True) for _ in range(3)]
    for visitor in visitors:
        visitor.start()
    restarted = up.run("restart", "api")
    over.set()
    for visitor in visitors:
        visitor.join(10)
    assert restarted.returncode == 0, restarted.stderr
    assert [line.split(" ready")[0] for line in restarted.stdout.splitlines()] == ["api-0", "api-1", "api-2"]
    assert len(statuses) > 5 and set(statuses) == {200}
    after = up.service("api")
    assert not before & {one["pid"] for one in after["instances"]}
    assert after["restarts"] == 0, "a restart that was asked for is not counted as a fall"
    assert up.stop() == 0


def test_a_restart_that_does_not_become_ready_stops_there(up: Up) -> None:
    up.manifest(SHOP.replace('ready = "/ready"', 'ready = "/ready"\nstart_grace_s = 0.5')).start().ready(
        "api"
    )
    kept = up.instance("api-2")["pid"]
    (up.folder / "notready-api-1").touch()
    restarted = up.run("restart", "api", "--json")
    assert restarted.returncode == 1
    answer = json.loads(restarted.stdout)
    assert answer["well"] is False and "api-1 is restarting: not ready within 0.5 s" in answer["lines"][-1]
    assert up.instance("api-2")["pid"] == kept
    (up.folder / "notready-api-1").unlink()
    up.ready("api")


def test_given_up_instances_can_be_restarted_and_unknown_names_are_refused(up: Up) -> None:
    up.manifest("""
[services.x]
command = ["python", "-c", "import os, time; os.stat('here'); time.sleep(99)"]
restarts = { most = 0 }
""").start()
    up.until(lambda: up.service("x")["gave_up"], "it is given up")
    (up.folder / "here").touch()
    assert up.run("restart", "x").returncode == 0
    assert up.service("x")["state"] == "ready" and up.status()["ok"]
    refused = up.run("restart", "nobody")
    assert refused.returncode == 2 and "found no service 'nobody'; this app has x" in refused.stderr
    assert up.stop() == 0
