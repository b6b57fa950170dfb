"""The MySQL engine: coordination in the MariaDB or MySQL that the team already has."""

from atoll.engines.mysql.store import MysqlStore

__all__ = ["MysqlStore"]
