"""Settings of pydantic-settings and dynaconf from a real server, and from the last good file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic
import pydantic_settings
import pytest
from dynaconf import Dynaconf
from holdfast import client
from holdfast.client import dynaconf_loader
from holdfast.client.at_start import NotSettings, read, texts, tree
from holdfast.client.settings import HoldfastSource
from holdfast_lab.processes import LocalCluster


@pytest.fixture
def hf(server: LocalCluster) -> Iterator[client.BlockingClient]:
    with client.connect_blocking(server.endpoints) as made:
        made.delete("/app/", prefix=True)
        yield made


class Database(pydantic.BaseModel):
    host: str
    port: int = 5432


class Base(pydantic_settings.BaseSettings):
    db: Database
    hosts: list[str] = []
    debug: bool = False
    name: str = "none"


def settings(endpoints: list[str], **options: Any) -> type[Base]:
    class Settings(Base):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[pydantic_settings.BaseSettings],
            init_settings: pydantic_settings.PydanticBaseSettingsSource,
            env_settings: pydantic_settings.PydanticBaseSettingsSource,
            dotenv_settings: pydantic_settings.PydanticBaseSettingsSource,
            file_secret_settings: pydantic_settings.PydanticBaseSettingsSource,
        ) -> tuple[pydantic_settings.PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, HoldfastSource(settings_cls, endpoints, "/app/", **options)

    return Settings


def test_a_model_is_read(hf: client.BlockingClient, server: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    made = settings(server.endpoints)
    hf.txn().then(
        hf.op.put("/app/db", '{"host": "a", "port": 1}'),
        hf.op.put("/app/db/port", "2"),
        hf.op.put("/app/hosts", '["x", "y"]'),
        hf.op.put("/app/Debug", "true"),
        hf.op.put("/app/unknown", "is left alone"),
    ).commit()
    expected = {"db": Database(host="a", port=2), "hosts": ["x", "y"], "debug": True, "name": "none"}
    assert dict(made()) == expected  # type: ignore[call-arg]
    monkeypatch.setenv("NAME", "of the environment")
    assert made(debug=False).name == "of the environment"  # type: ignore[call-arg]
    assert made(debug=False).debug is False  # type: ignore[call-arg]
    hf.put("/app/db/port", "no number")
    with pytest.raises(pydantic.ValidationError, match=r"db\.port"):
        made()  # type: ignore[call-arg]
    hf.put("/app/debug", "false")
    with pytest.raises(NotSettings, match="'Debug' and 'debug' would be the same setting"):
        made()  # type: ignore[call-arg]


def test_a_start_without_servers(tmp_path: Path) -> None:
    local = LocalCluster(tmp_path / "c", voters=1)
    local.start()
    file = tmp_path / "kept"
    try:
        with client.connect_blocking(local.endpoints, timeout=100) as hf:
            hf.put("/app/db/host", "kept")
        assert settings(local.endpoints, file=file, timeout=30)().db.host == "kept"  # type: ignore[call-arg]
        local.kill()
        assert settings(local.endpoints, file=file)().db.host == "kept"  # type: ignore[call-arg]
        state = read(local.endpoints, "/app/", file=file)
        assert (state.from_file, state.values) == (True, {b"/app/db/host": b"kept"})
        assert 0 < state.age < 300
        with pytest.raises(client.Unavailable, match="s old, over"):
            settings(local.endpoints, file=file, max_age=0.001)()  # type: ignore[call-arg]
        with pytest.raises(client.Unavailable, match="there is no file"):
            settings(local.endpoints, timeout=0.2)()  # type: ignore[call-arg]
        made = settings(local.endpoints, timeout=0.2, required=False)
        assert made(db=Database(host="given")).db.host == "given"
    finally:
        local.kill()


def dynaconf(endpoints: list[str], **more: Any) -> Any:
    return Dynaconf(
        LOADERS_FOR_DYNACONF=["holdfast.client.dynaconf_loader", "dynaconf.loaders.env_loader"],
        HOLDFAST_FOR_DYNACONF={"endpoints": endpoints, "prefix": "/app/", "timeout": 10},
        **more,
    )


def test_dynaconf_reads_casts_and_writes(
    hf: client.BlockingClient, server: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    hf.put("/app/db/port", "5432")
    hf.put("/app/db/tls", "true")
    hf.put("/app/Hosts", '@json ["x", "y"]')
    hf.put("/app/plain", "text with = and :")
    made = dynaconf(server.endpoints)
    assert (made.db.port, made.db.tls, made.HOSTS, made.plain) == (5432, True, ["x", "y"], "text with = and :")
    hf.put("/app/plain", "new")
    assert made.plain == "text with = and :", "read once"
    made.reload()
    assert made.plain == "new"
    dynaconf_loader.write(made, {"hosts": ["z"], "DB": {"port": 1}}, rate=2.5)
    stored = {kv.key: kv.value for kv in hf.range("/app/", prefix=True).kvs}
    assert stored[b"/app/db/port"] == b"@int 1"
    assert stored[b"/app/rate"] == b"@float 2.5"
    assert sorted(stored) == [b"/app/Hosts", b"/app/db/port", b"/app/db/tls", b"/app/plain", b"/app/rate"]
    assert (made.hosts, made.db.port, made.db.tls, made.rate) == (["z"], 1, True, 2.5)
    again = dynaconf(server.endpoints)
    assert (again.hosts, again.db.port, again.rate) == (["z"], 1, 2.5)
    monkeypatch.setenv("DYNACONF_PLAIN", "of the environment")
    assert dynaconf(server.endpoints).plain == "of the environment"
    with pytest.raises(ValueError, match="no settings are given"):
        dynaconf_loader.write(made)


def test_dynaconf_environments(hf: client.BlockingClient, server: LocalCluster) -> None:
    hf.put("/app/default/a", "1")
    hf.put("/app/default/b", "1")
    hf.put("/app/production/b", "2")
    made = dynaconf(server.endpoints, environments=True, env="production")
    assert (made.a, made.b) == (1, 2)
    assert dynaconf(server.endpoints, environments=True, env="development").b == 1
    dynaconf_loader.write(made, {"c": "3"})
    assert hf.get("/app/production/c") is not None


def test_another_client_is_not_disturbed_by_those_that_come_and_go(
    hf: client.BlockingClient, server: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """gRPC has one place for the events of all loops; those for a loop that is closed would hold up the others."""
    with hf.cache("/app/") as cache:
        for n in range(20):
            hf.put("/app/x", str(n))
            assert read(server.endpoints, "/app/").values == {b"/app/x": str(n).encode()}
            cache.current()
            assert cache["/app/x"].value == str(n).encode()
    assert "loop is closed" not in caplog.text


def test_dynaconf_without_servers() -> None:
    options = {"endpoints": "127.0.0.1:1", "prefix": "/app/", "timeout": 0.2}
    loaders = ["holdfast.client.dynaconf_loader"]
    with pytest.raises(client.Unavailable):
        _ = Dynaconf(LOADERS_FOR_DYNACONF=loaders, HOLDFAST_FOR_DYNACONF=options, SILENT_ERRORS_FOR_DYNACONF=False).x
    with pytest.raises(NotSettings, match="at least `endpoints` and `prefix`"):
        _ = Dynaconf(LOADERS_FOR_DYNACONF=loaders, SILENT_ERRORS_FOR_DYNACONF=False).x


def test_keys_that_cannot_be_settings_are_named() -> None:
    assert tree(texts({b"/a/x/y": b"1", b"/a/x/z": b"2", b"/a/w": b""}, "/a/")) == {"x": {"y": "1", "z": "2"}, "w": ""}
    for names in (["x", "x/y"], ["x/y", "x"], ["x/y", "x/y/z/w"]):
        with pytest.raises(NotSettings, match=r"has a value, and .* is below it"):
            tree(dict.fromkeys(names, "1"))
        with pytest.raises(NotSettings, match=r"has a value, and .* is below it"):
            tree({name: {} for name in names})
    for key in (b"/a/", b"/a//x", b"/a/x/", b"/a/\xff"):
        with pytest.raises(NotSettings, match="cannot be a setting"):
            texts({key: b"1"}, b"/a")
    with pytest.raises(NotSettings, match="cannot be a setting"):
        texts({b"/a/x": b"\xff"}, "/a/")
