"""3.12: an engine of another package is found by its scheme, and judged by the suites that judge ours."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import atoll
from atoll.errors import ConfigurationError
from atoll.ports.register import Entry, Got
from atoll.testing import NotTested, Violation, conformance

SIGN = """
from atoll.engines.memory import MemoryStore

class AcmeStore(MemoryStore):
    pass

class ForgetfulStore(MemoryStore):
    async def put_if(self, key, value, revision):
        answer = await super().get(key)
        from atoll.ports.register import Applied
        return Applied(answer.revision + 1, ())
"""


def package(folder: Path, points: str, name: str = "acme_atoll", source: str = SIGN) -> Path:
    """What `pip install` leaves behind: a module and its dist-info."""
    (folder / f"{name}.py").write_text(source)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[atoll.engines]\n{points}\n")
    return folder


def run(folder: Path, code: str, *more: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(map(str, (folder, *more)))
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": path},
    )


def test_a_url_finds_the_engine_of_an_installed_package(tmp_path: Path) -> None:
    answer = run(
        package(tmp_path, "acme.store = acme_atoll:AcmeStore"),
        """
        import asyncio, atoll
        async def main():
            async with atoll.store("acme://") as state, atoll.Lock(state, "x"):
                print(type(state).__name__)
        asyncio.run(main())
        """,
    )
    assert answer.stdout.strip() == "AcmeStore", answer.stderr


def test_no_package_takes_the_place_of_an_engine_of_ours(tmp_path: Path) -> None:
    answer = run(
        package(tmp_path, "sqlite.store = acme_atoll:AcmeStore"),
        "import atoll; print(type(atoll.store('sqlite:///x.db')).__module__)",
    )
    assert answer.stdout.strip() == "atoll.engines.sqlite.store", answer.stderr


def test_two_packages_with_one_scheme_are_refused_by_name(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    package(one, "acme.store = acme_atoll:AcmeStore")
    package(two, "acme.store = other_acme:AcmeStore", name="other_acme")
    answer = run(one, "import atoll; atoll.store('acme://')", two)
    assert "two packages that offer acme.store" in answer.stderr
    assert "acme_atoll:AcmeStore" in answer.stderr and "other_acme:AcmeStore" in answer.stderr


def test_a_scheme_that_nobody_offers_names_the_group() -> None:
    with pytest.raises(ConfigurationError, match=r"acme://.*sqlite://.*atoll\.engines"):
        atoll.store("acme://x")


def test_a_door_that_the_package_does_not_have_is_said(tmp_path: Path) -> None:
    answer = run(
        package(tmp_path, "acme.store = acme_atoll:AcmeStore"), "import atoll; atoll.broker('acme://')"
    )
    assert "acme:// is no broker; it is a store" in answer.stderr


def test_a_missing_dependency_of_theirs_is_not_called_an_extra_of_ours(tmp_path: Path) -> None:
    answer = run(
        package(tmp_path, "acme.store = acme_atoll:AcmeStore", source="import not_there_at_all"),
        "import atoll; atoll.store('acme://')",
    )
    assert "No module named 'not_there_at_all'" in answer.stderr and "atoll[" not in answer.stderr


@pytest.mark.parametrize("check", conformance("store")[:12], ids=str)
async def test_a_check_is_a_plain_function_of_a_url(check: object) -> None:
    assert callable(check)
    try:
        await check("memory://")
    except NotTested as reason:
        pytest.skip(str(reason))


async def test_a_broken_engine_is_told_which_promise_it_broke() -> None:
    from atoll.engines.memory import MemoryStore

    class Stale(MemoryStore):
        async def get(self, key: str) -> Got:
            found = await super().get(key)
            return Got(found.entry and Entry(key, b"old", 1, 1), found.revision)

    told = []
    for check in conformance("store"):
        try:
            await check(Stale)
        except NotTested:
            continue
        except Violation as broken:
            told.append((check.name, str(broken)))
        if len(told) > 2:
            break
    assert told and all(sentence for _, sentence in told)


def test_an_unknown_port_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="found the port 'shop'"):
        conformance("shop")
