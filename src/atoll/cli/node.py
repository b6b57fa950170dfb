"""`atoll node`: one member of a Raft cluster, in the foreground, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import logging
import sys
from typing import Any

from atoll.cli.main import NO, YES, complain
from atoll.cli.numbers import seconds
from atoll.errors import ConfigurationError, NotReady


def arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the verb."""
    parser.add_argument("--id", required=True, metavar="NAME", help="this member's name, for ever")
    parser.add_argument(
        "--data", required=True, metavar="FOLDER", help="its own folder, on a disk of its own"
    )
    parser.add_argument(
        "--members", metavar="a=H:P,...", help="all first members and where they are; the same for each"
    )
    parser.add_argument("--join", metavar="H:P", help="any member of the cluster that this one shall join")
    parser.add_argument("--listen", metavar="H:P", help="where to listen; by default where --members says")
    parser.add_argument("--place", metavar="H:P", help="where others reach it, if that is not --listen")
    parser.add_argument("--ca", metavar="FILE", help="TLS: the authority that signed all certificates")
    parser.add_argument("--cert", metavar="FILE", help="TLS: this member's certificate, with its name")
    parser.add_argument("--key", metavar="FILE", help="TLS: the key of that certificate")
    parser.add_argument(
        "--insecure",
        action="store_true",
        help="listen beyond this machine without TLS, on a network all yours",
    )
    parser.add_argument(
        "--election-s", type=seconds, default=0.5, metavar="S", help="silence before an election (0.5)"
    )
    parser.add_argument(
        "--heartbeat-s", type=seconds, default=0.1, metavar="S", help="between two heartbeats (0.1)"
    )
    parser.add_argument(
        "--lease-reads",
        action="store_true",
        help="the leader answers reads without asking a majority; believes that clocks run at one rate",
    )
    parser.add_argument("--leash", action="store_true", help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """0 after a stop that was asked for; 1 where the member must not go on, and why on standard error."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", stream=sys.stderr)
    member = importlib.import_module("atoll.engines.raft.member_options")  # engines are known by name only
    foreground = importlib.import_module("atoll.engines.raft.foreground")
    files = (options.ca, options.cert, options.key)
    if any(files) and not all(files):
        raise ConfigurationError(
            "found some of --ca, --cert and --key; expected all three, or none on this machine alone."
        )
    chosen = member.MemberOptions.of(
        options.id,
        options.data,
        members=options.members or "",
        join=options.join or "",
        listen=options.listen or "",
        place=options.place or "",
        tls=files if all(files) else None,
        insecure=options.insecure,
        election_s=options.election_s,
        heartbeat_s=options.heartbeat_s,
        lease_reads=options.lease_reads,
    )

    def ready(about: dict[str, Any]) -> None:
        if options.json:
            print(json.dumps(about), flush=True)
        else:
            print(f"{about['name']} of cluster {about['cluster']} listens on {about['place']}", flush=True)

    with asyncio.Runner(loop_factory=foreground.loop_factory()) as runner:
        why = runner.run(foreground.run(chosen, ready, leash=options.leash))
    return complain(options.json, NotReady(why), NO) if why else YES
