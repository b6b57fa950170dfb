"""@name on the command line: the environment first, then the nearest manifest; passwords are warned of."""

from __future__ import annotations

from pathlib import Path

import pytest

from atoll.cli import named
from atoll.errors import ConfigurationError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "atoll.toml").write_text(
        '[urls]\nstate = "sqlite:///.atoll/state.db"\nbroker = "${BROKER_URL}"\n[databases]\norders = "sqlite:////o.db"\n'
    )
    (tmp_path / "deep" / "er").mkdir(parents=True)
    return tmp_path


def test_the_nearest_manifest_above_is_read(folder: Path) -> None:
    below = folder / "deep" / "er"
    assert named.url("@state", folder=below, environ={}) == f"sqlite:///{folder}/.atoll/state.db"
    assert named.url("@orders", folder=below, environ={}) == "sqlite:////o.db"
    assert named.url("@broker", folder=below, environ={"BROKER_URL": "amqp://b"}) == "amqp://b"


def test_the_environment_comes_first(folder: Path) -> None:
    assert named.url("@state", folder=folder, environ={"ATOLL_STATE": "memory://"}) == "memory://"
    assert named.url("@my-db", folder=folder, environ={"ATOLL_MY_DB": "memory://x"}) == "memory://x"


def test_a_url_is_taken_as_it_is_and_a_password_in_it_is_warned_of(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert named.url("sqlite:///a.db") == "sqlite:///a.db"
    assert capsys.readouterr().err == ""
    named.url("redis://u:pa55@h/1")
    warned = capsys.readouterr().err
    assert "a password in the words of a command is seen by everybody" in warned and "pa55" not in warned


@pytest.mark.parametrize(
    ("words", "wish"),
    [
        ("@nobody", r"found no URL named 'nobody'; it names @state, @broker, @orders"),
        ("@broker", r"the URL 'broker' stands on 'BROKER_URL', which is not set"),
        ("state.db", r"has no scheme; expected something like sqlite:///state\.db"),
    ],
)
def test_what_cannot_be_resolved_says_what_is_known(words: str, wish: str, folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=wish):
        named.url(words, folder=folder, environ={})


def test_no_manifest_anywhere_names_both_ways() -> None:
    with pytest.raises(ConfigurationError, match=r"no ATOLL_STATE in the environment and no atoll\.toml"):
        named.url("@state", folder=Path("/"), environ={})
