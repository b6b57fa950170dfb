"""Node: a member of a Raft cluster in a child process of its own, for as long as a block is open.

A heart does not beat in the hand that works. Whatever the program around it does with its event loop, the
member goes on answering its neighbours; when the program ends, however it ends, so does the member.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from atoll import errors
from atoll.engines.raft.member_options import MemberOptions
from atoll.errors import AtollError, ConfigurationError, NotReady, OutcomeUnknown

READY_S = 60.0
STOP_S = 15.0


class Node:
    """A member of a cluster, with `async with`: inside it serves; leaving hands over the lead, then stops it.

    `id`: its name, for ever. `data`: a folder of its own. `members`: all first members and their places, the
    same for each, as "a=host:port,b=host:port" or a mapping; or `join`: any member of a cluster that stands.
    `listen`, `place`: where it listens and where others reach it, if not as in `members`. `insecure`: listen
    beyond this machine without TLS. `ca`, `cert`, `key`: files for mutual TLS. `election_s`, `heartbeat_s`,
    `lease_reads`: see Settings; the last believes that clocks run at nearly one rate.

    The member's log lines go to this process's standard error.
    """

    def __init__(
        self,
        *,
        id: str,
        data: str | Path,
        members: str | Mapping[str, str] = "",
        join: str = "",
        listen: str = "",
        place: str = "",
        ca: str | Path | None = None,
        cert: str | Path | None = None,
        key: str | Path | None = None,
        insecure: bool = False,
        election_s: float = 0.5,
        heartbeat_s: float = 0.1,
        lease_reads: bool = False,
    ) -> None:
        files = [str(file) for file in (ca, cert, key) if file is not None]
        if len(files) not in (0, 3):
            raise ConfigurationError("found some of ca=, cert= and key=; expected all three, or none.")
        checked = MemberOptions.of(
            id,
            data,
            members=members,
            join=join,
            listen=listen,
            place=place,
            tls=(files[0], files[1], files[2]) if files else None,
            insecure=insecure,
            election_s=election_s,
            heartbeat_s=heartbeat_s,
            lease_reads=lease_reads,
        )
        self.id = id
        self.place = ""
        """Where it is reached; known when the block is entered."""
        self.cluster = ""
        """The id of its cluster; known when the block is entered."""
        self._process: Process | None = None
        self._words = ["--id", id, "--data", str(data), "--election-s", str(election_s)]
        self._words += ["--heartbeat-s", str(heartbeat_s)]
        listed = ",".join(f"{name}={where}" for name, where in checked.members.items())
        given = {"--members": listed, "--join": join, "--listen": listen, "--place": place}
        given |= dict(zip(("--ca", "--cert", "--key"), files, strict=False))
        for word, value in given.items():
            self._words += [word, value] if value else []
        self._words += ["--insecure"] * insecure + ["--lease-reads"] * lease_reads

    @property
    def pid(self) -> int | None:
        """The child's process id while it runs."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process else None

    async def __aenter__(self) -> Node:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start the child; returns when it listens. Raises what the child could not begin with."""
        words = [sys.executable, "-m", "atoll", "node", *self._words, "--json", "--leash"]
        self._process = await asyncio.create_subprocess_exec(
            *words, stdin=PIPE, stdout=PIPE, start_new_session=True
        )
        try:
            async with asyncio.timeout(READY_S):
                said = await self._line()
        except BaseException as stopped:
            await self._kill()
            if isinstance(stopped, TimeoutError):
                raise NotReady(f"the member {self.id!r} did not listen within {READY_S:g} s") from None
            raise
        if "place" not in said:
            await self._process.wait()
            raise _as_raised(said)
        self.place, self.cluster = said["place"], said["cluster"]

    async def stop(self, within_s: float = STOP_S) -> None:
        """Hand over the lead, then end the child; killed where it does not within `within_s`."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        try:
            process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), within_s)
        except ProcessLookupError:
            return
        except BaseException as error:
            await self._kill()
            if not isinstance(error, TimeoutError):
                raise

    async def ended(self) -> str:
        """Returns when the child has ended by itself or by a signal, with its own sentence if it said one."""
        process = self._process
        if process is None:
            raise ConfigurationError(f"the member {self.id!r} was not started: write async with Node(...)")
        said = await self._line()
        code = await process.wait()
        return str(said.get("message") or f"the process of the member {self.id!r} ended with {code}")

    async def _line(self) -> dict[str, Any]:
        """What the child says next; empty when it has ended."""
        assert self._process is not None and self._process.stdout is not None
        line = await self._process.stdout.readline()
        with contextlib.suppress(ValueError):
            said = json.loads(line)
            if isinstance(said, dict):
                return said
        return {}

    async def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


def _as_raised(said: dict[str, Any]) -> AtollError:
    """The error that the child said, as an error here."""
    kind = getattr(errors, str(said.get("error")), None)
    sentence = str(said.get("message") or "the member ended before it listened; its log says why")
    if isinstance(kind, type) and issubclass(kind, AtollError):
        try:
            return kind(sentence)
        except TypeError:
            return OutcomeUnknown(sentence)
    return NotReady(sentence)
