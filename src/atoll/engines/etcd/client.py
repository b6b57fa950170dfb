"""Client: one question to a cluster of several members, asked once or as often as is safe.

A petition to a council. Any member takes it; one that does not answer is left for the next, and the one who
answered last is asked first again. What may only be said once is said once, at a door that was just seen
open, and who got no answer is told exactly that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from atoll import clock
from atoll.engines.etcd import wire
from atoll.engines.etcd.call import Ended
from atoll.engines.etcd.endpoint import Endpoint
from atoll.engines.etcd.translation import Failure, Verdict, failure, raised
from atoll.engines.parts.call import left_s
from atoll.errors import ConfigurationError

AGAIN_S = 0.05
_NEVER = Failure(Verdict.NEVER_SENT, "nothing yet", "")

Entering = Callable[[Endpoint, Any, float], Awaitable[None]]


class Client:
    """Calls to the members of one cluster, in one event loop.

    `meta`: the key read whenever a member's door is entered. Its answer goes to `entering`, which raises
    where the cluster behind that door is not the one expected.
    """

    def __init__(self, url: str, endpoints: list[Endpoint], *, ceiling_s: float, attempt_s: float) -> None:
        self.url, self.endpoints = url, endpoints
        self.ceiling_s, self.attempt_s = ceiling_s, attempt_s
        self.user: str | None = None
        self.password: str | None = None
        self.entering: Entering | None = None
        self.meta = b""
        self.cluster_id = 0
        self.closed = False
        self.stranger = False
        """A member has answered for another cluster."""
        self._at = 0
        self._looking: dict[Endpoint, asyncio.Task[None]] = {}
        self.token: str | None = None

    # -- asking ------------------------------------------------------------------------------------

    async def read(self, method: str, data: bytes, what: str) -> Any:
        """Ask what may be asked again: of one member after the other, until the deadline."""
        due = clock.loop_now() + left_s(what, self.ceiling_s)
        last = _NEVER
        turn = 0
        while True:
            endpoint = self.endpoints[self._at]
            left = due - clock.loop_now()
            if left <= 0:
                raise raised(last, what, self.url)
            try:
                if not endpoint.standing:
                    await self._enter(endpoint, left)
                answer = await endpoint.ask(method, data, min(left, self.attempt_s), self.token or "")
            except (Ended, Failure) as error:
                last = self._failed(endpoint, error)
                if last.verdict is Verdict.DEFINITE:
                    raise raised(last, what, self.url) from None
                turn += 1
                await self._between(turn, due)
            else:
                self._of_ours(answer.header)
                return answer

    async def write(self, method: str, data: bytes, what: str, id: str | None = None) -> Any:
        """Ask what may be asked once. Again only where it is certain that nothing was done."""
        due = clock.loop_now() + left_s(what, self.ceiling_s)
        last = _NEVER
        turn = 0
        while True:
            endpoint = self.endpoints[self._at]
            left = due - clock.loop_now()
            if left <= 0:
                raise raised(last, what, self.url, id)
            sent = False
            try:
                if not endpoint.standing:
                    await self._enter(endpoint, left)
                    left = due - clock.loop_now()
                sent = True
                return await endpoint.ask(method, data, max(left, 0.001), self.token or "")
            except (Ended, Failure) as error:
                last = self._failed(endpoint, error)
                if sent and last.verdict is Verdict.UNKNOWN:
                    raise raised(last, what, self.url, id) from None
                if last.verdict is Verdict.DEFINITE:
                    raise raised(last, what, self.url, id) from None
                turn += 1
                await self._between(turn, due)

    async def _between(self, turn: int, due: float) -> None:
        """A pause after each round of all members, so that a cluster that is down is not stormed."""
        if turn % len(self.endpoints) == 0:
            pause = AGAIN_S * min(turn / len(self.endpoints), 4) * (0.5 + clock.chance().random())
            await asyncio.sleep(max(0.0, min(pause, due - clock.loop_now())))

    def _failed(self, endpoint: Endpoint, error: Ended | Failure) -> Failure:
        """What it means; the next call begins at the next member."""
        failed = error if isinstance(error, Failure) else failure(error, endpoint.address)
        if failed.verdict is Verdict.TOKEN:
            self.token = None
            endpoint.entered = False
        elif failed.verdict is not Verdict.DEFINITE:
            endpoint.entered = False
            if self.endpoints[self._at] is endpoint:
                self._at = (self._at + 1) % len(self.endpoints)
        return failed

    # -- entering ----------------------------------------------------------------------------------

    @property
    def current(self) -> Endpoint:
        """The member that is asked first."""
        return self.endpoints[self._at]

    def prefer(self, endpoint: Endpoint) -> None:
        """Ask this one first from now on."""
        self._at = self.endpoints.index(endpoint)

    def leave(self, endpoint: Endpoint) -> None:
        """Ask another one first from now on: this one has fallen silent."""
        endpoint.entered = False
        if self.current is endpoint:
            self._at = (self._at + 1) % len(self.endpoints)

    async def entered(self, left: float) -> Endpoint:
        """The member asked first, its door entered. Raises Failure where it cannot be; the next is next."""
        endpoint = self.current
        try:
            if not endpoint.standing:
                await self._enter(endpoint, left)
        except (Ended, Failure) as error:
            raise self._failed(endpoint, error) from None
        return endpoint

    async def _enter(self, endpoint: Endpoint, left: float) -> None:
        """Look who is behind this door before anything is said to them; all who come now look together."""
        task = self._looking.get(endpoint)
        if task is None:
            task = asyncio.create_task(self._look(endpoint), context=clock.detached())
            self._looking[endpoint] = task
            task.add_done_callback(lambda done: self._looked(endpoint, done))
        await asyncio.wait((task,), timeout=max(left, 0.001))
        if not task.done():
            raise Failure(Verdict.NEVER_SENT, "no connection in time", endpoint.address)
        task.result()

    def _looked(self, endpoint: Endpoint, task: asyncio.Task[None]) -> None:
        self._looking.pop(endpoint, None)
        if not task.cancelled():
            task.exception()  # whoever waits has it; nobody may be waiting any more

    async def _look(self, endpoint: Endpoint) -> None:
        timeout = self.attempt_s
        try:
            if self.user is not None and self.token is None:
                await self._authenticate(endpoint, timeout)
            asked = wire.message("RangeRequest", key=self.meta)
            answer = await endpoint.ask("Range", asked, timeout, self.token or "")
            self._of_ours(answer.header)
            if self.entering is not None:
                await self.entering(endpoint, answer, timeout)
        except Ended as error:
            failed = failure(error, endpoint.address)
            if failed.verdict is Verdict.UNKNOWN:  # whatever was asked here may be asked again
                failed = replace(failed, verdict=Verdict.NEVER_SENT)
            raise failed from None
        endpoint.entered = True

    async def _authenticate(self, endpoint: Endpoint, timeout: float) -> None:
        data = wire.MESSAGES["AuthenticateRequest"](
            name=self.user, password=self.password or ""
        ).SerializeToString()
        try:
            answer = await endpoint.ask("Authenticate", data, timeout)
        except Ended as error:
            if "authentication is not enabled" not in error.text:
                raise
            self.token = ""
        else:
            self.token = answer.token

    def _of_ours(self, header: Any) -> None:
        cluster_id = header.cluster_id
        if cluster_id == self.cluster_id or not cluster_id:  # some answers have no header
            return
        if self.cluster_id:
            self.stranger = True
            raise AnotherCluster(cluster_id)
        self.cluster_id = cluster_id

    def close(self) -> None:
        """Hang up everywhere."""
        self.closed = True
        for task in self._looking.values():
            task.cancel()
        for endpoint in self.endpoints:
            endpoint.close()


class AnotherCluster(ConfigurationError):
    """A member answered for a cluster that is not the one that answered before."""

    def __init__(self, cluster_id: int) -> None:
        super().__init__(f"a member answered for the cluster {cluster_id:x}")
        self.cluster_id = cluster_id
