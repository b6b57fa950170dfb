"""The manifest: every fault at once, each with its line, what was found and what was expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from atoll.errors import ConfigurationError
from atoll.up.manifest import ManifestFaults, absolute, load

GOOD = """
[app]
name = "shop"
[urls]
state = "sqlite:///.atoll/state.db"
broker = "${BROKER_URL}"
[databases]
orders = "faulty+sqlite:///orders.db?fault_kill_before=commit"
[services.migrate]
command = ["alembic", "upgrade", "head"]
run = "once"
[services.api]
command = ["uvicorn", "shop:app", "--port", "$PORT"]
instances = 3
ready = "/ready"
after = ["migrate"]
[services.worker]
command = ["atoll", "work", "shop.shared"]
stop_grace_s = 30
restarts = { most = 7, within_s = 90 }
env = { LEVEL = "debug" }
[gateway]
port = 8000
routes = { "/" = "api" }
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "atoll.toml"
    path.write_text(text)
    return path


def faults(folder: Path, text: str) -> list[str]:
    with pytest.raises(ManifestFaults) as caught:
        load(write(folder, text), {})
    return [f"{fault.line}: {fault.text}" for fault in caught.value.faults]


def test_a_good_manifest_is_read_whole(tmp_path: Path) -> None:
    manifest = load(write(tmp_path, GOOD).parent, {"BROKER_URL": "amqp://u:secret@b/"})
    migrate, api, worker = manifest.services
    assert migrate.once and not migrate.listens
    assert (api.instances, api.ready, api.after, api.listens, api.routed) == (
        3,
        "/ready",
        ("migrate",),
        True,
        True,
    )
    assert (worker.stop_grace_s, worker.restarts.most, worker.restarts.within_s) == (30, 7, 90)
    assert worker.env == {"LEVEL": "debug"}
    assert manifest.gateway is not None and manifest.gateway.routes == {"/": "api"}
    assert manifest.environment() == {
        "ATOLL_STATE": f"sqlite:///{tmp_path}/.atoll/state.db",
        "ATOLL_BROKER": "amqp://u:secret@b/",
        "ATOLL_ORDERS": f"faulty+sqlite:///{tmp_path}/orders.db?fault_kill_before=commit",
    }
    assert "secret" not in repr(manifest)


