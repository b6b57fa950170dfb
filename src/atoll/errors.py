"""Every error Atoll raises, on one page, in three families.

An error answers one question first: did it happen?

    AtollError
    |-- NotApplied           it certainly did not happen; asking again is safe
    |   |-- Taken            someone else holds it
    |   |-- Conflict         someone else changed it first
    |   |-- Refused          your token is older than the newest holder's
    |   |-- LeaseOver        the lease this call stands on has ended
    |   |-- LimitReached     a limit you set, or the engine's, was reached
    |   |-- NotReady         what was waited for, or relied on, is not there yet
    |   |-- Overloaded       too much is in flight; come back later
    |   |-- DiskFull         no room to write it
    |   |-- ReadOnly         the place may not be written
    |   |-- NotSent          the request never left
    |   `-- EpochUncertain   the store may have gone back in time
    |-- OutcomeUnknown       it may have happened; `.id` asks again
    |-- Interrupted          your own body was stopped; what it sent stands
    |   |-- LockLost
    |   |-- LeaderLost
    |   |-- DeliveryLost
    |   `-- UsedAfterFork
    |-- WatchEnded           nothing was asked, so nothing happened
    |   |-- WatchLost        silent for too long
    |   |-- Compacted        the place you asked to resume from is gone
    |   `-- EpochChanged     the store was restored or moved
    `-- ConfigurationError   the program is wrong, not the world
        |-- WouldDeadlock    the caller would wait for itself
        |-- MissingExtra     a client library is not installed
        `-- FormatRefused    the data is not ours, or from a newer Atoll
"""

from __future__ import annotations


class AtollError(Exception):
    """The root of every error on this page."""


class NotApplied(AtollError):
    """What you asked certainly did not happen."""


class Taken(NotApplied):
    """Someone else holds it.

    `owner` is the holder's own description of itself, `since` its wall-clock time in Unix
    seconds; both are None where the store did not say.
    """

    def __init__(self, message: str, *, owner: str | None = None, since: float | None = None) -> None:
        super().__init__(message)
        self.owner = owner
        self.since = since


class Conflict(NotApplied):
    """Someone else changed it first. Read again and decide again."""


class Refused(NotApplied):
    """A newer holder has been here: the token, or the guarded owner key, is out of date."""


class LeaseOver(NotApplied):
    """The lease named in the call has expired or was revoked."""


class LimitReached(NotApplied):
    """A limit was reached. `retry_after_s` says when to ask again, None if asking again cannot help."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotReady(NotApplied):
    """What was waited for did not come about in time, or who was relied on is not there."""


class Overloaded(NotApplied):
    """Too many calls are in flight here. Nothing was sent."""


class DiskFull(NotApplied):
    """There was no room to write it. What was there before is unharmed."""


class ReadOnly(NotApplied):
    """The file, folder or server may be read but not written."""


class NotSent(NotApplied):
    """The request never left this process."""


class EpochUncertain(NotApplied):
    """The store may have gone back in time, so an old token could look new. Exclusive use is refused."""


class OutcomeUnknown(AtollError):
    """The request was sent and no definite answer came: it may have happened, or may happen yet.

    `id` names the operation for whoever can be asked again, None where nobody can.
    """

    def __init__(self, message: str, *, id: str | None = None) -> None:
        super().__init__(message)
        self.id = id


class Interrupted(AtollError):
    """Your own body was stopped. What it had already sent stands; nothing of ours retries it."""


class LockLost(Interrupted):
    """A held lock, read lock or permit was lost while its body ran: its lease ended, or it was broken."""


class LeaderLost(Interrupted):
    """A term ended while its body ran: its lease ended, it was broken, or it stepped down."""


class DeliveryLost(Interrupted):
    """The lease of a delivery ended while its worker ran; the message goes to someone else."""


class UsedAfterFork(Interrupted):
    """A lock, term or delivery was used in a child process. It belongs to the parent."""


class WatchEnded(AtollError):
    """A watch stopped. Nothing was asked, so nothing happened."""


class WatchLost(WatchEnded):
    """The watch was silent for longer than its liveness time."""


class Compacted(WatchEnded):
    """The revision to resume from is no longer kept. `oldest` is the first one that is."""

    def __init__(self, message: str, *, oldest: int) -> None:
        super().__init__(message)
        self.oldest = oldest


class EpochChanged(WatchEnded):
    """The store was restored or moved; revisions of before cannot be compared with those of now."""


class ConfigurationError(AtollError):
    """The program asks for something that cannot be. The message says what to write instead."""


class WouldDeadlock(ConfigurationError):
    """The caller asks for what it holds itself, so it would wait for ever. Nothing was waited for."""


class MissingExtra(ConfigurationError):
    """An engine's client library is not installed. The message names the line to type."""


class FormatRefused(ConfigurationError):
    """The data is not Atoll's, is damaged, or was written by a newer format than this one reads."""
