"""A URL may name several servers; who asks for one gets the first."""

from __future__ import annotations

import pytest

from atoll.errors import ConfigurationError
from atoll.urls import parse


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("etcd://a:2379,b:2380,c/prefix", (("a", 2379), ("b", 2380), ("c", None))),
        ("etcd://u:p%2Cw@a:1,b:2?x=1,2", (("a", 1), ("b", 2))),
        ("redis://[::1]:6379,[fe80::2]:6380/0", (("::1", 6379), ("fe80::2", 6380))),
        ("postgresql://a/db", (("a", None),)),
        ("sqlite:///a,b.db", ()),
        ("memory://", ()),
    ],
)
def test_every_server_named_is_found(url: str, hosts: tuple[tuple[str, int | None], ...]) -> None:
    address = parse(url)
    assert address.hosts == hosts
    assert (address.host, address.port) == (hosts[0] if hosts else ("", None))


def test_the_rest_of_the_url_is_read_as_before() -> None:
    address = parse("etcd://ann:s,e@a:1,b:2/some/where?ttl_s=3&x=a,b")
    assert (address.user, address.password, address.path) == ("ann", "s,e", "some/where")
    assert address.options == {"ttl_s": "3", "x": "a,b"}


@pytest.mark.parametrize("url", ["etcd://a:2379,b:2380,c/prefix", "redis://[::1]:6379,[fe80::2]:6380/0"])
def test_the_url_is_written_again_with_every_server(url: str) -> None:
    assert str(parse(url)) == url


def test_the_password_stays_masked() -> None:
    assert str(parse("etcd://ann:secret@a:1,b:2/p")) == "etcd://ann:***@a:1,b:2/p"


@pytest.mark.parametrize("url", ["etcd://a:1,,b:2", "etcd://a:1,", "etcd://,a", "etcd://a:1,b:x"])
def test_a_server_that_cannot_be_read_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        parse(url)
