"""etcd servers: one, or three that vote; plain or with TLS, open or behind a password.

A committee meeting in one room. Each member has a door for the public and a door for the others, and between
the second doors a porter may be put (`between`) who can keep two members from hearing each other.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import urllib.request
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atoll import clock
from atoll.verify.servers.cluster import Cluster
from atoll.verify.servers.process import START_S, ServerFailed, ServerProcess, free_port
from atoll.verify.servers.program import Program

PROGRAM = Program("etcd", ("etcd", "/usr/bin/etcd"), "apt-get install etcd-server")
PASSWORD = "Pass-w0rd"

Between = Callable[[int, str], Awaitable[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdSettings:
    """`arguments`: further words for the server. `between`: answers where the others find member i's door."""

    heartbeat_ms: int = 50
    election_ms: int = 500
    tls: bool = False
    mutual: bool = False
    """With tls: the client must show a certificate too."""
    auth: bool = False
    """Only `root` with PASSWORD may in."""
    quota_bytes: int = 0
    between: Between | None = None
    arguments: tuple[str, ...] = ()


@dataclass(slots=True)
class _Plan:
    settings: EtcdSettings
    folder: Path
    clients: list[str]
    peers: list[str]
    seen: list[str]
    context: ssl.SSLContext | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    token: str = ""

    @property
    def web(self) -> str:
        return "https" if self.settings.tls else "http"

    def command(self, program: Path, i: int) -> list[str]:
        """What starts member `i`."""
        settings = self.settings
        words = {
            "name": f"m{i}",
            "data-dir": str(self.folder / f"m{i}" / "data"),
            "listen-client-urls": f"{self.web}://{self.clients[i]}",
            "advertise-client-urls": f"{self.web}://{self.clients[i]}",
            "listen-peer-urls": f"http://{self.peers[i]}",
            "initial-advertise-peer-urls": f"http://{self.seen[i]}",
            "initial-cluster": ",".join(f"m{n}=http://{peer}" for n, peer in enumerate(self.seen)),
            "initial-cluster-token": self.clients[0],
            "heartbeat-interval": str(settings.heartbeat_ms),
            "election-timeout": str(settings.election_ms),
            "log-level": "warn",
            "logger": "zap",
        }
        if settings.quota_bytes:
            words["quota-backend-bytes"] = str(settings.quota_bytes)
        if settings.auth:
            words["bcrypt-cost"] = "4"
        if settings.tls:
            words |= {"cert-file": str(self.facts["cert"]), "key-file": str(self.facts["key"])}
            words["trusted-ca-file"] = str(self.facts["ca"])
        flags = ["--client-cert-auth"] if settings.mutual else []
        pairs = [word for name, value in words.items() for word in (f"--{name}", value)]
        return [str(program), *pairs, *flags, *settings.arguments]

    def url(self) -> str:
        """What an application is given."""
        login = f"root:{PASSWORD}@" if self.settings.auth else ""
        scheme = "etcds" if self.settings.tls else "etcd"
        own = ("cert", "key") if self.settings.mutual else ()
        query = "&".join(f"{name}={self.facts[name]}" for name in ("ca", *own)) if self.settings.tls else ""
        return f"{scheme}://{login}{','.join(self.clients)}{'?' + query if query else ''}"

    async def ask(self, i: int, path: str, **body: Any) -> dict[str, Any]:
        """Member `i`'s answer to a question over its JSON door."""
        request = urllib.request.Request(
            f"{self.web}://{self.clients[i]}{path}", data=json.dumps(body).encode(), method="POST"
        )
        if self.token:
            request.add_header("Authorization", self.token)

        def answer() -> Any:
            with urllib.request.urlopen(request, timeout=0.7, context=self.context) as reply:
                return json.load(reply)

        return await asyncio.to_thread(answer)

    async def lead(self, i: int) -> tuple[int, bool]:
        """Member `i`'s term, and whether it leads as far as it knows. Raises where it knows no leader."""
        status = await self.ask(i, "/v3/maintenance/status")
        if int(status.get("leader", 0)) == 0:
            raise ServerFailed(f"m{i} knows no leader")
        return int(status["raftTerm"]), status["leader"] == status["header"]["member_id"]


