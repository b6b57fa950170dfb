"""4.4: mutual TLS between members and with clients; a name is proven by a certificate or not believed."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from raft_crowd import Client, Crowd, until

from atoll.engines.raft.acquaintances import Acquaintances
from atoll.engines.raft.connection import TurnedAway, dial
from atoll.engines.raft.door import UNGREETED_MAX, Door
from atoll.engines.raft.frames import FORMAT, FORMAT_OLDEST, MAGIC, Caller, Hello, Why
from atoll.engines.raft.member_options import MemberOptions
from atoll.engines.raft.peers import Peers, Self
from atoll.engines.raft.tls import Tls, check_open_door
from atoll.errors import ConfigurationError, NotSent
from atoll.verify.servers.process import free_port

OPENSSL = shutil.which("openssl")
pytestmark = pytest.mark.skipif(OPENSSL is None, reason="needs the command openssl to make certificates")
CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def openssl(*words: str) -> None:
    subprocess.run([str(OPENSSL), *words], check=True, capture_output=True, timeout=30)


class Authority:
    """A certificate authority of a test's own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.ca = str(folder / "ca.pem")
        self._key = str(folder / "ca.key")
        openssl("req", "-x509", *CURVE, "-days", "2", "-subj", "/CN=x", "-keyout", self._key, "-out", self.ca)

    def sign(self, name: str) -> tuple[str, str, str]:
        """Authority, certificate and key of `name`."""
        cert, key, request, extra = (
            str(self.folder / f"{name}.{end}") for end in ("pem", "key", "csr", "ext")
        )
        Path(extra).write_text(f"subjectAltName=DNS:{name}\n")
        openssl("req", *CURVE, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        signing = ("-CA", self.ca, "-CAkey", self._key, "-CAcreateserial", "-days", "2", "-extfile", extra)
        openssl("x509", "-req", "-in", request, *signing, "-out", cert)
        return self.ca, cert, key


class Town:
    """Three members with certificates of one authority, and a client's."""

    def __init__(self, folder: Path) -> None:
        self.ours, self.theirs = Authority(folder / "ours"), Authority(folder / "theirs")
        self.files = {name: self.ours.sign(name) for name in ("a", "b", "c", "client")}
        self.members = Crowd(folder)
        for name in "abc":
            self.members.start(name, members=self.members.first, tls=self.files[name])

    def context(self, name: str, authority: Authority | None = None) -> object:
        _, cert, key = self.files[name] if authority is None else authority.sign(name)
        return Tls(ca=self.ours.ca, cert=cert, key=key).for_calling()

    async def client(self, name: str) -> Client:
        self.members.must_live(name)
        return await Client().go(self.members.places[name], self.context("client"))


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    town = Town(tmp_path_factory.mktemp("tls"))
    yield town
    town.members.end()


async def written(town: Town, key: str) -> None:
    """Find the leader by TLS and write."""

    async def once() -> None:
        for name in "abc":
            client = await town.client(name)
            try:
                if (await client.ask("status"))["role"] == "leader":
                    await client.ask("put", key, b"v")
                    return
            finally:
                client.close()
        raise AssertionError("nobody leads yet")

    await until(once)


async def test_members_agree_and_clients_write_over_mutual_tls(town: Town) -> None:
    await written(town, "secret")
    for name in "abc":
        client = await town.client(name)
        assert "secret" in await client.ask("keys")
        client.close()


@pytest.mark.parametrize("how", ["without TLS", "without a certificate", "by another authority"])
async def test_a_caller_who_cannot_prove_itself_does_not_get_in(town: Town, how: str) -> None:
    await written(town, "before")
    place = town.members.places["a"]
    hello = Hello(MAGIC, FORMAT_OLDEST, FORMAT, "", Caller.CLIENT, "x")
    context = None
    if how == "without a certificate":
        import ssl

        context = ssl.create_default_context(cafile=town.ours.ca)
        context.check_hostname = False
    elif how == "by another authority":
        context = town.context("client", town.theirs)
    with pytest.raises(NotSent):
        await dial(place, hello, print, lambda *_: None, tls=context)


async def test_a_client_does_not_talk_to_a_stranger_with_a_certificate_of_another_authority(
    town: Town,
) -> None:
    await written(town, "before")
    _, cert, key = town.files["client"]
    wrong = Tls(ca=town.theirs.ca, cert=cert, key=key).for_calling()
    with pytest.raises(NotSent, match="certificate verify failed"):
        await Client().go(town.members.places["a"], wrong)


async def test_a_name_that_the_certificate_does_not_prove_is_not_believed(town: Town) -> None:
    await written(town, "before")
    client = await town.client("a")
    cluster = (await client.ask("status"))["cluster"]
    client.close()
    hello = Hello(MAGIC, FORMAT_OLDEST, FORMAT, cluster, Caller.PEER, "b", to="a", born="x", incarnation="y")
    with pytest.raises(TurnedAway, match="whose certificate names client") as refusal:
        await dial(town.members.places["a"], hello, print, lambda *_: None, tls=town.context("client"))
    assert refusal.value.why == Why.NAME


async def test_whoever_answers_must_prove_the_name_that_was_dialled(town: Town) -> None:
    await written(town, "before")
    hello = Hello(MAGIC, FORMAT_OLDEST, FORMAT, "", Caller.CLIENT, "x", to="b")
    with pytest.raises(TurnedAway, match="found a call for 'b'; here is 'a'"):
        await dial(town.members.places["a"], hello, print, lambda *_: None, tls=town.context("client"))


async def test_callers_who_never_shake_hands_do_not_fill_the_hall(town: Town, tmp_path: Path) -> None:
    ca, cert, key = town.files["a"]
    me = Self("a", "c1", "born", "run", f"127.0.0.1:{free_port()}")
    peers = Peers(me, Acquaintances(tmp_path), print, Tls(ca=ca, cert=cert, key=key))
    door = Door(peers, print, lambda *_: None)
    await door.open(me.place)
    host, _, port = me.place.rpartition(":")
    silent = [await asyncio.open_connection(host, int(port)) for _ in range(UNGREETED_MAX + 50)]

    async def met() -> None:
        assert len(door._hall) == UNGREETED_MAX

    await until(met)
    hello = Hello(MAGIC, FORMAT_OLDEST, FORMAT, "", Caller.CLIENT, "x")
    connection, welcome = await dial(me.place, hello, print, lambda *_: None, tls=town.context("client"))
    assert welcome.name == "a" and len(door._hall) < UNGREETED_MAX
    connection.close()
    for _, writer in silent:
        writer.close()
    door.close()


@pytest.mark.parametrize("listen", ["0.0.0.0:7401", "10.0.0.7:7401", "[::]:7401", "db.example:7401"])
def test_a_port_beyond_this_machine_without_tls_needs_the_plain_word(listen: str) -> None:
    with pytest.raises(ConfigurationError, match="--insecure"):
        check_open_door(listen, None, False)
    check_open_door(listen, None, True)
    check_open_door(listen, Tls(ca="x", cert="y", key="z"), False)


@pytest.mark.parametrize("listen", ["127.0.0.1:7401", "localhost:7401", "[::1]:7401"])
def test_a_port_of_this_machine_needs_nothing(listen: str) -> None:
    check_open_door(listen, None, False)


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    options = MemberOptions.of("a", tmp_path, tls=("/no/ca.pem", "/no/a.pem", "/no/a.key"))
    assert options.tls is not None
    with pytest.raises(ConfigurationError, match=r"/no/a\.pem and /no/a\.key"):
        options.tls.for_answering()
