"""A real `atoll up` in a folder of its own, and a small web service for it to run."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

WAIT_S = 30.0

SERVICE = '''
"""A web service that can be slow, unready, not live, or die."""
import json, os, subprocess, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

me = os.environ["ATOLL_INSTANCE"]

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *words): pass
    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        path = urlsplit(self.path); options = dict(parse_qsl(path.query))
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if path.path in ("/ready", "/live"):
            broken = os.path.exists("not" + path.path[1:]) or os.path.exists("not" + path.path[1:] + "-" + me)
            return self.answer(503 if broken else 200, b"")
        if "note" in options:
            with open(options["note"], "a") as file: file.write(me + "\\n")
        if "die_once" in options and not os.path.exists(options["die_once"]):
            open(options["die_once"], "w").close()
            os._exit(9)
        time.sleep(float(options.get("slow_s", 0)))
        said = {"instance": me, "path": self.path, "headers": dict(self.headers), "length": len(body),
                "pid": os.getpid(), "env": {k: v for k, v in os.environ.items() if k.startswith("ATOLL_")}}
        self.answer(200, json.dumps(said).encode())
    do_POST = do_PUT = do_DELETE = do_GET

print("listening", me, flush=True)
ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
'''


class Up:
    """One `atoll up`. `manifest(text)` first, then `start()`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "service.py").write_text(SERVICE)
        self.process: subprocess.Popen[bytes] | None = None
        self.seen: set[int] = set()

    def manifest(self, text: str) -> Up:
        (self.folder / "atoll.toml").write_text(text)
        return self

    def program(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def start(self, *words: str) -> Up:
        log = (self.folder / "up.log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "atoll", "up", str(self.folder), *words],
            stdout=log, stderr=subprocess.STDOUT, cwd="/", start_new_session=True,
        )  # fmt: skip
        log.close()
        return self

    @property
    def output(self) -> str:
        return (self.folder / "up.log").read_text(errors="replace")

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A verb of the command on this app."""
        return subprocess.run(
            [sys.executable, "-m", "atoll", *words],
            capture_output=True, text=True, timeout=WAIT_S, cwd=self.folder,
        )  # fmt: skip

    def card(self) -> dict[str, Any]:
        path = self.folder / ".atoll" / "up.json"
        self.until(path.is_file, "up.json is written")
        return dict(json.loads(path.read_text()))

    def status(self) -> dict[str, Any]:
        status = json.loads(self.ask("admin", "GET", "/status.json")[2])
        self.seen |= {i["pid"] for row in status["services"] for i in row["instances"] if i["pid"]}
        return dict(status)

    def service(self, name: str) -> dict[str, Any]:
        return dict(next(row for row in self.status()["services"] if row["service"] == name))

    def instance(self, name: str) -> dict[str, Any]:
        row = self.service(name.rpartition("-")[0])
        return dict(next(one for one in row["instances"] if one["name"] == name))

    def ask(
        self, door: str, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One HTTP request to the `gateway` or the `admin` port."""
        place = self.card()[door].partition("://")[2]
        connection = http.client.HTTPConnection(place, timeout=WAIT_S)
        try:
            connection.request(method, path, body or None, headers or {})
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        finally:
            connection.close()

    def port(self, door: str) -> int:
        return int(self.card()[door].rpartition(":")[2])

    def ready(self, *names: str) -> Up:
        """Wait until all instances of these services are ready."""
        for name in names:
            self.until(lambda name=name: self.service(name)["state"] in ("ready", "done"), f"{name} is ready")
        return self

    def until(self, true: Callable[[], object], what: str, wait_s: float = WAIT_S) -> None:
        until = time.monotonic() + wait_s
        while not true():
            assert time.monotonic() < until, f"waited {wait_s} s until {what}\n{self.output}"
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.end()

    def end(self) -> int:
        assert self.process is not None
        try:
            return self.process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            pytest.fail(f"`atoll up` did not end\n{self.output}")

    def clean(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(WAIT_S)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def stop_all(up: Up) -> None:
    up.clean()
    leftover = [pid for pid in up.seen if alive(pid) and _is_ours(pid, up.folder)]
    for pid in leftover:
        os.kill(pid, signal.SIGKILL)


def _is_ours(pid: int, folder: Path) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/cwd") == str(folder)
    except OSError:
        return False


SHOP = """
[app]
name = "shop"
[urls]
state = "sqlite:///.atoll/state.db"
[services.api]
command = ["python", "service.py"]
instances = 3
ready = "/ready"
[gateway]
port = 0
routes = { "/" = "api" }
"""
