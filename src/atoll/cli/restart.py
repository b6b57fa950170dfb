"""`atoll restart SERVICE`: one instance at a time, each ready before the next is stopped."""

from __future__ import annotations

import argparse
import json

from atoll.cli import named, running
from atoll.cli.numbers import seconds


def arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's words."""
    parser.add_argument("service", help="the service to restart")
    parser.add_argument("--app", metavar="FOLDER", help="the app's folder; default: above here")
    parser.add_argument("--timeout-s", type=seconds, default=300.0, help="how long to wait for the end")


def run(options: argparse.Namespace) -> int:
    """0 when every instance is ready again, 1 when one is not, 4 when the end was not seen."""
    lines: list[str] = []
    answer = running.ask(
        named.app_folder(options.app),
        {"ask": "restart", "service": options.service},
        timeout_s=options.timeout_s,
        line=lines.append if options.json else print,
    )
    if options.json:
        print(json.dumps({"service": options.service, "well": answer["well"], "lines": lines}))
    return 0 if answer["well"] else 1
