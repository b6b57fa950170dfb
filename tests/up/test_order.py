"""B6, order: a service starts after those it names, and stops before them."""

from __future__ import annotations

from up_process import Up


def test_a_service_waits_for_what_runs_once_and_for_what_must_be_ready(up: Up) -> None:
    up.manifest("""
[services.migrate]
command = ["python", "-c", "import time; time.sleep(0.4); open('migrated', 'w')"]
run = "once"
[services.api]
command = ["python", "-c", "import os; assert os.path.exists('migrated'); exec(open('service.py').read())"]
after = ["migrate"]
ready = "/ready"
[services.worker]
command = ["python", "-c", "import time; print('works', flush=True); time.sleep(99)"]
after = ["api"]
""")
    (up.folder / "notready").touch()
    up.start()
    up.until(lambda: up.service("api")["state"] == "starting", "the service has started")
    assert up.service("worker")["waits_for"] == ["api"]
    (up.folder / "notready").unlink()
    up.ready("migrate", "api", "worker")
    assert up.service("api")["restarts"] == 0
    assert up.stop() == 0
    stopped = [line for line in up.output.splitlines() if line.endswith("stopped")]
    assert [line.split()[0] for line in stopped] == ["worker-0", "api-0"], up.output


def test_what_stands_on_a_failed_step_is_not_started_and_the_exit_code_says_so(up: Up) -> None:
    up.manifest("""
[services.migrate]
command = ["python", "-c", "raise SystemExit(4)"]
run = "once"
[services.api]
command = ["python", "service.py"]
after = ["migrate"]
ready = "/ready"
""").start()
    up.until(lambda: up.service("migrate")["gave_up"], "the step has failed")
    assert up.service("api")["waits_for"] == ["migrate"]
    assert "migrate-0 gave up; see: atoll logs migrate" in up.status()["sentence"]
    assert up.stop() == 1
    assert "exit 4, no restarts" in up.output


def test_until_ends_the_run_with_the_end_of_a_service(up: Up) -> None:
    up.program("replay.py", "import os, urllib.request as u; u.urlopen(os.environ['ATOLL_GATEWAY']).read()")
    up.manifest("""
[services.api]
command = ["python", "service.py"]
ready = "/ready"
[services.replay]
command = ["python", "replay.py"]
run = "once"
after = ["api"]
[gateway]
port = 0
routes = { "/" = "api" }
""").start("--until", "replay")
    assert up.end() == 0, up.output
    assert "-- api-0 stopped" in up.output


def test_until_ends_with_1_when_the_service_fails_or_cannot_start(up: Up) -> None:
    up.manifest("""
[services.migrate]
command = ["python", "-c", "raise SystemExit(4)"]
run = "once"
[services.replay]
command = ["python", "-c", "pass"]
run = "once"
after = ["migrate"]
""").start("--until", "replay")
    assert up.end() == 1, up.output
    refused = up.run("up", ".", "--until", "nobody")
    assert refused.returncode == 2 and "the services that run once are: migrate, replay" in refused.stderr
