"""Address: a URL taken apart, with its options checked.

Engines are handed this instead of text, so an option is misspelt in one place only: here, with the
known ones listed.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from atoll.errors import ConfigurationError

OptionsT = TypeVar("OptionsT")

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "B": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A parsed URL. `path` is a file path for file engines: relative after `///`, absolute after `////`.

    `host` and `port` are the first server's; `others` are named after it, as in `scheme://a:1,b:2/path`.
    """

    scheme: str
    host: str = ""
    port: int | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    path: str = ""
    options: dict[str, str] = field(default_factory=dict, repr=False)
    others: tuple[tuple[str, int | None], ...] = ()

    @property
    def hosts(self) -> tuple[tuple[str, int | None], ...]:
        """Every server named, with its port where one is given; empty where none is."""
        return ((self.host, self.port), *self.others) if self.host else ()

    def __str__(self) -> str:
        """The URL again, its password masked, and that of a URL among its options."""
        login = f"{self.user}{':***' if self.password else ''}@" if self.user else ""
        place = ",".join(_place(host, port) for host, port in self.hosts) or _place("", self.port)
        query = "&".join(f"{k}={_masked(v)}" for k, v in self.options.items())
        slash = "/" if self.path else ""
        return f"{self.scheme}://{login}{place}{slash}{self.path}{'?' + query if query else ''}"

    def parse_options(self, kind: type[OptionsT]) -> OptionsT:
        """The options as the engine's frozen dataclass; unknown or unreadable ones are refused."""
        hints = get_type_hints(kind)
        known = [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]
        values: dict[str, Any] = {}
        for name, text in self.options.items():
            if name not in known:
                raise ConfigurationError(
                    f"found the option {name!r} in {self}; {self.scheme}:// knows "
                    f"{', '.join(known) or 'no options'}. Correct it or leave it out."
                )
            values[name] = _read(name, text, hints[name], self.scheme)
        return kind(**values)


def _masked(value: str) -> str:
    return re.sub(r"(://[^/@:]*:)[^/]*@", r"\1***@", value)


def _place(host: str, port: int | None) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{port}" if port else shown


def _read(name: str, text: str, hint: Any, scheme: str) -> Any:
    if get_origin(hint) in (Union, UnionType):
        hint = next(h for h in get_args(hint) if h is not NoneType)
    try:
        if hint is bool:
            return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
        if hint is int:
            return _size(text)
        if hint is float:
            return float(text)
        return hint(text)  # str, or an Enum by value
    except (KeyError, ValueError):
        expected = {bool: "true or false", int: "a whole number (64MB is one too)", float: "a number"}.get(
            hint,
            f"one of {', '.join(str(m.value) for m in hint)}" if hasattr(hint, "__members__") else "text",
        )
        raise ConfigurationError(
            f"found {name}={text} for {scheme}://; expected {expected}. Correct it or leave it out."
        ) from None


def _size(text: str) -> int:
    upper = text.strip().upper()
    for unit, factor in sorted(_UNITS.items(), key=lambda pair: -len(pair[0])):
        if upper.endswith(unit) and upper[: -len(unit)].strip().isdigit():
            return int(upper[: -len(unit)]) * factor
    return int(text)
