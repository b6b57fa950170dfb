"""DDL: the store's tables in MariaDB and MySQL, beside yours, and their format number.

A shelf in a shared cellar, each box with the owner's name on it: a database here has no rooms inside, so
every table begins with `atoll_`. It is put up once, by `atoll schema URL`, and by nobody who merely walks in.
"""

from __future__ import annotations

from atoll.engines.mysql.options import KEY_BYTES_MAX
from atoll.errors import ConfigurationError, FormatRefused

PART, FORMAT = "store", 1
LOCK = "atoll schema"
"""Two who make the tables at once do it one after the other (GET_LOCK)."""
TABLES = ("atoll_format", "atoll_counter", "atoll_entry", "atoll_event", "atoll_lease", "atoll_request")

_END = ") ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET binary"
# Keys are UTF-8 kept as bytes: no collation orders them, none takes 'a' for 'A' or for 'a '.
_KEY, _ID = f"VARBINARY({KEY_BYTES_MAX})", "VARBINARY(64)"
# Moments are microseconds since 1970 in UTC: no session's time zone can move them.
_CREATE = (
    f"CREATE TABLE IF NOT EXISTS atoll_format (part {_ID} PRIMARY KEY, number INT NOT NULL{_END}",
    # One row, for ever. incarnation and identity are empty until the first handle notes what it finds.
    f"""CREATE TABLE IF NOT EXISTS atoll_counter (
    one TINYINT PRIMARY KEY, revision BIGINT NOT NULL, epoch BIGINT NOT NULL, oldest BIGINT NOT NULL,
    incarnation VARBINARY(255) NOT NULL, identity {_ID} NOT NULL, frozen LONGBLOB NULL{_END}""",
    f"""CREATE TABLE IF NOT EXISTS atoll_entry (
    k {_KEY} PRIMARY KEY, value LONGBLOB NOT NULL, revision BIGINT NOT NULL,
    create_revision BIGINT NOT NULL, lease {_ID} NULL, KEY entry_lease (lease){_END}""",
    # One row per key that a transaction touched; k NULL: it touched none. value NULL: removed.
    f"""CREATE TABLE IF NOT EXISTS atoll_event (
    revision BIGINT NOT NULL, place INT NOT NULL, k {_KEY} NULL, value LONGBLOB NULL,
    create_revision BIGINT NULL, lease {_ID} NULL, at BIGINT NOT NULL,
    PRIMARY KEY (revision, place){_END}""",
    f"""CREATE TABLE IF NOT EXISTS atoll_lease (
    id {_ID} PRIMARY KEY, ttl_s DOUBLE NOT NULL, expires BIGINT NOT NULL,
    KEY lease_expires (expires){_END}""",
    f"""CREATE TABLE IF NOT EXISTS atoll_request (
    id VARBINARY(255) PRIMARY KEY, revision BIGINT NOT NULL, at BIGINT NOT NULL,
    KEY request_at (at){_END}""",
)
_FIRST = (
    "INSERT IGNORE INTO atoll_counter VALUES (1, 0, 1, 1, '', '', NULL)",
    f"INSERT IGNORE INTO atoll_format VALUES ('{PART}', {FORMAT})",
)

GRANTS = """-- For an account that only uses the store:
-- GRANT SELECT, INSERT, UPDATE, DELETE ON the_database.* TO shop;
"""


def statements() -> tuple[str, ...]:
    """What makes the store's tables; running it again changes nothing."""
    return (*_CREATE, *_FIRST)


def check_tables(engines: dict[str, str], where: str, shown: str) -> None:
    """Refuse tables that are missing, or kept by another engine than InnoDB. `shown`: the URL for people."""
    missing = [name for name in TABLES if name not in engines]
    if missing:
        raise ConfigurationError(
            f"found no table {', '.join(missing)} in {where}; expected those of Atoll's store. "
            f"Make them with: atoll schema {shown}   (or ?create=true in a test)."
        )
    for name, engine in engines.items():
        if name in TABLES and engine != "InnoDB":
            raise ConfigurationError(
                f"found the table {name} in {where} kept by {engine}, which has no transactions; expected "
                f"InnoDB. Say: ALTER TABLE {name} ENGINE=InnoDB"
            )


def check_format(number: int | None, where: str, shown: str) -> None:
    """Refuse tables without a format number, or of a newer one."""
    if number is None:
        raise ConfigurationError(
            f"found the tables of Atoll's store in {where} without their first rows. Finish them with: "
            f"atoll schema {shown}"
        )
    if number != FORMAT:
        raise FormatRefused(
            f"found tables of format {number} in {where}; this Atoll reads and writes {FORMAT}. "
            "Use the Atoll that made them, or a newer one."
        )
