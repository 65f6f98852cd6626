"""The cache of a prefix: whole states only, how old they are, and a start without a server."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pydantic
import pytest
from holdfast import client
from holdfast.client import last_good
from holdfast.client.cache import MOST_KEYS, Cache, _page
from holdfast.client.position import Position
from holdfast.client.values import Event, KeyValue
from holdfast.proto import kv_pb2, rpc_pb2
from holdfast_lab.processes import LocalCluster

from ..integration.users import connector, enable, grant_role, revoke_role, set_up


def state(revision: int, **values: str) -> rpc_pb2.RangeResponse:
    found = rpc_pb2.RangeResponse()
    found.header.revision = revision
    for key, value in values.items():
        found.kvs.append(kv_pb2.KeyValue(key=key.encode(), value=value.encode(), mod_revision=revision))
    return found


# ---- the file ----------------------------------------------------------------------------------------------------


def test_a_file_is_kept_with_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "x"
    assert last_good.load(path, b"/a/") is None
    for revision in (1, 2, 3):
        last_good.save(path, b"/a/", state(revision, k=str(revision)))
    assert sorted(p.name for p in path.parent.iterdir()) == ["x", "x.1"]
    assert path.stat().st_mode & 0o777 == 0o600
    kept = last_good.load(path, b"/a/")
    assert kept is not None
    assert kept.found == state(3, k="3")
    assert kept.age < 10
    with pytest.raises(last_good.NotThatPrefix, match="use another file"):
        last_good.load(path, b"/b/")


def test_any_damage_is_noticed_and_the_older_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x"
    last_good.save(path, b"/a/", state(1, k="1"))
    last_good.save(path, b"/a/", state(2, k="2"))
    whole = path.read_bytes()
    chance = random.Random(1)
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        kept = last_good.load(path, b"/a/")
        assert kept is not None
        assert kept.found == state(1, k="1"), place
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        kept = last_good.load(path, b"/a/")
        assert kept is not None
        assert kept.found == state(1, k="1"), length
    path.unlink()  # killed between the two renames
    kept = last_good.load(path, b"/a/")
    assert kept is not None
    assert kept.found == state(1, k="1")


async def test_a_file_says_how_old_its_state_is_and_not_how_old_the_file_is(tmp_path: Path) -> None:
    path = tmp_path / "x"
    last_good.save(path, b"/", state(1, k="1"), age=100.0)
    before = path.read_bytes()
    async with client.connect("127.0.0.1:1") as hf, await hf.cache("/", file=path) as cache:
        assert cache.from_file
        assert 100.0 <= cache.age < 200.0
    assert path.read_bytes() == before, "nothing newer is known"


# ---- changes -----------------------------------------------------------------------------------------------------


def put(key: str, value: str, revision: int) -> Event:
    return Event("put", KeyValue(key.encode(), value.encode(), revision, revision, 1, 0), None)


def gone(key: str, revision: int) -> Event:
    return Event("delete", KeyValue(key.encode(), b"", 0, revision, 0, 0), None)


async def unstarted() -> Cache:
    return Cache(client.connect("127.0.0.1:1").connection, b"/", file=None, confirm=1.0)


async def test_a_revision_is_seen_as_a_whole_and_of_each_key_only_the_newest_change_is_told() -> None:
    cache = await unstarted()
    changes = cache.changes()
    first = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0)
    before = cache._kvs
    cache._apply([put("/a", "1", 2), put("/b", "1", 2)])
    assert before == {}, "a reader of the state before sees nothing of the new one"
    assert [e.kv.key for e in await first] == [b"/a", b"/b"]
    cache._apply([put("/a", "2", 3)])
    cache._apply([put("/a", "3", 4)])
    cache._apply([gone("/b", 5)])
    assert [(e.type, e.kv.key, e.kv.value) for e in await anext(changes)] == [
        ("put", b"/a", b"3"),
        ("delete", b"/b", b""),
    ]
    assert list(cache) == [b"/a"]
    assert "/a" in cache
    assert cache["/a"].value == b"3"
    assert cache.get("/b") is None
    cache._take([kv_pb2.KeyValue(key=b"/c", value=b"1", mod_revision=9)], Position(1, 9), 0.0)
    assert {(e.type, e.kv.key) for e in await anext(changes)} == {("delete", b"/a"), ("put", b"/c")}
    assert cache.revision == 9


async def test_who_waits_for_changes_of_a_closed_cache_is_told() -> None:
    hf = client.connect("127.0.0.1:1")
    cache = Cache(hf.connection, b"/", file=None, confirm=1.0)
    cache._take([kv_pb2.KeyValue(key=b"/a", value=b"1", mod_revision=2)], Position(1, 2), 0.0)
    cache._go()
    waiting = asyncio.ensure_future(anext(cache.changes()))
    await asyncio.sleep(0)
    await hf.close()
    with pytest.raises(client.Unavailable, match="is closed"):
        await waiting
    with pytest.raises(client.Unavailable, match="is closed"):
        await cache.current()
    assert cache["/a"].value == b"1"
    assert len(asyncio.all_tasks()) == 1, "nothing follows any more"


async def test_how_far_changes_are_handled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.client.cache.now", lambda: 1000.0)
    cache = await unstarted()
    changes = cache.changes()
    cache._take([], Position(1, 1), 10.0)
    assert changes.handled_to == 10.0
    cache._apply([put("/a", "1", 2)])
    cache._known_at = 20.0  # confirmed, with the change
    assert changes.handled_to == 10.0
    assert await anext(changes)
    cache._apply([put("/a", "2", 3)])
    cache._known_at = 30.0
    assert changes.handled_to == 10.0, "what was yielded is not handled yet"
    assert await anext(changes)
    assert changes.handled_to == 20.0
    cache._take([kv_pb2.KeyValue(key=b"/a", value=b"3", mod_revision=9)], Position(1, 9), 40.0)
    assert await anext(changes)
    assert changes.handled_to == 30.0
    waiting = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0)
    assert changes.handled_to == 40.0
    waiting.cancel()


# ---- with servers ------------------------------------------------------------------------------------------------


@pytest.mark.integration
async def test_a_cache_follows_and_starts_from_its_file_while_no_server_answers(tmp_path: Path) -> None:
    local = LocalCluster(tmp_path / "c", voters=1)
    local.start()
    file = tmp_path / "kept"
    try:
        await local.wait_ready()
        async with client.connect(local.endpoints, timeout=5.0) as hf:
            for n in range(2500):  # more than two pages
                await hf.put(f"/many/{n:05}", "x")
            async with await hf.cache("/many/", file=file, confirm_seconds=0.2) as cache:
                assert len(cache) == 2500
                assert not cache.from_file
                await hf.put("/other", "1")
                await hf.put("/many/00000", "y")
                await hf.delete("/many/00001")
                await cache.current()
                assert cache["/many/00000"].value == b"y"
                assert "/many/00001" not in cache
                revision = cache.revision
                await hf.put("/other", "2")
                await cache.current()
                assert cache.revision > revision, "a change elsewhere moves the cache, too"
                async with asyncio.timeout(10):
                    while cache.age > 1.0:
                        await asyncio.sleep(0.01)
                (process,) = local.voters.values()
                assert process.running is not None
                os.kill(process.running.pid, signal.SIGSTOP)
                await asyncio.sleep(1.5)
                assert cache.age > 1.4, "the age grows while nothing is confirmed"
                assert cache["/many/00000"].value == b"y"
                os.kill(process.running.pid, signal.SIGCONT)
        local.kill()
        async with client.connect(local.endpoints, timeout=5.0) as hf:
            began = time.monotonic()
            async with await hf.cache("/many/", file=file) as cache:
                assert time.monotonic() - began < 1.5
                assert cache.from_file
                assert len(cache) == 2499
                assert 0 < cache.age < 300
                local.start()
                async with asyncio.timeout(30):
                    while cache.from_file:
                        await asyncio.sleep(0.05)
            with pytest.raises(last_good.NotThatPrefix):
                await hf.cache("/x/", file=file)
        local.kill()
        async with client.connect(local.endpoints, timeout=1.0) as hf:
            with pytest.raises(client.Unavailable, match="there is no file"):
                await hf.cache("/many/")
    finally:
        local.kill()


# ---- typed values ------------------------------------------------------------------------------------------------


class Settings(pydantic.BaseModel):
    timeout: int


@pytest.mark.integration
async def test_a_typed_value_is_always_valid(tmp_path: Path) -> None:
    local = LocalCluster(tmp_path / "c", voters=1)
    local.start()
    file = tmp_path / "kept"
    try:
        await local.wait_ready()
        async with client.connect(local.endpoints, timeout=5.0) as hf:
            with pytest.raises(client.InvalidConfig, match="does not exist"):
                await hf.config("/settings", Settings)
            await hf.put("/settings", '{"timeout": "soon"}')
            with pytest.raises(client.InvalidConfig, match="timeout"):
                await hf.config("/settings", Settings)
            await hf.put("/settings", '{"timeout": 1}')
            await hf.put("/settings2", "another key that begins alike")
            async with await hf.config("/settings", Settings, file=file) as config:
                assert config.value == Settings(timeout=1)
                changes = config.changes()
                newest = asyncio.ensure_future(anext(changes))
                await hf.put("/settings", '{"timeout": 2}')
                assert await asyncio.wait_for(newest, 10) == Settings(timeout=2)
                await hf.put("/settings", "no JSON")
                await config._cache.current()
                assert config.value == Settings(timeout=2)
                assert "Invalid JSON" in config.error
                await hf.put("/settings", '{"timeout": 3}')
                await config._cache.current()
                assert (config.value, config.error) == (Settings(timeout=3), "")
                await hf.put("/settings", '{"timeout": null}')
                await config._cache.current()
                assert config.error
        local.kill()
        async with (
            client.connect(local.endpoints, timeout=5.0) as hf,
            await hf.config("/settings", Settings, file=file) as config,
        ):
            assert config.from_file
            assert config.value == Settings(timeout=3), "the last good one, not the newest"
            local.start()
            async with asyncio.timeout(30):
                while config.from_file:
                    await asyncio.sleep(0.05)
            assert config.value == Settings(timeout=3)
            assert "timeout" in config.error
            await hf.delete("/settings")
            await config._cache.current()
            assert (config.value, config.error) == (Settings(timeout=3), "the key was deleted")
        for servers in (True, False):  # it is no reason not to start again
            if not servers:
                local.kill()
            async with (
                client.connect(local.endpoints, timeout=5.0) as hf,
                await hf.config("/settings", Settings, file=file) as config,
            ):
                assert (config.value, config.from_file) == (Settings(timeout=3), not servers)
    finally:
        local.kill()


@pytest.mark.integration
def test_blocking_cache_and_config(tmp_path: Path) -> None:
    local = LocalCluster(tmp_path, voters=1)
    local.start()
    try:
        asyncio.run(local.wait_ready())
        with client.connect_blocking(local.endpoints) as hf:
            hf.put("/a/1", "1")
            with hf.cache("/a/") as cache, hf.config("/a/1", int) as config:
                assert (list(cache), cache["/a/1"].value, "/a/2" in cache, len(cache)) == ([b"/a/1"], b"1", False, 1)
                assert (config.value, config.error) == (1, "")
                hf.put("/a/1", "2")
                cache.current()
                kept = cache.get("/a/1")
                assert kept is not None
                assert kept.value == b"2"
                while config.value != 2:
                    time.sleep(0.01)
                hf.put("/a/1", "3")
                changes = cache.changes()
                hf.put("/a/2", "x")
                while b"/a/2" not in {event.kv.key for event in next(changes)}:
                    pass
    finally:
        local.kill()


async def test_a_function_may_parse_and_a_whole_state_keeps_what_was_valid() -> None:
    cache = Cache(client.connect("127.0.0.1:1").connection, b"/", file=None, confirm=1.0, parse=int)
    cache._take([kv_pb2.KeyValue(key=b"/a", value=b"1", mod_revision=2)], Position(1, 2), 0.0)
    cache._take(
        [
            kv_pb2.KeyValue(key=b"/a", value=b"x", mod_revision=3),
            kv_pb2.KeyValue(key=b"/b", value=b"y", mod_revision=4),
        ],
        Position(1, 4),
        0.0,
    )
    assert (cache.parsed, list(cache), cache["/a"].value) == ({b"/a": 1}, [b"/a"], b"1")
    assert sorted(cache.rejected) == [b"/a", b"/b"]
    cache._take([kv_pb2.KeyValue(key=b"/b", value=b"2", mod_revision=5)], Position(1, 5), 0.0)
    assert (cache.parsed, cache.rejected, list(cache)) == ({b"/b": 2}, {}, [b"/b"])


@pytest.mark.integration
async def test_a_cache_that_is_refused_leaves_nothing_running(tmp_path: Path) -> None:
    local = LocalCluster(tmp_path, voters=1)
    local.start()
    try:
        await set_up(local)
        async with connector(local)("root") as root:
            await enable(root)
        async with connector(local)("mat") as mat:
            before = asyncio.all_tasks()
            for _ in range(3):
                with pytest.raises(client.Refused, match="permission denied"):
                    await mat.cache("/secret/", file=tmp_path / "kept")
            assert not mat.connection.caches
            assert {task.get_name() for task in asyncio.all_tasks() - before if "Cache" in repr(task)} == set()
    finally:
        local.kill()


@pytest.mark.integration
async def test_a_cache_follows_a_cluster_that_was_made_anew(tmp_path: Path) -> None:
    """Its revisions begin again, below those that the cache and its file know."""
    local = LocalCluster(tmp_path / "cluster", voters=1)
    local.start()
    file = tmp_path / "last-good"
    try:
        await local.wait_ready()
        async with client.connect(local.endpoints, timeout=20) as hf:
            for number in range(20):
                await hf.put("/a/old", str(number))
            async with await hf.cache("/a/", file=file) as cache:
                await cache.current()
            async with await hf.cache("/a/", consistent=True) as living, asyncio.timeout(30):
                local.kill()
                shutil.rmtree(local.directory / "m1")
                local.start()
                await local.wait_ready()
                await hf.allow_caching("/a/")
                await hf.put("/a/new", "1")
                while living.get("/a/new") is None:
                    assert not living.is_current, "a lease of the new cluster says nothing of the old one's keys"
                    await asyncio.sleep(0.001)
                assert living.get("/a/old") is None
                await living.current()
                await hf.put("/a/new", "2")
                await living.current()
                assert living["/a/new"].value == b"2"
            async with await hf.cache("/a/", file=file) as cache, asyncio.timeout(30):
                assert cache.get("/a/old") is None
                await hf.put("/a/new", "3")
                while cache["/a/new"].value != b"3":
                    await cache.moved()
    finally:
        local.kill()


def deep(_: bytes) -> object:
    raise RecursionError("maximum recursion depth exceeded")


def missing(value: bytes) -> object:
    return {b"good": 1, b"better": 2}[value]


@pytest.mark.integration
@pytest.mark.parametrize(("model", "name"), [(missing, "KeyError"), (deep, "RecursionError")])
async def test_whatever_a_model_raises_the_value_before_stays_and_the_next_one_counts(
    model: Callable[[bytes], object], name: str, tmp_path: Path
) -> None:
    def parse(value: bytes) -> object:
        return missing(value) if value != b"bad" else model(value)

    local = LocalCluster(tmp_path, voters=1)
    local.start()
    try:
        await local.wait_ready()
        async with client.connect(local.endpoints) as hf:
            await hf.put("/x", "good")
            async with await hf.config("/x", parse) as config, asyncio.timeout(30):
                await hf.put("/x", "bad")
                while not config.error:
                    await config._cache.moved()
                assert name in config.error
                assert [config.value] == [1]
                await hf.put("/x", "better")
                while config.value != 2:
                    await config._cache.moved()
                assert config.error == ""
    finally:
        local.kill()


@pytest.mark.integration
async def test_a_right_that_comes_back_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    local = LocalCluster(tmp_path, voters=1, extra=["--bcrypt-cost=4"])
    local.start()
    try:
        await set_up(local)
        connect = connector(local)
        async with connect("root") as root, connect("eve") as eve:
            await enable(root)
            await root.put("/eve/x", "1")
            async with (
                await eve.cache("/eve/") as cache,
                await eve.config("/eve/x", int) as config,
                asyncio.timeout(60),
            ):
                await revoke_role(root, "eve", "r")
                while not cache.refused:
                    await cache.moved()
                while not config.error:
                    await config._cache.moved()
                assert "permission denied" in config.error
                assert "will be tried again" in caplog.text
                await root.put("/eve/x", "2")
                await grant_role(root, "eve", "r")
                while cache["/eve/x"].value != b"2":
                    await cache.moved()
                while config.value != 2:
                    await config._cache.moved()
                assert (cache.refused, config.error) == ("", "")
    finally:
        local.kill()


async def test_large_values_are_read_in_small_pages() -> None:
    large = rpc_pb2.RangeResponse(kvs=[kv_pb2.KeyValue(key=b"k", value=bytes(1 << 20)) for _ in range(16)])
    assert 1 <= _page(large) <= 4
    small = rpc_pb2.RangeResponse(kvs=[kv_pb2.KeyValue(key=b"k", value=b"v") for _ in range(16)])
    assert _page(small) == MOST_KEYS
    assert _page(rpc_pb2.RangeResponse()) == MOST_KEYS


def test_a_file_is_as_old_as_its_state_was_confirmed_last(tmp_path: Path) -> None:
    path = tmp_path / "x"
    last_good.save(path, b"/a/", state(1, k="1"), age=1000.0)
    digest = last_good.save(path, b"/a/", state(2, k="2"), age=900.0)
    last_good.confirm(path, digest, 5.0)
    kept = last_good.load(path, b"/a/")
    assert kept is not None
    assert 5.0 <= kept.age < 100.0
    stamp = tmp_path / "x.at"
    whole = stamp.read_bytes()
    for damaged in (b"", whole[:-1], bytes([whole[0] ^ 1]) + whole[1:]):
        stamp.write_bytes(damaged)
        kept = last_good.load(path, b"/a/")
        assert kept is not None
        assert kept.age >= 900.0
    stamp.write_bytes(whole)
    path.write_bytes(path.read_bytes()[:-1])  # the older file counts, and the stamp is not of that
    kept = last_good.load(path, b"/a/")
    assert kept is not None
    assert kept.age >= 1000.0
    path.unlink()
    os.mkfifo(path)
    assert last_good.load(path, b"/a/") is not None, "a pipe is not waited for"


@pytest.mark.integration
async def test_a_state_that_does_not_change_is_recorded_as_current_when_its_cache_is_closed(tmp_path: Path) -> None:
    local = LocalCluster(tmp_path / "c", voters=1)
    local.start()
    file = tmp_path / "kept"
    try:
        await local.wait_ready()
        async with client.connect(local.endpoints) as hf:
            await hf.put("/a/x", "1")
            async with await hf.cache("/a/", file=file):
                pass
            kept = last_good.load(file, b"/a/")
            assert kept is not None
            last_good.save(file, b"/a/", kept.found, age=1000.0)  # long ago
            async with await hf.cache("/a/", file=file, confirm_seconds=0.1) as cache:
                await cache.current()
                cache._dirty.clear()  # as after a long time
                assert cache._file is not None
            kept = last_good.load(file, b"/a/")
            assert kept is not None
            assert kept.age < 100.0
    finally:
        local.kill()
