"""Reader: one thread per process and file that answers whatever is asked, from one snapshot.

A photograph of the ledger is taken after the questions have come in, and all of them are answered
from it. So an answer is never older than the question, and the writer is never in the way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import apsw

from atoll.engines.sqlite.lane import Job, Lane
from atoll.engines.sqlite.translation import translate
from atoll.errors import AtollError, NotSent

BATCH_MAX = 64


class Reader(Lane):
    """Serves jobs that only read."""

    name = "reader"
    changes = False

    def __init__(
        self,
        path: str,
        connect: Callable[[], apsw.Connection],
        *,
        moved: Callable[[], str | None],
        queue_max: int,
    ) -> None:
        super().__init__(path, queue_max=queue_max, batch_max=BATCH_MAX)
        self.busy = threading.Lock()
        self._connect = connect
        self._moved = moved
        self._connection: apsw.Connection | None = None

    def serve(self, batch: list[Job[Any]]) -> None:
        batch = [job for job in batch if self.begin(job)]
        with self.busy:
            try:
                if self._connection is None:
                    self._connection = self._connect()
                elif (found := self._moved()) is not None:
                    raise NotSent(found)
                self._connection.execute("BEGIN")
                for job in batch:
                    try:
                        job.value = job.work(self._connection)
                    except Exception as error:
                        job.error = translate(error, self.path)
                if self._connection.in_transaction:
                    self._connection.execute("COMMIT")
            except (apsw.Error, OSError, AtollError) as error:
                self.fail(batch, translate(error, self.path))
                self.disconnect()
                return
        self.deliver(batch)

    def leave(self) -> None:
        with self.busy:
            self.disconnect()

    def disconnect(self) -> None:
        """Close the connection; it opens again when needed. Called holding `busy`, or by the lane itself."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
