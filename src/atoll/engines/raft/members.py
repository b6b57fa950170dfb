"""Members: a client's knowledge of who is in the cluster and who leads it, and how to ask until told.

A reporter with three telephone numbers. Whoever is not in charge says who is; a line that has gone quiet is
left for the next; and since every question here may be put twice (a write bears its number, so its second
copy is recognised) it is put until there is an answer or no time left.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from atoll import clock
from atoll.engines.parts.call import left_s
from atoll.engines.raft.connection import TurnedAway
from atoll.engines.raft.frames import Why
from atoll.engines.raft.lineage import succeeds
from atoll.engines.raft.link import Broken, Link
from atoll.engines.raft.options import RaftOptions
from atoll.engines.raft.wire import Answer, News, Refusal, Said, Verb
from atoll.errors import (
    AtollError,
    ConfigurationError,
    LeaseOver,
    LimitReached,
    NotApplied,
    NotReady,
    NotSent,
    OutcomeUnknown,
    Overloaded,
)

AGAIN_S = 0.03
"""Between two rounds of questions while nobody leads."""
STAGGER_S = 0.1
"""A member that has not greeted by then is dialled beside the next."""
SURVEY_S = 0.25
"""How long the other members are waited for once the first has greeted."""
ADDRESSES_MAX = 32


@dataclass(slots=True)
class Doubt:
    """What is not known of a question: why an earlier asking may have been taken, and whether one flies."""

    why: str = ""
    flying: bool = False

    def __bool__(self) -> bool:
        return self.flying or bool(self.why)


class Members:
    """One event loop's lines to the members of one cluster.

    `cluster`: its id, "" until one member has said it. Whoever says another one is refused.
    """

    def __init__(
        self,
        url: str,
        addresses: Sequence[str],
        options: RaftOptions,
        tls: ssl.SSLContext | None,
        cluster: str = "",
    ) -> None:
        self.url, self.options, self.cluster = url, options, cluster
        self.given = tuple(dict.fromkeys(addresses))
        """What the URL names."""
        self.addresses = list(self.given)
        self.links: dict[str, Link] = {}
        self.leader = ""
        """Where the leader is, as far as is known."""
        self.on_news: Callable[[Link, News], None] = _nobody
        self.closed = False
        self._tls = tls
        self._at = 0
        self._names: dict[str, str] = {}
        """Where the members are that the URL names: a map of the network here may differ from theirs."""
        self._dialling: dict[str, asyncio.Task[Link]] = {}

    # -- asking ----------------------------------------------------------------------------------------

    async def ask(self, verb: Verb, what: str) -> Answer:
        """What a member answers to what may be asked again, within the deadline in force and the ceiling.

        NotSent where nobody took it, OutcomeUnknown where somebody may have; else by what was refused.
        """
        answer, _ = await self.put(lambda: verb, what)
        return answer

    async def of(self, link: Link, verb: Verb, what: str) -> Answer:
        """What this one member answers, within the deadline in force and the ceiling."""
        left = left_s(what, self.options.ceiling_s)
        try:
            answer = await link.ask(verb, left, left)
        except (Broken, TimeoutError) as error:
            raise OutcomeUnknown(f"{what} was sent to {link.address}: no answer{_why(error)}.") from None
        if isinstance(answer, Refusal):
            raise _definite(answer, what, link)
        return answer

    async def put(
        self, verb: Callable[[], Verb], what: str, doubt: Doubt | None = None
    ) -> tuple[Answer, bool]:
        """The same, and whether an earlier asking may have been taken without an answer.

        `verb`: what is asked, anew each time. `doubt`: what is known of earlier askings; it is kept true
        meanwhile.
        """
        due = clock.loop_now() + left_s(what, self.options.ceiling_s)
        doubt = Doubt() if doubt is None else doubt
        last, turn = doubt.why or "nobody was reached", 0
        while (left := due - clock.loop_now()) > 0 and not self.closed:
            link: Link | None = None
            try:
                link = self.standing() or await self._connected(left)
                left = max(due - clock.loop_now(), 0.001)
                doubt.flying = True
                answer = await link.ask(verb(), left, min(left, self.options.attempt_s))
            except (Broken, TimeoutError) as error:
                assert link is not None
                doubt.flying = False
                if isinstance(error, TimeoutError) or error.sent:
                    doubt.why = last = f"{link.address} did not answer{_why(error)}"
                self.leave(link, silent=isinstance(error, TimeoutError))
                turn += 1
                if turn > 2:  # who hangs up on every question is not stormed
                    await self._pause(due)
            except NotSent as error:
                doubt.flying, last = False, str(error)
                await self._pause(due)
            else:
                doubt.flying = False
                if not isinstance(answer, Refusal):
                    return answer, bool(doubt.why)
                turn += 1
                last = await self._refused(answer, link, (turn, due), doubt, what)
            finally:
                doubt.flying = False
        if doubt.why:
            raise OutcomeUnknown(
                f"{what} was sent to {self.url} and got no definite answer in time: {doubt.why}. It may have "
                "happened, or may happen yet: read before you ask again."
            )
        if self.closed:
            raise NotSent(f"{self.url} was closed. Nothing of {what} was sent.")
        raise NotSent(
            f"{what} was not done by any member of {self.url}: {last.rstrip('.')}. Nothing happened. See "
            f"whether a majority of the members runs and can be reached: atoll cluster status {self.url}"
        )

    async def _refused(
        self, answer: Refusal, link: Link, when: tuple[int, float], doubt: Doubt, what: str
    ) -> str:
        """What was said; raises what no other member would answer otherwise."""
        turn, due = when
        said, sentence = answer.said, answer.sentence
        if said == Said.UNKNOWN:
            doubt.why = sentence
        elif said == Said.OVERLOADED and not doubt.why:
            raise Overloaded(f"{what} was refused by {link.address}: {sentence}. Come back later.")
        elif said not in (Said.NOT_LEADER, Said.NOT_SENT, Said.OVERLOADED):
            raise _definite(answer, what, link)
        if answer.leader:
            self.follow(answer)
            if turn > 1:
                await self._pause(due)
        else:
            self.leave(link, silent=False)
            await self._pause(due)
        return sentence

    async def _pause(self, due: float) -> None:
        await asyncio.sleep(max(0.0, min(AGAIN_S * (0.5 + clock.chance().random()), due - clock.loop_now())))

    # -- whom to ask -----------------------------------------------------------------------------------

    def standing(self) -> Link | None:
        """The leader's line, or that of whoever was asked last; None: dial."""
        link = self.links.get(self.leader or self.addresses[self._at])
        return link if link is not None and link.standing else None

    def follow(self, answer: Refusal) -> None:
        """Ask the leader that this answer names, where the URL says that it is, or else where it says."""
        self.leader = leader = self._names.get(answer.name, answer.leader)
        if leader not in self.addresses:
            self.addresses.append(leader)
            del self.addresses[ADDRESSES_MAX:]

    def leave(self, link: Link, *, silent: bool) -> None:
        """Ask another first from now on; a line that said nothing for long is cut, for all who wait on it."""
        if self.leader == link.address:
            self.leader = ""
        if link.address == self.addresses[self._at]:
            self._at = (self._at + 1) % len(self.addresses)
        if silent and clock.loop_now() - link.heard > self.options.attempt_s * 0.8:
            link.close("it said nothing")

    async def _connected(self, left: float) -> Link:
        """A line to the leader, or to the first member that greets. NotSent where there is none in time."""
        within = min(left, self.options.attempt_s)
        if self.leader:
            try:
                return await self.line(self.leader, within)
            except NotSent:
                self.leader = ""
                raise
        return await self._first(self.addresses[self._at :] + self.addresses[: self._at], within)

    async def _first(self, waiting: list[str], within: float) -> Link:
        """The first of these that greets; each is dialled a little after the one before it."""
        due = clock.loop_now() + within
        dialling: set[asyncio.Task[Link]] = set()
        said = "nobody greeted in time"
        try:
            while (waiting or dialling) and (left := due - clock.loop_now()) > 0:
                if waiting:
                    dialling.add(self._calling(waiting.pop(0), within))
                done, dialling = await asyncio.wait(
                    dialling,
                    timeout=min(left, STAGGER_S) if waiting else left,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for one in done:
                    error = one.exception()
                    if error is None:
                        self._at = self.addresses.index(one.result().address)
                        return one.result()
                    if not isinstance(error, NotSent):
                        raise error
                    said = str(error)
        finally:
            for one in dialling:
                one.cancel()
        raise NotSent(said)

    def _calling(self, address: str, within: float) -> asyncio.Task[Link]:
        """`line` beside others: the quickest is taken, what became of the rest is nobody's question."""
        task = asyncio.create_task(self.line(address, within))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    async def line(self, address: str, within: float) -> Link:
        """A line to this member; all who come while it is dialled wait for the same one."""
        known = self.links.get(address)
        if known is not None and known.standing:
            return known
        task = self._dialling.get(address)
        if task is None:
            task = asyncio.create_task(self._dial(address), context=clock.detached())
            self._dialling[address] = task
            task.add_done_callback(lambda done: self._dialled(address, done))
        await asyncio.wait((task,), timeout=max(within, 0.001))
        if not task.done():
            raise NotSent(f"{address} did not greet in time")
        return task.result()

    def _dialled(self, address: str, task: asyncio.Task[Link]) -> None:
        self._dialling.pop(address, None)
        if not task.cancelled():
            task.exception()  # whoever waits has it; nobody may be waiting any more

    async def _dial(self, address: str) -> Link:
        link = Link(address, self._news)
        try:
            await link.connect("", self._tls, self.options.attempt_s)
        except TurnedAway as error:
            if error.why == Why.FORMAT:
                raise ConfigurationError(f"{address} of {self.url}: {error}") from None
            raise
        if self.closed:
            link.close()
            raise NotSent(f"{self.url} was closed")
        if self.cluster and link.cluster != self.cluster:
            if not succeeds(link.cluster, self.cluster):
                link.close()
                raise self._another_cluster(address, f"it belongs to the cluster {link.cluster}")
            self._recovered()
        self.cluster = link.cluster
        self.links[address] = link
        if address in self.given:
            self._names[link.name] = address
        return link

    def _recovered(self) -> None:
        """The cluster was recovered: its members of before are strangers now."""
        before, self.links, self.leader = self.links, {}, ""
        for link in before.values():
            link.close("its cluster was recovered elsewhere")

    def _another_cluster(self, address: str, said: str) -> ConfigurationError:
        known = [link.address for link in self.links.values() if link.standing]
        beside = f"; {', '.join(known)} belongs to the cluster {self.cluster}" if known else ""
        return ConfigurationError(
            f"{address} of {self.url} is not of the cluster {self.cluster} that answered before{beside}: "
            f"{said.rstrip('.')}. Name members of one cluster only; where another cluster has taken this "
            "one's place on purpose, close this store and open it anew."
        )

    async def survey(self) -> None:
        """Greet every member named, so that two clusters in one URL are found; one at least must greet."""
        due = clock.loop_now() + left_s("the first question", self.options.ceiling_s)
        said = "nobody greeted in time"
        while (left := due - clock.loop_now()) > 0:
            dialling = [self._calling(one, left) for one in self.addresses]
            try:
                await asyncio.wait(dialling, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                done, _ = await asyncio.wait(dialling, timeout=min(left, SURVEY_S))
            finally:
                for one in dialling:
                    one.cancel()
            errors = [error for one in done if (error := one.exception()) is not None]
            for error in errors:
                if not isinstance(error, NotSent):
                    raise error
                said = str(error)
            if len(errors) < len(done):
                return
            await self._pause(due)
        raise NotSent(
            f"{self.url} could not be reached: {said.rstrip('.')}. Nothing was sent; nothing happened."
        )

    async def listening(self) -> Link:
        """A line of its own for news, to a member picked by chance; NotSent where none greets."""
        order = list(self.addresses)
        clock.chance().shuffle(order)
        said = "nobody was reached"
        for address in order:
            link = Link(address, self._news)
            try:
                await link.connect("", self._tls, self.options.attempt_s)
            except NotSent as error:
                said = str(error)
                continue
            if link.cluster == self.cluster and not self.closed:
                return link
            link.close()
        raise NotSent(said)

    def _news(self, link: Link, news: News) -> None:
        if news.newest < 0 and self.links.get(link.address) is link:
            del self.links[link.address]
        self.on_news(link, news)

    def close(self) -> None:
        """Hang up everywhere."""
        self.closed = True
        for task in list(self._dialling.values()):
            task.cancel()
        for link in list(self.links.values()):
            link.close()


def _nobody(link: Link, news: News) -> None:
    pass


def _why(error: BaseException) -> str:
    return f": {error}" if str(error) else " in time"


def _definite(answer: Refusal, what: str, link: Link) -> AtollError:
    """What a member refused for a reason that another member would have too."""
    sentence = f"{what} was refused by {link.name} at {link.address}: {answer.sentence.rstrip('.')}."
    match answer.said:
        case Said.WRONG:
            return ConfigurationError(sentence)
        case Said.LEASE_OVER:
            return LeaseOver(answer.sentence)
        case Said.NOT_READY:
            return NotReady(sentence)
        case Said.TOO_LARGE:
            return LimitReached(sentence)
        case _:
            return NotApplied(sentence)
