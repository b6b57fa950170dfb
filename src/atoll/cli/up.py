"""`atoll up [FOLDER|FILE]`: run an app of several services on this machine until Ctrl-C."""

from __future__ import annotations

import argparse
import logging

from atoll.cli import named
from atoll.errors import ConfigurationError


def arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's words."""
    parser.add_argument(
        "where", nargs="?", help="a folder with an atoll.toml, or the file; default: above here"
    )
    parser.add_argument("--check", action="store_true", help="check the manifest and start nothing")
    parser.add_argument(
        "--quiet", action="store_true", help="show changes of state only, not what services print"
    )
    parser.add_argument(
        "--until", metavar="SERVICE", help="stop when this service, which runs once, has ended"
    )


def run(options: argparse.Namespace) -> int:
    """0 after a good end, 1 when a service gave up, 2 for a faulty manifest, 3 when a port is taken."""
    from atoll.up import manifest as manifests

    manifest = manifests.load(options.where if options.where else named.app_folder(None))
    once = [service.name for service in manifest.services if service.once]
    if options.until and options.until not in once:
        known = ", ".join(once) or "none"
        raise ConfigurationError(f"found --until {options.until}; the services that run once are: {known}.")
    from atoll.up import run as running
    from atoll.up.supervisor import check_commands

    if options.check:
        check_commands(manifest)
        print(f"{manifest.path} is right: {len(manifest.services)} services")
        return 0
    logging.getLogger("atoll.up").addHandler(logging.NullHandler())
    return running.run(manifest, quiet=options.quiet or options.json, until=options.until)