async def start(folder: Path, *, nodes: int = 1, **settings: Any) -> Cluster:
    """Start `nodes` members; see EtcdSettings.

    `facts`: ask(member, path, **body); ca, cert, key (TLS); user, password (auth).
    """
    chosen = EtcdSettings(**settings)
    clients = [f"127.0.0.1:{free_port()}" for _ in range(nodes)]
    peers = [f"127.0.0.1:{free_port()}" for _ in range(nodes)]
    seen = [await chosen.between(i, peer) if chosen.between else peer for i, peer in enumerate(peers)]
    plan = _Plan(chosen, folder, clients, peers, seen)
    if chosen.tls:
        plan.facts = await certificates(folder)
        plan.context = ssl.create_default_context(cafile=plan.facts["ca"])
        if chosen.mutual:
            plan.context.load_cert_chain(plan.facts["cert"], plan.facts["key"])
    members = [_member(plan, i) for i in range(nodes)]

    async def leader() -> int:
        return await _leader(plan, members)

    addresses = [address for pair in zip(clients, peers, strict=True) for address in pair]
    plan.facts["ask"] = plan.ask
    cluster = Cluster("etcd", plan.url(), members, leader, addresses, plan.facts)
    try:
        for member in members:
            member.launch()
        await asyncio.gather(*(member.serving() for member in members))
        await leader()
        if chosen.auth:
            await _close_the_door(plan)
    except BaseException:
        await cluster.close()
        raise
    return cluster


def _member(plan: _Plan, i: int) -> ServerProcess:
    own = plan.folder / f"m{i}"
    own.mkdir(parents=True, exist_ok=True)

    async def ready() -> object:
        return await plan.lead(i)

    return ServerProcess(f"m{i}", plan.command(PROGRAM.expect(), i), own, ready)


async def _leader(plan: _Plan, members: list[ServerProcess], within_s: float = START_S) -> int:
    """Who leads in the newest term that any living member knows of; waits until somebody does."""
    until = clock.loop_now() + within_s
    while clock.loop_now() < until:
        living = [i for i, member in enumerate(members) if member.pid is not None]
        answers = await asyncio.gather(*(plan.lead(i) for i in living), return_exceptions=True)
        known = [(a[0], a[1], i) for i, a in zip(living, answers, strict=True) if isinstance(a, tuple)]
        newest = max((term for term, _, _ in known), default=0)
        for term, leads, i in known:
            if leads and term == newest:
                return i
        await asyncio.sleep(0.05)
    raise ServerFailed(f"no member of {plan.url()} leads after {within_s:g} s")


async def _close_the_door(plan: _Plan) -> None:
    plan.facts |= {"user": "root", "password": PASSWORD}
    await plan.ask(0, "/v3/auth/user/add", name="root", password=PASSWORD)
    await plan.ask(0, "/v3/auth/role/add", name="root")
    await plan.ask(0, "/v3/auth/user/grant", user="root", role="root")
    await plan.ask(0, "/v3/auth/enable")
    answer = await plan.ask(0, "/v3/auth/authenticate", name="root", password=PASSWORD)
    plan.token = answer["token"]


async def certificates(folder: Path, names: Sequence[str] = ()) -> dict[str, Any]:
    """A certificate authority of this folder's own, and one certificate by it for 127.0.0.1 and `names`."""
    ca, ca_key, cert, key = (str(folder / name) for name in ("ca.pem", "ca.key", "tls.pem", "tls.key"))
    request, extra = str(folder / "tls.csr"), folder / "tls.ext"
    also = "".join(f",DNS:{name}" for name in names)
    extra.write_text(f"subjectAltName=IP:127.0.0.1,DNS:localhost{also}\n")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for words in (
        ("req", "-x509", *curve, "-days", "30", "-subj", "/CN=test", "-keyout", ca_key, "-out", ca),
        ("req", *curve, "-subj", "/CN=127.0.0.1", "-keyout", key, "-out", request),
        ("x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "30",
         "-extfile", str(extra), "-out", cert),
    ):  # fmt: skip
        made = await asyncio.create_subprocess_exec(
            "openssl", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        said, _ = await made.communicate()
        if made.returncode:
            raise ServerFailed(f"openssl {words[0]} failed: {said.decode(errors='replace')}")
    return {"ca": ca, "cert": cert, "key": key}
