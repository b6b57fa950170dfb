"""B6, self-healing: what falls is picked up, within a budget; what falls for ever is given up aloud."""

from __future__ import annotations

import os
import signal

from up_process import Up

API = """
[services.api]
command = ["python", "service.py"]
instances = 2
ready = "/ready"
live = "/live"
start_grace_s = 20
[gateway]
port = 0
wait_ready_s = 0.2
routes = { "/" = "api" }
"""


def test_a_killed_instance_comes_back_and_the_end_is_told(up: Up) -> None:
    up.manifest(API).start().ready("api")
    pid = up.instance("api-1")["pid"]
    os.kill(pid, signal.SIGKILL)
    up.until(lambda: up.instance("api-1")["restarts"] == 1, "it has fallen")
    up.ready("api")
    again = up.instance("api-1")
    assert again["pid"] != pid and "killed (9, SIGKILL), back after" in again["last"]
    assert up.service("api")["restarts"] == 1
    events = [e for e in up.ask("admin", "GET", "/events.json")[2].decode().split("\n") if "SIGKILL" in e]
    assert events
    assert up.stop() == 0


def test_an_instance_that_is_not_live_is_restarted_and_one_not_ready_is_only_set_aside(up: Up) -> None:
    up.manifest(API).start().ready("api")
    first = up.instance("api-0")["pid"], up.instance("api-1")["pid"]
    (up.folder / "notready-api-0").touch()
    up.until(lambda: up.instance("api-0")["state"] == "unready", "it is set aside")
    assert {up.ask("gateway", "GET", "/x")[0] for _ in range(4)} == {200}
    (up.folder / "notready-api-0").unlink()
    up.ready("api")
    assert up.instance("api-0")["pid"] == first[0]
    (up.folder / "notlive-api-1").touch()
    up.until(lambda: up.instance("api-1")["restarts"] == 1, "it is restarted")
    assert "not live, 3 times: GET /live" in up.instance("api-1")["last"]
    (up.folder / "notlive-api-1").unlink()
    up.ready("api")
    assert up.instance("api-1")["pid"] != first[1]


def test_a_crash_loop_is_given_up_aloud_and_the_others_go_on(up: Up) -> None:
    up.manifest(API + """
[services.broken]
command = ["python", "-c", "print('no configuration'); raise SystemExit(3)"]
restarts = { most = 3, within_s = 60 }
""").start().ready("api")  # fmt: skip
    up.until(lambda: up.service("broken")["gave_up"] == ["broken-0"], "it is given up")
    row = up.service("broken")
    assert (row["state"], row["restarts"]) == ("gave up", 3)
    assert up.ask("gateway", "GET", "/x")[0] == 200
    shown = up.run("status")
    assert shown.returncode == 1 and "gave up; see: atoll logs broken" in shown.stdout
    logs = up.run("logs", "broken")
    assert logs.stdout.count("no configuration") == 4
    assert "gave up: exit 3, after 3 restarts within 60 s; see: atoll logs broken" in up.output
    assert up.stop() == 1


def test_a_service_that_is_never_ready_is_stopped_after_its_grace(up: Up) -> None:
    (up.folder / "notready").touch()
    up.manifest(API.replace("start_grace_s = 20", "start_grace_s = 0.5\nrestarts = { most = 0 }")).start()
    up.until(lambda: len(up.service("api")["gave_up"]) == 2, "both are given up")
    assert "not ready within 0.5 s: GET /ready on port" in up.instance("api-0")["cause"]
    status, headers, body = up.ask("gateway", "GET", "/x")
    assert status == 503 and headers["retry-after"] == "1" and b"no instance of api is ready" in body
    assert up.stop() == 1


def test_a_command_that_is_no_program_says_so(up: Up) -> None:
    up.program("broken.sh", "#!/no/such/interpreter\n")
    (up.folder / "broken.sh").chmod(0o755)
    up.manifest("""
[services.x]
command = ["./broken.sh"]
restarts = { most = 0 }
""").start()
    up.until(lambda: up.service("x")["gave_up"], "it is given up")
    assert "could not start ./broken.sh: No such file or directory" in up.instance("x-0")["cause"]
    assert up.stop() == 1