SERVICE = '[services.api]\ncommand = ["python"]\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = ", ["1: found text that is not TOML"]),
        ("[app]\nname = 'x'\n", ["1: found no services; expected at least one"]),
        (SERVICE + "instances = 0", ["3: found instances = 0; expected a whole number from 1"]),
        (SERVICE + "instances = true", ["3: found instances = True; expected a whole number"]),
        (SERVICE + "instances = '3'", ["3: found instances = '3'; expected a whole number"]),
        (SERVICE + "instanses = 3", ["3: found the key 'instanses' in [services.api]; expected 'instances'"]),
        (SERVICE + "[servces.x]\n", ["3: found [servces]; expected 'services'"]),
        ("[services.api]\ncommand = 'python -m x'", ["2: found command = 'python -m x'; expected a list"]),
        ("[services.api]\ncommand = []", ["2: found command = []; expected a list"]),
        ("[services.api]\n\nready = '/x'", ["1: found no command in [services.api]"]),
        ("[services]\napi = 3", ["2: found services.api = 3; expected a table [services.api]"]),
        (SERVICE + "ready = 'ready'", ["3: found ready = 'ready'; expected a path such as /ready"]),
        (SERVICE + "run = 'twice'", ["3: found run = 'twice'; expected 'always' or 'once'"]),
        (
            SERVICE + "run = 'once'\ninstances = 2",
            ["4: found instances = 2 with run = once; expected one instance"],
        ),
        (SERVICE + "port = 80\ninstances = 2", ["3: found a fixed port for 2 instances"]),
        (SERVICE + "stop_grace_s = -1", ["3: found stop_grace_s = -1; expected seconds"]),
        (SERVICE + "after = 'x'", ["3: found after = 'x'; expected a list of texts"]),
        (SERVICE + "after = ['x']", ["3: found 'x'; expected one of: api"]),
        (SERVICE + "after = ['api']", ["3: found a circle: api after api"]),
        (SERVICE + "restarts = { most = -1 }", ["3: found most = -1; expected a whole number from 0"]),
        (SERVICE + "restarts = 5", ["3: found services.api.restarts = 5; expected a table"]),
        (
            SERVICE + "[services.api.restarts]\nwithin = 5",
            ["4: found the key 'within' in [services.api.restarts]"],
        ),
        (SERVICE + "env = { A = 1 }", ["3: found A, which is no text"]),
        ("[services.Api]\ncommand = ['python']", ["1: found the name 'Api'; expected small letters"]),
        (SERVICE + "[gateway]\nroutes = { '/' = 'api' }", ["3: found no port; expected port = 8000"]),
        (SERVICE + "[gateway]\nport = 1", ["3: found no routes; expected routes ="]),
        (
            SERVICE + "[gateway]\nport = 1\nroutes = { '/' = 'web' }",
            ["5: found the service 'web'; expected one of"],
        ),
        (
            SERVICE + "[gateway]\nport = 1\nroutes = { 'x' = 'api' }",
            ["5: found 'x'; expected a path that begins"],
        ),
        (
            SERVICE + "[gateway]\nport = 70000\nroutes = { '/' = 'api' }",
            ["4: found port = 70000; expected a whole"],
        ),
        (
            "[urls]\nb = '${NOPE}'\n" + SERVICE,
            ["2: found ${NOPE}, which is not set; expected it in the environment"],
        ),
        (
            SERVICE + "run = 'once'\n[gateway]\nport = 1\nroutes = { '/' = 'api' }",
            ["6: found 'api', which runs once; expected a service that stays"],
        ),
    ],
)
def test_a_fault_names_its_line_what_was_found_and_what_was_expected(
    text: str, expected: list[str], tmp_path: Path
) -> None:
    found = faults(tmp_path, text)
    assert len(found) == len(expected), found
    for one, wish in zip(found, expected, strict=True):
        assert one.startswith(wish), one


def test_all_faults_are_told_at_once_in_the_order_of_their_lines(tmp_path: Path) -> None:
    text = '[urls]\nb = "${NOPE}"\n[services.api]\ncommand = "x"\nready = "r"\nafter = ["y"]\ncolor = 1\n'
    found = faults(tmp_path, text)
    assert [line.partition(":")[0] for line in found] == ["2", "4", "5", "6", "7"]
    with pytest.raises(ManifestFaults, match=r"has 5 faults; nothing was started") as caught:
        load(tmp_path, {})
    assert f"atoll.toml:5: found ready = 'r'" in str(caught.value)  # noqa: F541


def test_a_value_from_the_environment_is_never_shown(tmp_path: Path) -> None:
    path = write(tmp_path, '[urls]\nb = "${SECRET}"\n[services.api]\ncommand = ["x"]\nready = "${PATHS}"\n')
    with pytest.raises(ManifestFaults) as caught:
        load(path, {"SECRET": "s3cr3t", "PATHS": "/fine", "X": "y"} | {"PATHS": "s3cr3t"})
    assert "s3cr3t" not in str(caught.value)


def test_a_folder_without_a_manifest_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"found no .*atoll\.toml; expected a manifest there"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("sqlite:///a.db", "sqlite:////f/a.db"),
        ("sqlite:///a.db?x=1", "sqlite:////f/a.db?x=1"),
        ("sqlite:////a.db", "sqlite:////a.db"),
        ("memory://", "memory://"),
        ("postgresql:///a", "postgresql:///a"),
    ],
)
def test_relative_sqlite_paths_begin_at_the_manifest(url: str, seen: str) -> None:
    assert absolute(url, Path("/f")) == seen
