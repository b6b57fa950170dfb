"""Answers: what a store says when MariaDB or MySQL said no, or nothing.

Two questions in one order: was it sent, and did the server answer it? An error before the COMMIT is an
answer, and nothing of the transaction stands. A broken line, silence, or an error to the COMMIT itself is
none.
"""

from __future__ import annotations

from atoll.errors import (
    AtollError,
    ConfigurationError,
    DiskFull,
    EpochUncertain,
    LimitReached,
    NotApplied,
    NotSent,
    OutcomeUnknown,
    Overloaded,
    ReadOnly,
)

WAITED = (1205, 1969, 3024)
"""Other writers had their turn until the time was over: lock wait, max_statement_time, max_execution_time."""
RETRY = (1213, 1020)
"""A rival was first and the server rolled everything back: the same may simply be sent again."""
LOST = (2003, 2006, 2013, 2014, 1053, 1080, 1152, 1158, 1159, 1160, 1161, 1184, 1927, 4031)
"""The connection ended; what was on it may have been committed."""
_CLOSED = (1044, 1045, 1698, 1251, 1396, 1862, 1820, 2059, 3118, 4151)
_CROWDED = (1040, 1203, 1226)
_FULL = (1021, 1114, 3, 28, 1026, 1041, 1037)
_READ_ONLY = (1290, 1836, 1792)


def number(error: BaseException) -> int:
    """The server's number for what went wrong; 0 where it said nothing."""
    found = error.args[0] if error.args else 0
    return found if isinstance(found, int) and not isinstance(error, OSError) else 0


def said(error: BaseException) -> str:
    """Its sentence, for people."""
    text = str(error.args[1]) if len(error.args) > 1 else str(error)
    return f"{text.strip().splitlines()[0] if text.strip() else type(error).__name__}"


def is_answer(error: BaseException) -> bool:
    """Whether the server itself said that the statement failed."""
    return number(error) > 0 and number(error) not in LOST


def undone(error: BaseException) -> bool:
    """Whether even a COMMIT that is answered so was certainly rolled back."""
    return number(error) in (*_READ_ONLY, *RETRY)


def refused(error: BaseException, where: str, shown: str) -> AtollError:
    """For a statement that the server answered with an error, before any COMMIT: nothing of it stands."""
    state, words = number(error), said(error)
    if state in WAITED:
        return Overloaded(f"{where}: other writers had their turn until the deadline. Nothing was written.")
    if state in RETRY:
        return Overloaded(f"{where}: {words}. Nothing was written. Come back later.")
    if state in (1146, 1054):
        return ConfigurationError(
            f"{where}: {words}. Its tables were not made, or were dropped. Make them: atoll schema {shown}"
        )
    if state in (1142, 1143, 1227, 1044, 1370):
        return ConfigurationError(
            f"{where}: {words}. Let its administrator say: GRANT SELECT, INSERT, UPDATE, DELETE ON "
            "the_database.* TO ...; (and CREATE for who makes the tables)"
        )
    if state in _READ_ONLY:
        return ReadOnly(f"{where}: {words}. Nothing was written. Name the server that takes writes.")
    if state in _FULL:
        return DiskFull(f"{where}: {words}. Nothing was written. Make room on the server.")
    if state in (1153, 1301):
        return LimitReached(
            f"{where}: {words}. Nothing was written. Raise max_allowed_packet on the server, or make the "
            "transaction smaller."
        )
    if state == 1665:
        return ConfigurationError(
            f"{where}: {words} Set binlog_format to MIXED or ROW on the server; STATEMENT cannot copy these."
        )
    if state == 1317:
        return Overloaded(f"{where}: {words}. Somebody killed the query. Nothing was written.")
    return NotApplied(f"{where}: {words} ({state}). Nothing was written.")


def unanswered(error: BaseException, where: str) -> OutcomeUnknown:
    """For what was sent and got no answer, or an error to its COMMIT."""
    return OutcomeUnknown(
        f"the connection to {where} was lost before the answer ({said(error)}). It may have happened: "
        "read before you ask again."
    )


def unconnected(error: BaseException, where: str) -> AtollError:
    """For a connection that could not be made: nothing was asked."""
    state, words = number(error), said(error)
    if state == 1049:
        return ConfigurationError(f"{where}: {words}. Correct the database in the URL, or create it.")
    if state == 1130:
        return ConfigurationError(f"{where}: {words}. Let its administrator admit this user from this host.")
    if state == 1129:
        return NotSent(f"{where}: {words}. Nothing was asked. Its administrator says: FLUSH HOSTS")
    if state in _CLOSED:
        return ConfigurationError(f"{where}: {words}. Correct the user, password or database in the URL.")
    if state in _CROWDED:
        return Overloaded(f"{where}: {words}. Come back later, or lower connections_max of its clients.")
    return NotSent(f"{where} cannot be reached: {words}. Nothing was asked. Is it running?")


def replica(where: str) -> ReadOnly:
    """For a server that only follows, or takes no writes."""
    return ReadOnly(
        f"{where} takes no writes (read_only is on, or it follows another server), and may be behind. "
        "Nothing was asked of it. Name the server that takes writes, or all of them (mysql://a,b/db)."
    )


def no_primary(sentences: list[str]) -> NotSent:
    """For several servers of which none takes writes now."""
    return NotSent(f"found no server that takes writes: {'; '.join(sentences)}. Nothing was asked.")


def another(where: str) -> EpochUncertain:
    """For a way that led to one store and now leads to another."""
    return EpochUncertain(
        f"{where} led to one store and now leads to another (the identity in atoll_counter differs): two "
        "databases answer behind one name. Nothing was asked. Correct what the name leads to; if it was "
        "moved on purpose, close this handle and open it again."
    )


def uncertain(noted: str, here: str, shown: str) -> EpochUncertain:
    """For a store that lives on another server, or in other tables, than its epoch was noted on."""
    return EpochUncertain(
        f"the store at {shown} was noted on {noted!r} and is found on {here!r} (server, and when its tables "
        "were made): it failed over, was restored or copied, so it may have forgotten the last writes and an "
        "old token could look new. Exclusive use is refused. When the old server is gone for good and the "
        f"longest lease is over: atoll store bump {shown}"
    )


def no_counter(shown: str) -> ConfigurationError:
    """For tables without their one row."""
    return ConfigurationError(
        f"found no row in atoll_counter at {shown}; finish its tables: atoll schema {shown}"
    )
