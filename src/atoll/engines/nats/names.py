"""Names: any key as a NATS subject, and back.

A subject is words with dots between them, and some characters are not allowed in a word. So each segment of a
key becomes a word, what is not plain is written as `=` and two hexadecimal digits, and an empty segment as a
lone `=`.
"""

from __future__ import annotations

import re

_ODD = re.compile(rb"[^A-Za-z0-9_-]")
_CODE = re.compile(rb"=([0-9A-F]{2})")


def subject(key: str) -> str:
    """`order/8 1` -> `order.8=201`."""
    return ".".join(_word(segment) for segment in key.split("/"))


def key(subject: str) -> str:
    """What `subject` was given."""
    return "/".join(
        "" if word == "=" else _CODE.sub(lambda m: bytes([int(m[1], 16)]), word.encode()).decode()
        for word in subject.split(".")
    )


def wildcard(prefix: str) -> str:
    """The narrowest subject that every key beginning with `prefix` matches."""
    folder = prefix.rpartition("/")[0]
    return f"{subject(folder)}.>" if folder else ">"


def _word(segment: str) -> str:
    if not segment:
        return "="
    return _ODD.sub(lambda m: b"=%02X" % m[0][0], segment.encode()).decode()
