"""Envelope: what members say to each other, sealed; only who has the group's secret reads and writes it.

A wax seal on each letter, and a number under it. Who has not the ring cannot open it nor make one like it,
and a letter that was copied on its way is known by its number.

Promise: what is opened was sealed with a secret of this ring, unchanged, and is opened once by this process;
no nonce is used twice under one key.
What can break it: a secret that is known or guessed; a letter that was never delivered here may be delivered
late, and a process that starts anew may be told once more what was said to the one before: old news, which a
later incarnation outdoes. A machine that is copied while it runs goes on with its numbers twice: start the
process anew there.
Proved by: tests/blocks/test_members_encrypted.py
"""

from __future__ import annotations

import os
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from typing import Any

from atoll.errors import ConfigurationError, MissingExtra, UsedAfterFork

PLAIN, SEALED = b"\x01", b"\x02"
"""The first byte, which is the format too."""
HEADER = 1 + 4 + 16 + 8
OVERHEAD = HEADER + 16
SECRET_MIN = 16
RING_MAX = 8
SENDERS_MAX = 20_000
WINDOW = 4096


class Unread(Enum):
    """Why something was not opened."""

    GARBAGE = "garbage"
    UNSEALED = "not sealed"
    WRONG_KEY = "sealed with another secret"
    FORGED = "not what was sealed"
    REPLAYED = "opened before"
    OTHER_FORMAT = "of another format"


@dataclass(slots=True)
class Sender:
    """One run of somebody's process: its key, and which of its numbers were seen."""

    cipher: Any
    newest: int = 0
    seen: int = 0

    def fresh(self, number: int) -> bool:
        """Whether it is new here; what is older than WINDOW numbers is not taken."""
        if number > self.newest:
            self.seen = (self.seen << (number - self.newest) | 1) & _MASK if self._near(number) else 1
            self.newest = number
            return True
        bit = 1 << (self.newest - number)
        if self.newest - number >= WINDOW or self.seen & bit:
            return False
        self.seen |= bit
        return True

    def _near(self, number: int) -> bool:
        return number - self.newest < WINDOW


_MASK = (1 << WINDOW) - 1


class Envelopes:
    """Seals with the first secret, opens with each; without any, nothing is sealed.

    Each run of a process seals under a key of its own, made of the secret and 16 random bytes, and counts.
    """

    def __init__(self, ring: Sequence[bytes] = ()) -> None:
        self._pid = os.getpid()
        self._senders: OrderedDict[bytes, Sender] = OrderedDict()
        self.turn(ring)

    def turn(self, ring: Sequence[bytes]) -> None:
        """Another ring from now on. What was opened under a secret that stays is not opened again."""
        self._keys = {_key_id(key): key for key in ring}
        for start in [start for start in self._senders if start[:4] not in self._keys]:
            del self._senders[start]
        if ring:
            salt = secrets.token_bytes(16)
            self._start = SEALED + _key_id(ring[0]) + salt
            self._cipher, self._number = _cipher(ring[0], salt), 0

    @property
    def sealing(self) -> bool:
        """Whether there is a secret."""
        return bool(self._keys)

    def seal(self, kind: bytes, data: bytes) -> bytes:
        """`kind` says what it is for, and must be said again to open it."""
        if not self._keys:
            return PLAIN + data
        if os.getpid() != self._pid:
            raise UsedAfterFork("a member was used in a forked child: the child joins under its own name.")
        self._number += 1
        number = self._number.to_bytes(8)
        header = self._start + number
        return header + bytes(self._cipher.encrypt(b"\0\0\0\0" + number, data, header + kind))

    def open(self, kind: bytes, data: bytes) -> bytes | Unread:
        """What was sealed, or why it is not read."""
        if data[:1] == PLAIN:
            return Unread.UNSEALED if self._keys else data[1:]
        if data[:1] != SEALED or len(data) < OVERHEAD:
            return Unread.GARBAGE
        key = self._keys.get(data[1:5])
        if key is None:
            return Unread.WRONG_KEY
        known = self._senders.get(data[1:21])
        sender = known or Sender(_cipher(key, data[5:21]))
        try:
            opened = bytes(sender.cipher.decrypt(b"\0\0\0\0" + data[21:29], data[29:], data[:29] + kind))
        except _invalid_tag():
            return Unread.FORGED
        if known is None:
            self._senders[data[1:21]] = sender
            if len(self._senders) > SENDERS_MAX:
                self._senders.popitem(last=False)
        else:
            self._senders.move_to_end(data[1:21])
        return opened if sender.fresh(int.from_bytes(data[21:29])) else Unread.REPLAYED


def ring_of(given: str | bytes | Sequence[str | bytes] | None) -> list[bytes]:
    """Keys of the secrets as a user gives them: one, or the one to seal with and then more to open with."""
    if given is None:
        return []
    found = [given] if isinstance(given, str | bytes) else list(given)
    if not 0 < len(found) <= RING_MAX:
        raise ConfigurationError(
            f"found {len(found)} secrets; expected 1 to {RING_MAX}, first the one to seal with"
        )
    raw = [secret.encode() if isinstance(secret, str) else secret for secret in found]
    if any(len(secret) < SECRET_MIN for secret in raw):
        raise ConfigurationError(
            f"found a secret of {min(map(len, raw))} bytes; expected at least {SECRET_MIN}, drawn by chance: "
            "`python -c 'import secrets; print(secrets.token_hex(32))'` makes one."
        )
    return [blake2b(secret, digest_size=32, person=b"atoll.members").digest() for secret in raw]


def _key_id(key: bytes) -> bytes:
    return blake2b(key, digest_size=4, person=b"atoll.key.id").digest()


def _cipher(key: bytes, salt: bytes) -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise MissingExtra("a secret needs the cryptography package: pip install 'atoll[members]'") from None
    return AESGCM(blake2b(salt, key=key, digest_size=32, person=b"atoll.run").digest())


def _invalid_tag() -> type[Exception]:
    from cryptography.exceptions import InvalidTag

    return InvalidTag
