"""Translation: what a server's refusal means, in the words of errors.py.

A clerk's "no" has many forms: not here but next door, not now, never for you, no paper left. Each of them is
said before anything was written, which is what the caller needs to know first.
"""

from __future__ import annotations

import re
import ssl

from redis import exceptions

from atoll.errors import (
    AtollError,
    ConfigurationError,
    DiskFull,
    FormatRefused,
    LimitReached,
    NotSent,
    OutcomeUnknown,
    Overloaded,
    ReadOnly,
)

MOVES = {"READONLY", "MOVED", "MASTERDOWN", "CLUSTERDOWN"}
"""Somebody else leads, or soon will."""
WAITS = {"LOADING", "TRYAGAIN", "ASK", "BUSY"}
"""The same server will answer later."""
_CLASSES = {
    "ReadOnlyError": "READONLY",
    "OutOfMemoryError": "OOM",
    "BusyLoadingError": "LOADING",
    "NoScriptError": "NOSCRIPT",
    "AuthenticationError": "WRONGPASS",
    "AuthenticationWrongNumberOfArgsError": "WRONGPASS",
    "AuthorizationError": "NOPERM",
    "NoPermissionError": "NOPERM",
    "MasterDownError": "MASTERDOWN",
    "ClusterDownError": "CLUSTERDOWN",
    "TryAgainError": "TRYAGAIN",
    "AskError": "ASK",
    "MovedError": "MOVED",
    "MaxConnectionsError": "MAXCLIENTS",
}
_WORDS = (
    *MOVES,
    *WAITS,
    "OOM",
    "MISCONF",
    "NOREPLICAS",
    "NOAUTH",
    "WRONGPASS",
    "NOPERM",
    "WRONGTYPE",
    "NOSCRIPT",
)


def code(error: Exception) -> str:
    """The word by which the server named its refusal; empty for one that is not known."""
    known = _CLASSES.get(type(error).__name__)
    if known is not None:
        return known
    text = str(error)
    first = text.partition(" ")[0]
    if first in _WORDS:
        return first
    if "max number of clients" in text:
        return "MAXCLIENTS"
    if "can't run this command" in text:
        return "NOPERM"
    return next((word for word in _WORDS if re.search(rf"\b{word}\b", text)), "")


def refused(error: Exception) -> bool:
    """The server answered with an error, so the connection is in order."""
    return isinstance(error, exceptions.ResponseError) or code(error) in ("LOADING", "WRONGPASS", "NOPERM")


def moved_to(error: Exception) -> tuple[str, int] | None:
    """Where a cluster says that the slot is; an empty host: where the answer came from."""
    host, port = getattr(error, "host", None), getattr(error, "port", None)
    if host is not None and port is not None:
        return str(host), int(port)
    found = re.search(r"MOVED \d+ (\S*):(\d+)", str(error))
    return (found[1], int(found[2])) if found else None


def translated(what: str, url: str, error: Exception, id: str | None) -> AtollError:
    """The error to raise for a refusal that asking again here will not change."""
    word, text = code(error), str(error)
    match word:
        case "WRONGPASS" | "NOAUTH":
            return ConfigurationError(
                f"{url} refused the password: {text} Correct the user and password in it."
            )
        case "NOPERM":
            return ConfigurationError(
                f"the user of {url} may not do this: {text} Give it EVALSHA, EVAL, INFO, XREAD and the keys "
                "of the prefix (ACL SETUSER)."
            )
        case "READONLY":
            return ReadOnly(
                f"{url} is a replica, which takes no writes. {what} was not done. Name the master, or "
                "redis+sentinel://, which finds it."
            )
        case "NOREPLICAS":
            return ReadOnly(
                f"{url} has fewer replicas than its min-replicas-to-write asks for, so it takes no writes. "
                f"{what} was not done. Start the replicas, or lower the setting."
            )
        case "MISCONF":
            return DiskFull(f"{url} cannot write its disk and takes no writes: {text} {what} was not done.")
        case "OOM":
            return LimitReached(
                f"{url} is at its maxmemory. {what} was not done; what is there is unharmed. Raise maxmemory "
                "or remove something; leases are still renewed and given back."
            )
        case "WRONGTYPE":
            return FormatRefused(
                f"found keys of another kind under the prefix of {url}. Choose another with ?prefix=NAME."
            )
        case "MAXCLIENTS" | "LOADING" | "BUSY" | "CLUSTERDOWN" | "MASTERDOWN" | "TRYAGAIN" | "ASK" | "MOVED":
            return Overloaded(f"{url} does not take it now: {text} {what} was not done; ask again.")
    return OutcomeUnknown(
        f"{what} on {url} was answered with an error: {text} Read before you ask again.", id=id
    )


def unreachable(what: str, url: str, error: BaseException | None) -> NotSent:
    """No connection to whoever takes writes."""
    said = f" ({error})" if error is not None and str(error) else ""
    return NotSent(f"{url} could not be reached{said}. {what} was not sent; nothing happened.")


def certificate(url: str, error: BaseException) -> ConfigurationError | None:
    """The error for a certificate that was not accepted, None where it is something else."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return ConfigurationError(
                f"the certificate of {url} was not accepted: {seen.verify_message}. Name the authority that "
                "signed it with ?ca=FILE, and the host as the certificate does."
            )
        seen = seen.__cause__ or seen.__context__
    return None
