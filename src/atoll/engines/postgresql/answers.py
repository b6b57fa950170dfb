"""Answers: what a store says when PostgreSQL said no, or nothing.

Two questions in one order: was it sent, and did the server answer it? An ERROR is an answer, and nothing of
the statement stands. A FATAL, a broken line or silence is none.
"""

from __future__ import annotations

from atoll.engines.postgresql.sqlstate import LOST, RETRY, code, first_line
from atoll.errors import (
    AtollError,
    ConfigurationError,
    DiskFull,
    EpochUncertain,
    NotApplied,
    NotSent,
    OutcomeUnknown,
    Overloaded,
    ReadOnly,
)


def retried(error: BaseException) -> bool:
    """Whether the same statement may simply be sent again: a rival was first and nothing of it stands."""
    return code(error) in RETRY


def is_answer(error: BaseException) -> bool:
    """Whether the server itself said that the statement failed."""
    state = code(error)
    return state is not None and not state.startswith(LOST) and _severity(error) not in ("FATAL", "PANIC")


def refused(error: BaseException, where: str, shown: str) -> AtollError:
    """For a statement that the server answered with an error: nothing of it stands."""
    state, said = code(error) or "", first_line(error)
    if state in ("42P01", "3F000", "42883"):
        return ConfigurationError(
            f"{where}: {said}. Its tables were not made, or were dropped. Make them: atoll schema {shown}"
        )
    if state == "42501":
        return ConfigurationError(
            f"{where}: {said}. Let its owner say: GRANT USAGE ON SCHEMA atoll TO ...; GRANT SELECT, INSERT, "
            "UPDATE, DELETE ON ALL TABLES IN SCHEMA atoll TO ...; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA "
            "atoll TO ...;"
        )
    if state == "25006":
        return ReadOnly(
            f"{where}: {said}. Nothing was written. It is a standby, or default_transaction_read_only is on; "
            "name the primary."
        )
    if state in ("53100", "58030"):
        return DiskFull(f"{where}: {said}. Nothing was written. Make room on the server.")
    if state == "55P03":
        return Overloaded(f"{where}: other writers had their turn until the deadline. Nothing was written.")
    if state == "57014":
        return Overloaded(
            f"{where}: {said}. Nothing was written. If nobody cancelled it, statement_timeout of its role or "
            "database is too short."
        )
    if state.startswith("53") or state in RETRY:
        return Overloaded(f"{where}: {said}. Nothing was written. Come back later.")
    return NotApplied(f"{where}: {said} ({state}). Nothing was written.")


def unanswered(error: BaseException, where: str) -> OutcomeUnknown:
    """For a statement that was sent and got no answer."""
    return OutcomeUnknown(
        f"the connection to {where} was lost before the answer ({first_line(error)}). It may have happened: "
        "read before you ask again."
    )


def not_copied(doubt: str, where: str) -> OutcomeUnknown:
    """For a commit that stands on the primary, while nobody knows whether a standby has it."""
    return OutcomeUnknown(
        f"{where}: {doubt}. It stands on this server and perhaps on no other: a failover may lose it. "
        "Look at pg_stat_replication, and read before you ask again."
    )


def standby(where: str) -> ReadOnly:
    """For a server that only follows."""
    return ReadOnly(
        f"{where} is a standby: it may be behind and takes no writes. Name the primary in the URL, or all "
        "servers (postgresql://a,b/db), and the primary among them is taken."
    )


def no_primary(said: list[str]) -> NotSent:
    """For several servers of which none is a primary now."""
    return NotSent(f"found no primary: {'; '.join(said)}. Nothing was asked. Is a failover going on?")


def another(where: str, before: str, now: str) -> EpochUncertain:
    """For a way that led to one cluster and now leads to another."""
    return EpochUncertain(
        f"{where} was the cluster {before} and is now {now} (system identifier): two clusters answer behind "
        "one name. Nothing was asked. Correct what the name leads to; if it was moved on purpose, close this "
        "handle and open it again."
    )


def uncertain(noted: str, here: str, shown: str) -> EpochUncertain:
    """For a store that lives on another server, or another timeline, than its epoch was noted on."""
    before, now = noted.rpartition("/"), here.rpartition("/")
    what = (
        f"was promoted: its timeline was {before[2]} and is {now[2]}"
        if before[0] == now[0]
        else f"is another: its system identifier was {before[0]} and is {now[0]}"
    )
    return EpochUncertain(
        f"the server of {shown} {what}, so it may have forgotten the last writes and an old token could look "
        "new. Exclusive use is refused. When the old primary is gone for good and the longest lease is over: "
        f"atoll store bump {shown}"
    )


def _severity(error: BaseException) -> str:
    found = getattr(getattr(error, "diag", None), "severity_nonlocalized", None)
    return str(found or getattr(error, "severity_en", None) or getattr(error, "severity", None) or "")
