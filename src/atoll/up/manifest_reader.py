"""Reads values out of a TOML manifest and notes each fault with its line.

A proof-reader's pencil: it goes on after the first mistake, and every mark in the margin says what
stands there and what should. The lines come from the text itself, because the parser forgets them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_HEADER = re.compile(r"^\s*\[+\s*([^\]#]+?)\s*\]+")
_PLACE = re.compile(r"\(at line (\d+), column (\d+)\)|\(at end of document\)")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class Fault:
    """One mark in the margin. `line` counts from 1."""

    line: int
    found: str
    expected: str

    @property
    def text(self) -> str:
        return f"found {self.found}; expected {self.expected}."

    def masked(self, used: Mapping[str, str]) -> Fault:
        """The same, with every value from the environment written as its name again."""
        found = self.found
        for name, value in sorted(used.items(), key=lambda pair: -len(pair[1])):
            found = found.replace(value, f"${{{name}}}") if value else found
        return Fault(self.line, found, self.expected)

    @classmethod
    def of_toml(cls, text: str, message: str) -> Fault:
        """The parser's own complaint, with its line."""
        place = _PLACE.search(message)
        line = int(place.group(1)) if place and place.group(1) else len(text.splitlines())
        return cls(line, f"text that is not TOML ({_PLACE.sub('', message).strip()})", "TOML")


def line_of(text: str, table: str, key: str) -> int:
    """The line of `key` in `table`; the table's own line, else 1, when it is not written out there."""
    wanted, header, best = table.replace('"', ""), "", 0
    inline = wanted.rpartition(".")[2]
    for number, line in enumerate(text.splitlines(), 1):
        if match := _HEADER.match(line):
            header = match.group(1).replace('"', "").replace(" ", "")
            if header == wanted or (header.startswith(f"{wanted}.") and not best):
                best = number
            if not key and header == wanted:
                return number
        elif key and header == wanted and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[.=]", line):
            return number
        elif inline and header and f"{header}.{inline}" == wanted and re.match(rf"\s*{inline}\b", line):
            best = number
        elif not table and re.match(rf"\s*{re.escape(key)}\s*[.=]", line):
            return number
    return best or 1


def fill_in(raw: Any, environ: Mapping[str, str], text: str) -> tuple[Any, list[Fault], dict[str, str]]:
    """`${NAME}` replaced from the environment everywhere; a missing one is a fault.

    Answers also which names were used for which values, so that no fault shows a value.
    """
    faults: list[Fault] = []
    used: dict[str, str] = {}

    def line(name: str) -> int:
        return next((n for n, row in enumerate(text.splitlines(), 1) if f"${{{name}}}" in row), 1)

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in environ:
            faults.append(Fault(line(name), f"${{{name}}}, which is not set", "it in the environment"))
        used[name] = environ.get(name, "")
        return used[name]

    def walk(item: Any) -> Any:
        if isinstance(item, str):
            return _VARIABLE.sub(value, item)
        if isinstance(item, list):
            return [walk(one) for one in item]
        if isinstance(item, dict):
            return {key: walk(one) for key, one in item.items()}
        return item

    return walk(raw), faults, used


class Reader:
    """Typed values from the parsed manifest; what is wrong goes to `faults` and a default comes back."""

    def __init__(self, text: str, raw: dict[str, Any], faults: list[Fault]) -> None:
        self._text = text
        self._raw = raw
        self.faults = faults

    def fault(self, table: str, key: str, found: str, expected: str) -> None:
        """Note a fault at `key` of `table`."""
        self.faults.append(Fault(self.line(table, key), found, expected))

    def line(self, table: str, key: str) -> int:
        return line_of(self._text, table, key)

    def table(self, where: str) -> dict[str, Any]:
        """The table at a dotted path; empty when it is not there."""
        found: Any = self._raw
        for part in where.split("."):
            found = found.get(part, {}) if isinstance(found, dict) else {}
        return found if self.is_table(where, found) else {}

    def is_table(self, where: str, found: Any) -> bool:
        """Whether it is a table; a fault when not."""
        if isinstance(found, dict):
            return True
        parent, _, key = where.rpartition(".")
        fault = Fault(self.line(parent, key), f"{where} = {_short(found)}", f"a table [{where}]")
        if fault not in self.faults:
            self.faults.append(fault)
        return False

    def only(self, where: str, table: Mapping[str, Any], known: Iterable[str]) -> None:
        """Every key must be one of `known`."""
        names = list(known)
        for key in table:
            if key not in names:
                near = difflib.get_close_matches(key, names, n=1)
                hint = f"{near[0]!r}" if near else f"one of: {', '.join(names)}"
                found = f"the key {key!r} in [{where}]" if where else f"[{key}]"
                line = self.line(where, key) if where else self.line(key, "")
                self.faults.append(Fault(line, found, hint))

    def named(self, where: str, name: str, pattern: str) -> None:
        """A table's own name must match."""
        if not re.fullmatch(pattern, name):
            self.fault(where, "", f"the name {name!r}", "small letters, digits and -, a letter first")

    def text(
        self, where: str, key: str, *, pattern: str | None = None, one_of: tuple[str, ...] = ()
    ) -> str | None:
        value = self.table(where).get(key)
        if value is None:
            return None
        if not isinstance(value, str) or not value:
            self.fault(where, key, f"{key} = {_short(value)}", "text in quotes")
            return None
        if one_of and value not in one_of:
            self.fault(where, key, f"{key} = {value!r}", " or ".join(map(repr, one_of)))
        elif pattern and not re.fullmatch(pattern, value):
            path = pattern.startswith("/")
            wish = "a path such as /ready" if path else "small letters, digits and -, a letter first"
            self.fault(where, key, f"{key} = {value!r}", wish)
        return value

    def texts(self, where: str) -> dict[str, str]:
        """A table of texts; values are not repeated in a fault, they may be secrets."""
        found = {}
        for key, value in self.table(where).items():
            if isinstance(value, str):
                found[key] = value
            else:
                self.fault(where, key, f"{key}, which is no text", "text in quotes")
        return found

    def whole(self, where: str, key: str, default: int, least: int, most: int) -> int:
        value = self.table(where).get(key, default)
        if isinstance(value, int) and not isinstance(value, bool):
            if value == default or least <= value <= most:
                return value
        self.fault(where, key, f"{key} = {_short(value)}", f"a whole number from {least} to {most}")
        return default

    def seconds(self, where: str, key: str, default: float) -> float:
        value = self.table(where).get(key, default)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 86_400:
            return float(value)
        self.fault(where, key, f"{key} = {_short(value)}", "seconds, more than 0 and at most 86400")
        return default

    def list(self, where: str, key: str) -> tuple[str, ...]:
        value = self.table(where).get(key, [])
        if isinstance(value, list) and all(isinstance(word, str) for word in value):
            return tuple(value)
        self.fault(where, key, f"{key} = {_short(value)}", 'a list of texts, ["like", "this"]')
        return ()

    def words(self, where: str, key: str) -> tuple[str, ...]:
        """A command: a list, because no shell reads it."""
        value = self.table(where).get(key)
        if value is None:
            self.fault(where, "", f"no {key} in [{where}]", f'{key} = ["program", "argument"]')
            return ()
        if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
            shown = '", "'.join(value.split()) if isinstance(value, str) else "program"
            self.fault(where, key, f"{key} = {_short(value)}", f'a list, ["{shown}"]: no shell reads it')
            return ()
        return tuple(value)


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
