"""Translation: what a member's refusal, or its silence, means for the one question: did it happen?

A postman who comes back. "Nobody lives there" is one thing, "they took it and said nothing" another; and what
the door said aloud is a third. Only what is certain is called certain; the rest may have happened.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from atoll.engines.etcd.call import Ended
from atoll.errors import (
    AtollError,
    ConfigurationError,
    DiskFull,
    LeaseOver,
    LimitReached,
    NotSent,
    OutcomeUnknown,
    Overloaded,
    ReadOnly,
)


class Verdict(Enum):
    """What a failed call is known to have done."""

    NEVER_SENT = "never sent"  # no connection was there to send it on
    NOT_HERE = "not here"  # this member cannot now, and said so before it did anything
    TOKEN = "token"  # the password was forgotten by the server; nothing was done
    DEFINITE = "definite"  # answered with an error; nothing was done
    UNKNOWN = "unknown"


@dataclass(eq=False)
class Failure(Exception):
    """One failed call at one member. `text`: what etcd or the connection said."""

    verdict: Verdict
    text: str
    address: str
    code: str = ""


# The beginning of what etcd says, without "etcdserver: ", where it is said before anything is done or when
# the entry is applied and refused. The tests meet most of them; the rest is how etcd is known to behave.
_NOT_HERE = ("no leader", "rpc not supported for learner", "not capable")
_TOKEN = ("invalid auth token", "revision of auth store is old")
_DEFINITE = (
    "request is too large",
    "too many operations in txn request",
    "duplicate key given in txn request",
    "mvcc: database space exceeded",
    "mvcc: required revision has been compacted",
    "mvcc: required revision is a future revision",
    "requested lease not found",
    "lease already exists",
    "too large lease TTL",
    "permission denied",
    "user name is empty",
    "user name not found",
    "authentication failed",
    "authentication is not enabled",
    "too many requests",
    "corrupt cluster",
    "key is not provided",
)
_TOO_LARGE = "received message larger than max"


def failure(error: Ended, address: str) -> Failure:
    """What the end of a call at `address` means."""
    code, text = error.code, error.text
    said = text.removeprefix("etcdserver: ")
    if not error.sent:
        verdict = Verdict.NEVER_SENT
    elif said.startswith(_NOT_HERE):
        verdict = Verdict.NOT_HERE
    elif said.startswith(_TOKEN):
        verdict = Verdict.TOKEN
    elif said.startswith(_DEFINITE) or _TOO_LARGE in text or code == "UNIMPLEMENTED":
        verdict = Verdict.DEFINITE
    else:
        verdict = Verdict.UNKNOWN
    return Failure(verdict, said, address, code)


def raised(failed: Failure, what: str, url: str, id: str | None = None) -> AtollError:
    """The sentence of a failure that nobody mends."""
    match failed.verdict:
        case Verdict.UNKNOWN:
            return OutcomeUnknown(
                f"{what} was sent to {failed.address} of {url} and got no definite answer "
                f"({failed.text or failed.code}). It may have happened, or may happen yet: read before you "
                "ask again.",
                id=id,
            )
        case Verdict.NEVER_SENT | Verdict.NOT_HERE:
            return NotSent(
                f"{what} was not done by any member of {url}; the last, {failed.address}, said: "
                f"{failed.text}. "
                "Nothing happened. See whether a majority of the members runs and can be reached from here."
            )
        case _:
            return _definite(failed, what, url)


def _definite(failed: Failure, what: str, url: str) -> AtollError:
    text = failed.text
    if text.startswith("mvcc: database space exceeded"):
        return DiskFull(
            f"{what} was refused by {url}: its database has reached --quota-backend-bytes and takes no "
            f"writes. "
            "Free room: etcdctl compact REVISION, etcdctl defrag, then etcdctl alarm disarm; or raise the "
            "quota."
        )
    if text.startswith("request is too large") or _TOO_LARGE in text:
        return LimitReached(
            f"{what} is larger than the members of {url} take (--max-request-bytes). Write less at once, or "
            f"set the "
            "option request_bytes_max to what the members really have."
        )
    if text.startswith("too many operations"):
        return LimitReached(
            f"{what} has more operations than the members of {url} take (--max-txn-ops). Set the option "
            "operations_max to two less than theirs, or raise theirs."
        )
    if text.startswith("too many requests"):
        return Overloaded(
            f"{what} was refused by {url}: too many requests are waiting there. Come back later."
        )
    if text.startswith("requested lease not found"):
        return LeaseOver(f"{what} stands on a lease that {url} does not have: it has expired or was revoked.")
    if text.startswith("corrupt cluster"):
        return ReadOnly(
            f"{what} was refused by {url}: it has a CORRUPT alarm, its members' data differ. "
            "Replace the member that differs, then etcdctl alarm disarm."
        )
    if text.startswith("permission denied"):
        return ReadOnly(
            f"{what} is not permitted to this user of {url}. Grant its role the keys: "
            "etcdctl role grant-permission ROLE readwrite --prefix=true PREFIX."
        )
    if failed.code == "UNIMPLEMENTED":
        return ConfigurationError(
            f"{failed.address} of {url} does not know the call behind {what}: {text}. Expected an etcd of "
            f"3.4 or later."
        )
    if text.startswith(("user name", "authentication", "invalid auth token")):
        return ConfigurationError(
            f"{url} refused this user: {text}. Give the right name and password, as in "
            f"etcd://user:password@host."
        )
    return ConfigurationError(f"{what} was refused by {url}: {text}.")
