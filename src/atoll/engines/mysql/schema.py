"""Schema: the store's tables in a database of yours, made when somebody says so.

A landlord's permit. Nobody puts up shelves because a guest arrived; `atoll schema` is the day on which it is
done, once, by an account that may.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from atoll.engines.mysql import answers, ddl
from atoll.engines.mysql.connecting import Facts, Way, hello, make_tables
from atoll.engines.mysql.wire import Stopped, Wire
from atoll.engines.parts import call


class MysqlSchema:
    """What `atoll schema` prints and makes."""

    def __init__(self, way: Callable[[], Way], where: str, ceiling_s: float) -> None:
        self._way, self._where, self._ceiling_s = way, where, ceiling_s

    def text(self) -> str:
        """The SQL; running it again changes nothing."""
        return ";\n\n".join(ddl.statements()) + f";\n\n{ddl.GRANTS}"

    async def make(self) -> Sequence[str]:
        """Make what is missing; answers the names of the tables that were made."""

        async def send(left_s: float) -> Sequence[str]:
            wire, before = await self._way().connect(bare=True)
            try:
                return await made(wire, before, self._where)
            finally:
                wire.cut()

        return await call.answered("CREATE TABLE", self._where, self._ceiling_s, send)


async def made(wire: Wire, before: Facts, where: str) -> Sequence[str]:
    """Make what is missing on `wire`; a part from a newer Atoll is left alone."""
    try:
        if "atoll_format" in before.tables:
            [rows] = await wire.ask((f"SELECT number FROM atoll_format WHERE part='{ddl.PART}'",))
            if rows:
                ddl.check_format(int(rows[0][0]), where, where)
        await make_tables(wire)
        after = await hello(wire)
    except Stopped as stopped:
        if answers.is_answer(stopped.error):
            raise answers.refused(stopped.error, where, where) from None
        raise answers.unanswered(stopped.error, where) from None
    return [name for name in after.tables if name in ddl.TABLES and name not in before.tables]
