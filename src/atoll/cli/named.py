"""A URL, or @name: names come from the environment (ATOLL_NAME) or from the atoll.toml above here.

An address book at hand: the environment's page is looked at first, then the app's own.
"""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from string import Template

from atoll.errors import ConfigurationError
from atoll.urls import parse

MANIFEST = "atoll.toml"


def url(words: str, *, folder: Path | None = None, environ: Mapping[str, str] | None = None) -> str:
    """What `@name` stands for; a URL as it is, with a warning when a password is in it."""
    environ = os.environ if environ is None else environ
    if not words.startswith("@"):
        if parse(words).password:
            warn_of_password(words)
        return words
    name = words[1:]
    variable = f"ATOLL_{name.upper().replace('-', '_')}"
    if found := environ.get(variable):
        return found
    manifest = above(folder or Path.cwd())
    if manifest is None:
        raise ConfigurationError(
            f"found no {variable} in the environment and no {MANIFEST} in {folder or Path.cwd()} or above; "
            f"{words} needs one of them. Or give the URL itself."
        )
    return _from_manifest(name, manifest, environ)


def warn_of_password(words: str) -> None:
    """Say what everybody can see, and the two lines that hide it. The password is not repeated."""
    hidden = str(parse(words)).partition("?")[0]
    print(
        "atoll: a password in the words of a command is seen by everybody on this machine (ps), and kept by "
        f"the shell. Put the URL into the environment or atoll.toml and say its name:\n"
        f"    export ATOLL_STATE='{hidden}'    with the password in place of ***\n"
        "    and in place of the URL: @state",
        file=sys.stderr,
    )


def asking(words: str) -> str:
    """Like `url`, for a verb that only asks: a file that is not there is not made by asking."""
    found = url(words)
    if not found.removeprefix("faulty+").startswith("sqlite:"):
        return found
    return f"{found}{'&' if '?' in found else '?'}create=false"


def databases() -> dict[str, str]:
    """The [databases] of the nearest manifest by name; empty where there is no manifest."""
    manifest = above(Path.cwd())
    if manifest is None:
        return {}
    table = _table(_read(manifest), "databases")
    return {name: _from_manifest(name, manifest, os.environ) for name in table}


def above(folder: Path) -> Path | None:
    """The nearest manifest in `folder` or above."""
    for place in (folder.resolve(), *folder.resolve().parents):
        if (place / MANIFEST).is_file():
            return place / MANIFEST
    return None


def app_folder(words: str | None) -> Path:
    """The folder of the app meant: the one named, or that of the nearest manifest above here."""
    if words is not None:
        place = Path(words)
        return (place if place.is_dir() else place.parent).resolve()
    manifest = above(Path.cwd())
    if manifest is None:
        raise ConfigurationError(
            f"found no {MANIFEST} in {Path.cwd()} or above. Go to the app's folder, or name it: --app FOLDER"
        )
    return manifest.parent


def _from_manifest(name: str, manifest: Path, environ: Mapping[str, str]) -> str:
    raw = _read(manifest)
    named = {**_table(raw, "urls"), **_table(raw, "databases")}
    if name not in named:
        known = ", ".join(f"@{one}" for one in named) or "none"
        raise ConfigurationError(f"{manifest}: found no URL named {name!r}; it names {known}.")
    try:
        value = Template(str(named[name])).substitute(environ)
    except (KeyError, ValueError) as error:
        raise ConfigurationError(
            f"{manifest}: the URL {name!r} stands on {error}, which is not set in the environment."
        ) from None
    return _absolute(value, manifest.parent)


def _read(manifest: Path) -> dict[str, object]:
    try:
        return tomllib.loads(manifest.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{manifest}: found text that is not TOML: {error}") from None


def _table(raw: dict[str, object], key: str) -> dict[str, object]:
    found = raw.get(key)
    return found if isinstance(found, dict) else {}


def _absolute(value: str, folder: Path) -> str:
    from atoll.up.manifest import absolute

    return absolute(value, folder)
