"""The figures of a running app in the Prometheus text format.

The same numbers as on the page, for a machine that comes by and writes them down.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from atoll.up.traffic import BUCKETS_S, Traffic

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


def exposition(status: Mapping[str, Any], traffic: Mapping[str, Traffic]) -> str:
    """All metrics. Names begin with `atoll_`; times in seconds."""
    lines: list[str] = []
    _write(lines, "atoll_up_seconds", "gauge", "Since the app was started.", [({}, status["up_s"])])
    services = status["services"]
    for key, text in (("ready", "Instances that are ready."), ("wanted", "Instances that should be ready.")):
        samples = [({"service": s["service"]}, s[key]) for s in services]
        _write(lines, f"atoll_service_{key}", "gauge", text, samples)
    restarts = [
        ({"service": s["service"], "instance": i["name"]}, i["restarts"])
        for s in services
        for i in s["instances"]
    ]
    _write(lines, "atoll_restarts_total", "counter", "Restarts that nobody asked for.", restarts)
    _write(
        lines, "atoll_gave_up", "gauge", "Instances that are not restarted any more.",
        [({"service": s["service"]}, len(s["gave_up"])) for s in services],
    )  # fmt: skip
    _gateway(lines, traffic)
    _panels(lines, status)
    return "\n".join(lines) + "\n"


def _gateway(lines: list[str], traffic: Mapping[str, Traffic]) -> None:
    answers = [
        ({"service": name, "status": str(code)}, n)
        for name, t in traffic.items()
        for code, n in t.answers.items()
    ]
    _write(lines, "atoll_gateway_requests_total", "counter", "Requests answered, by status.", answers)
    retries = [({"service": name}, t.retries) for name, t in traffic.items()]
    _write(lines, "atoll_gateway_retries_total", "counter", "Requests asked again elsewhere.", retries)
    flying = [({"service": name}, t.in_flight) for name, t in traffic.items()]
    _write(lines, "atoll_gateway_in_flight", "gauge", "Requests being served.", flying)
    name = "atoll_gateway_request_seconds"
    if traffic:
        lines += [f"# HELP {name} From the request's head to the answer's end.", f"# TYPE {name} histogram"]
    for service, t in traffic.items():
        below = 0
        for bound, n in zip((*map(str, BUCKETS_S), "+Inf"), t.buckets, strict=True):
            below += n
            lines.append(_sample(f"{name}_bucket", {"service": service, "le": bound}, below))
        lines.append(_sample(f"{name}_sum", {"service": service}, round(t.seconds, 6)))
        lines.append(_sample(f"{name}_count", {"service": service}, below))


def _panels(lines: list[str], status: Mapping[str, Any]) -> None:
    if status["transactions"]["asked"]:
        rows = status["transactions"]["rows"]
        count: list[tuple[dict[str, str], float]] = [({}, len({row["id"] for row in rows}))]
        _write(lines, "atoll_transactions_in_doubt", "gauge", "Transactions without a known end.", count)
    queues = status["queues"]["rows"]
    for state in ("ready", "delayed", "leased", "dead"):
        samples = [({"broker": q["broker"], "queue": q["queue"]}, q[state]) for q in queues]
        _write(lines, f"atoll_queue_{state}", "gauge", f"Messages that are {state}.", samples)
    ages = [({"broker": q["broker"], "queue": q["queue"]}, q["oldest_age_s"]) for q in queues]
    _write(lines, "atoll_queue_oldest_seconds", "gauge", "Age of the oldest message.", ages)


def _write(
    lines: list[str], name: str, kind: str, text: str, samples: Iterable[tuple[Mapping[str, str], float]]
) -> None:
    written = [_sample(name, labels, value) for labels, value in samples]
    if written:
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *written]


def _sample(name: str, labels: Mapping[str, str], value: float) -> str:
    inside = ",".join(f'{key}="{_escape(text)}"' for key, text in labels.items())
    return f"{name}{{{inside}}} {value}" if inside else f"{name} {value}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
