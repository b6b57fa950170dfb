"""B6, the admin port: one page that stands alone, its figures, read-only, and nobody else's name."""

from __future__ import annotations

import json
import re
import socket
from importlib import resources

import pytest
from up_process import Up


def test_the_page_stands_alone_and_is_made_of_its_figures(shop: Up) -> None:
    status, headers, body = shop.ask("admin", "GET", "/")
    page = body.decode()
    assert status == 200 and headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in headers["content-security-policy"]
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?:https?:)?//""", page), "it needs no other place"
    assert page == resources.files("atoll.up").joinpath("dashboard/index.html").read_text()
    assert {"/status.json", "/events.json", "/metrics"} <= set(re.findall(r'href="([^"]+)"', page))


def test_the_status_has_a_sentence_and_every_instance(shop: Up) -> None:
    status = shop.status()
    assert status["format"] == 1 and status["ok"] is True
    assert status["sentence"] == "shop is well: everything that should run is ready."
    row = status["services"][0]
    assert (row["service"], row["ready"], row["wanted"], row["state"]) == ("api", 3, 3, "ready")
    assert len({one["pid"] for one in row["instances"]}) == 3
    assert status["urls"] == [{"name": "state", "scheme": "sqlite"}]


def test_the_events_say_what_changed_newest_first(shop: Up) -> None:
    events = json.loads(shop.ask("admin", "GET", "/events.json")[2])["events"]
    assert [e["what"] for e in events if e["who"] == "api-0"] == ["ready", "starting"]


def test_the_metrics_count_what_passed_the_gateway(shop: Up) -> None:
    for _ in range(3):
        assert shop.ask("gateway", "GET", "/x")[0] == 200
    status, headers, body = shop.ask("admin", "GET", "/metrics")
    text = body.decode()
    assert status == 200 and headers["content-type"].startswith("text/plain; version=0.0.4")
    answered = re.search(r'atoll_gateway_requests_total\{service="api",status="200"\} (\d+)', text)
    assert answered and int(answered.group(1)) >= 3
    assert 'atoll_service_ready{service="api"} 3' in text
    assert f'atoll_gateway_request_seconds_bucket{{service="api",le="+Inf"}} {answered.group(1)}' in text
    for line in text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) atoll_\w+ .+|atoll_\w+(\{[^{}]+\})? -?[0-9.e+-]+", line), line


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_it_shows_and_never_does(method: str, shop: Up) -> None:
    status, headers, _ = shop.ask("admin", method, "/status.json")
    assert status == 405 and headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "localhost.evil"]
)
def test_a_foreign_name_sees_nothing(host: str, shop: Up) -> None:
    status, _, body = shop.ask("admin", "GET", "/status.json", headers={"Host": host})
    assert status == 421 and b"api" not in body


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:9999", "[::1]:80"])
def test_this_machines_own_names_are_answered(host: str, shop: Up) -> None:
    assert shop.ask("admin", "GET", "/status.json", headers={"Host": host})[0] == 200


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET\r\n\r\n", b"\n" * 5000 + b"x\r\n\r\n"]
)
@pytest.mark.parametrize("door", ["admin", "gateway"])
def test_garbage_does_no_harm(door: str, garbage: bytes, shop: Up) -> None:
    with socket.create_connection(("127.0.0.1", shop.port(door)), timeout=10) as connection:
        connection.sendall(garbage)
        connection.shutdown(socket.SHUT_WR)
        heard = connection.recv(4096)
    assert heard == b"" or b" 400 " in heard.split(b"\r\n")[0]
    assert shop.ask(door, "GET", "/metrics")[0] == 200
    assert "Traceback" not in shop.output


def test_nothing_else_is_there(shop: Up) -> None:
    status, _, body = shop.ask("admin", "GET", "/../../etc/passwd")
    assert status == 404 and b"/status.json" in body
