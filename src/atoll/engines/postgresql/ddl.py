"""DDL: the store's tables and functions in PostgreSQL, in a schema of their own, and their format number.

The floor plan of one room in a house that belongs to somebody else. It is drawn once, by `atoll schema URL`;
nobody builds a wall by walking in.
"""

from __future__ import annotations

from atoll.engines.postgresql import functions
from atoll.errors import ConfigurationError, FormatRefused

PART, FORMAT = "store", 1

_ALONE = "SELECT pg_catalog.pg_advisory_xact_lock(7021802812440850)"
"""Two who make the tables at once do it one after the other."""
_TABLES = (
    "CREATE SCHEMA IF NOT EXISTS atoll",
    "CREATE TABLE IF NOT EXISTS atoll.format (part text PRIMARY KEY, number integer NOT NULL)",
    # One row, for ever. Every transaction of the store updates it, so it is kept short and mostly empty.
    """CREATE TABLE IF NOT EXISTS atoll.counter (
    one boolean PRIMARY KEY DEFAULT true CHECK (one), revision bigint NOT NULL, epoch bigint NOT NULL,
    oldest bigint NOT NULL, incarnation text NOT NULL, frozen text
) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0)""",
    # Keys are UTF-8 kept as bytes: no collation orders them and no character is forbidden.
    """CREATE TABLE IF NOT EXISTS atoll.entry (
    key bytea PRIMARY KEY, value bytea NOT NULL, revision bigint NOT NULL,
    create_revision bigint NOT NULL, lease text
)""",
    "CREATE INDEX IF NOT EXISTS entry_lease ON atoll.entry (lease) WHERE lease IS NOT NULL",
    # One row per key that a transaction touched; key NULL: it touched none. value NULL: removed.
    """CREATE TABLE IF NOT EXISTS atoll.event (
    revision bigint NOT NULL, place integer NOT NULL, key bytea, value bytea, create_revision bigint,
    lease text, at timestamptz NOT NULL, PRIMARY KEY (revision, place)
)""",
    """CREATE TABLE IF NOT EXISTS atoll.lease (
    id text PRIMARY KEY, ttl_s double precision NOT NULL, expires timestamptz NOT NULL
) WITH (autovacuum_vacuum_threshold = 500)""",
    "CREATE INDEX IF NOT EXISTS lease_expires ON atoll.lease (expires)",
    """CREATE TABLE IF NOT EXISTS atoll.request (
    id text PRIMARY KEY, revision bigint NOT NULL, at timestamptz NOT NULL
)""",
    "CREATE INDEX IF NOT EXISTS request_at ON atoll.request (at)",
)
_FIRST = (
    "INSERT INTO atoll.counter SELECT true, 0, 1, 1, atoll.incarnation() ON CONFLICT DO NOTHING",
    f"INSERT INTO atoll.format VALUES ('{PART}', {FORMAT}) ON CONFLICT DO NOTHING",
)

GRANTS = """-- For a role that only uses the store:
-- GRANT USAGE ON SCHEMA atoll TO shop;
-- GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA atoll TO shop;
-- GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA atoll TO shop;
"""


def statements() -> tuple[str, ...]:
    """What makes the store's tables, to be run in one transaction; running it again changes nothing."""
    return (_ALONE, *_TABLES, *functions.ALL, *_FIRST)


def check_format(number: int | None, where: str, shown: str) -> None:
    """Refuse tables that are missing (None) or of a newer format; `shown`: the URL as people may see it."""
    if number is None:
        raise ConfigurationError(
            f"found no tables of Atoll's store in {where}; expected them in the schema atoll. "
            f"Make them with: atoll schema {shown}   (or ?create=true in a test)."
        )
    if number != FORMAT:
        raise FormatRefused(
            f"found tables of format {number} in {where}; this Atoll reads and writes {FORMAT}. "
            "Use the Atoll that made them, or a newer one."
        )
