"""Sqlstate: what PostgreSQL said, in Atoll's words, whichever client library heard it.

Five characters are the same in every client and every language of the server, so they are read and the
sentence beside them is only quoted. What is the user's own (a constraint, a wrong word) comes as it is.
"""

from __future__ import annotations

from atoll.engines.postgresql.joined_sql import missing
from atoll.errors import (
    AtollError,
    ConfigurationError,
    Conflict,
    DiskFull,
    NotApplied,
    NotSent,
    OutcomeUnknown,
    Overloaded,
    ReadOnly,
)

LOST = ("08", "57P01", "57P02", "57P03", "57P05", "25P03", "25P04")
"""The server ended the connection; the statement on it may have been committed."""
RETRY = ("40001", "40P01")
WAITED = ("55P03", "57014")
CROWDED = ("too many clients", "too many connections", "connection slots are reserved", "no more connections")
"""What a server says, or a pooler, that greets nobody for now; a client hears no five characters then."""
REFUSED = ("28000", "28P01", "3D000")


def code(error: BaseException) -> str | None:
    """The five characters, None where the server said nothing: a connection that broke, a wrong use."""
    found = getattr(error, "sqlstate", None)
    return found if isinstance(found, str) else None


def lost(error: BaseException) -> bool:
    """Whether the connection is gone, so that whatever was on its way has no answer."""
    state = code(error)
    if state is not None:
        return state.startswith(LOST)
    if isinstance(error, OSError | EOFError) or type(error).__name__ == "OperationalError":
        return True
    return type(error).__name__ == "InterfaceError" and any(
        word in str(error) for word in ("connection is closed", "released back to the pool")
    )


def explained(error: BaseException, where: str) -> AtollError | None:
    """Inside an open transaction: so nothing was committed. None for what is not ours to explain."""
    state, said = code(error) or "", first_line(error)
    if state in ("42P01", "3F000") and "atoll" in str(error):
        return missing(where)
    if state == "42501":
        return ConfigurationError(
            f"{where}: {said}. Whoever ran `atoll schema` owns the tables; grant this user the use of them: "
            "GRANT USAGE ON SCHEMA atoll TO ...; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN "
            "SCHEMA atoll TO ..."
        )
    if state in RETRY:
        return Conflict(
            f"{where}: {said}. Another transaction was first; nothing of this one can be committed. Roll it "
            "back and retry the whole transaction."
        )
    if state in WAITED:
        return Conflict(
            f"{where}: {said}. Another transaction had the row for longer than this one waits. Nothing is "
            "committed. Roll back and retry the whole transaction."
        )
    if state == "25P02":
        return Conflict(
            f"{where}: an earlier statement of this transaction failed, so PostgreSQL accepts no other and "
            "nothing of it will be committed. Roll it back and retry the whole transaction."
        )
    if state == "25006":
        return ReadOnly(f"{where}: {said}. Use a transaction that may write, on the primary server.")
    if state == "53100":
        return DiskFull(f"{where}: {said}. Nothing of this transaction is committed. Make room.")
    if state.startswith("53"):
        return Overloaded(f"{where}: {said}. Nothing of this transaction is committed. Come back later.")
    if lost(error):
        return NotApplied(
            f"{where}: the connection was lost before COMMIT ({said}); nothing of this transaction stands. "
            "Begin it again on a new connection."
        )
    return None


def unconnected(error: BaseException, where: str) -> AtollError:
    """For a connection that could not be made: nothing was asked."""
    state, said = code(error) or "", first_line(error)
    if state in REFUSED or "password authentication failed" in said or "no password supplied" in said:
        return ConfigurationError(f"{where}: {said}. Correct the user, password or database in the URL.")
    if 'role "' in said and ("does not exist" in said or "not permitted to log in" in said):
        return ConfigurationError(f"{where}: {said}. Correct the user in the URL, or create the role.")
    if 'database "' in said and "does not exist" in said:
        return ConfigurationError(f"{where}: {said}. Correct the database in the URL, or create it.")
    if "no pg_hba.conf entry" in said or "permission denied for database" in said:
        return ConfigurationError(f"{where}: {said}. Let its administrator admit this user from this host.")
    if state.startswith("53") or any(words in said for words in CROWDED):
        return Overloaded(f"{where}: {said}. Come back later, or lower the pools of its clients.")
    return NotSent(f"{where} cannot be reached: {said}. Nothing was asked. Is it running?")


def uncommitted(error: BaseException, where: str) -> AtollError | None:
    """For what COMMIT answered: lost on the way is not known; a refusal is a plain no."""
    if lost(error) or code(error) == "40003":
        return OutcomeUnknown(
            f"{where}: the connection was lost during COMMIT ({first_line(error)}): the transaction may "
            "have been committed. Read what it should have written before you do it again."
        )
    return explained(error, where)


def first_line(error: BaseException) -> str:
    """The sentence without the server's further lines; the kind of error where there is no sentence."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
