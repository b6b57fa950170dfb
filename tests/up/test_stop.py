"""B6, drain: Ctrl-C finishes what is in flight; a stubborn service is killed; a second Ctrl-C kills all."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from up_process import Up

API = """
[services.api]
command = ["python", "service.py"]
ready = "/ready"
stop_grace_s = {grace}
[gateway]
port = 0
routes = {{ "/" = "api" }}
"""


class Asking(threading.Thread):
    """One request to the gateway, in the background."""

    def __init__(self, up: Up, path: str) -> None:
        super().__init__(daemon=True)
        self.up, self.path, self.status = up, path, 0
        self.start()

    def run(self) -> None:
        try:
            self.status = self.up.ask("gateway", "GET", self.path)[0]
        except OSError:
            self.status = -1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_in_flight_is_answered_before_its_service_stops(number: int, up: Up) -> None:
    up.manifest(API.format(grace=20)).start().ready("api")
    asking = Asking(up, "/x?slow_s=1&note=begun")
    up.until((up.folder / "begun").exists, "the request is with the service")
    assert up.stop(number) == 0, up.output
    asking.join(10)
    assert asking.status == 200
    assert not (up.folder / ".atoll" / "up.json").exists()
    assert not (up.folder / ".atoll" / "up.sock").exists()


STUBBORN = """
[services.stubborn]
command = ["python", "-c", "import signal as s, time; s.signal(15, 1); print('in', flush=1); time.sleep(99)"]
stop_grace_s = {grace}
"""


def test_a_service_that_ignores_the_wish_is_killed_after_its_grace(up: Up) -> None:
    up.manifest(STUBBORN.format(grace=0.4)).start().ready("stubborn")
    pid = up.instance("stubborn-0")["pid"]
    up.until(lambda: "| in" in up.output, "it ignores SIGTERM by now")
    assert up.stop() == 0
    assert "stubborn-0 killed: did not stop within 0.4 s" in up.output
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_second_ctrl_c_kills(up: Up) -> None:
    up.manifest(STUBBORN.format(grace=600) + API.format(grace=600)).start().ready("stubborn", "api")
    up.until(lambda: "| in" in up.output, "it ignores SIGTERM by now")
    asking = Asking(up, "/x?slow_s=500&note=begun")
    up.until((up.folder / "begun").exists, "a request is in flight")
    assert up.process is not None
    up.process.send_signal(signal.SIGINT)
    up.until(lambda: "once more kills" in up.output, "the first is heard")
    assert up.stop(signal.SIGINT) == 0, up.output
    asking.join(10)
    assert asking.status != 200
