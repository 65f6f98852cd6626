"""The keys of a site at the replica that writes them: what was noted durably is applied once, and reported."""

from __future__ import annotations

import random

import pytest
from holdfast.edge.core import ReplicaCore, ranges_of
from holdfast.edge.data import Position, position_in
from holdfast.edge.lineage import Relation
from holdfast.edge.local_reports import AT_ONCE, LocalReports
from holdfast.edge.notes import Notes
from holdfast.edge.outbox import Outbox
from holdfast.edge.overlay import Overlay, end_writing
from holdfast.edge.site_keys import MAX_KEYS, Site, SiteKeys
from holdfast.keyrange import bounds
from holdfast.kv.store import MemoryStore, Pending, StoreBusy, Write
from holdfast.proto import kv_pb2, raft_pb2, rpc_pb2
from holdfast.reported import MAX_KEYS as MAX_REPORTS
from holdfast.status import RequestError

from .test_upstream import Host

KEYS = SiteKeys(Site("berlin", "berlin-0"))


def put(key: str, value: str) -> raft_pb2.Command:
    return raft_pb2.Command(put=rpc_pb2.PutRequest(key=b"/local/berlin/" + key.encode(), value=value.encode()))


def delete(key: str) -> raft_pb2.Command:
    return raft_pb2.Command(delete_range=rpc_pb2.DeleteRangeRequest(key=b"/local/berlin/" + key.encode()))


def some_change(chance: random.Random) -> raft_pb2.Command:
    key = str(chance.randrange(5))
    return put(key, str(chance.random())) if chance.random() < 0.7 else delete(key)


def do(overlay: Overlay, command: raft_pb2.Command) -> None:
    number = overlay.note([command])
    assert number is not None
    overlay.apply(number, command)


def content(overlay: Overlay) -> dict[bytes, tuple[bytes, int]]:
    found = {}
    for key in overlay.space.keys(b"", None):
        now = overlay.space.get(key)
        assert now is not None
        found[key] = (kv_pb2.KeyValue.FromString(now.kv).value, now.mod)
    return found


@pytest.mark.parametrize("seed", range(100))
def test_after_a_power_cut_what_was_noted_durably_is_there_with_its_revision(seed: int) -> None:
    """The store loses everything after the last flush to the disk, at any moment."""
    chance = random.Random(seed)
    store = MemoryStore()
    overlay = Overlay(store, KEYS, 5)
    lineage, known = overlay.lineage, content(overlay)
    for _ in range(30):
        batch = [
            put(str(chance.randrange(5)), str(chance.random()))
            if chance.random() < 0.7
            else delete(str(chance.randrange(5)))
            for _ in range(chance.randrange(1, 4))
        ]
        first = overlay.note(batch)
        assert first is not None
        durable = store.snapshot()
        for number, command in enumerate(batch, first):
            overlay.apply(number, command)
        known, due, revision = content(overlay), overlay.due(), overlay.space.revision
        if chance.random() < 0.5:
            store = chance.choice([durable, store.snapshot()])
            overlay = Overlay(store, KEYS, 6)
            assert (content(overlay), overlay.due(), overlay.space.revision) == (known, due, revision)
            assert overlay.lineage == lineage


class Full(MemoryStore):
    full = False

    def apply(self, batch: list[Write]) -> None:
        if self.full:
            raise StoreBusy("full")
        super().apply(batch)


def test_on_a_full_disk_nothing_is_noted() -> None:
    store = Full()
    overlay = Overlay(store, KEYS, 5)
    do(overlay, put("x", "1"))
    store.full = True
    assert overlay.note([put("x", "2")]) is None
    store.full = False
    do(overlay, put("y", "1"))
    again = Overlay(store, KEYS, 5)
    assert {key: value for key, (value, _) in content(again).items()} == {
        b"/local/berlin/x": b"1",
        b"/local/berlin/y": b"1",
    }


def test_the_number_of_keys_is_bounded_and_their_values_can_change() -> None:
    overlay = Overlay(MemoryStore(), KEYS, 5)
    for n in range(MAX_KEYS):
        do(overlay, put(str(n), ""))
    with pytest.raises(RequestError, match="at most 1000 keys"):
        do(overlay, put("one more", ""))
    do(overlay, put("7", "changed"))
    do(overlay, delete("8"))
    do(overlay, put("one more", ""))


def test_everything_is_reported_a_few_at_a_time_and_last_of_all_the_newest() -> None:
    store = MemoryStore()
    notes = Pending(MemoryStore())
    overlay = Overlay(store, KEYS, 5)
    cluster: dict[str, bytes | None] = {}
    for n in range(50):
        do(overlay, put(str(n), "old"))
    for start in range(1, 12):
        outbox = Outbox(Notes(lambda: [notes]), "berlin-0", start)
        reports = LocalReports(overlay, outbox)  # the process starts again each time
        reports.feed()
        batch = outbox.batch()
        if batch is None:
            break
        assert len(batch.entries) <= AT_ONCE < MAX_REPORTS, "programs have room for reports of their own"
        if start == 2:
            do(overlay, put("0", "new"))
            do(overlay, delete("49"))
        for entry in batch.entries:
            cluster[entry.key] = None if entry.deleted else entry.value
        outbox.delivered(batch)
        if start % 3:  # else it ends before it is noted that they were delivered
            reports.feed()
    assert not overlay.due()
    assert cluster.pop("local/berlin/0") == b"new"
    assert cluster.pop("local/berlin/49") is None
    assert cluster == {f"local/berlin/{n}": b"old" for n in range(1, 49)}


def test_a_copy_that_is_written_from_now_on_is_a_later_epoch_and_reports_all() -> None:
    host = Host()
    for key in (b"/a/1", b"/a/2"):
        host.put(key)
    host.follow()
    core = host.core
    overlay = Overlay(core.here.store, KEYS, 9)
    assert overlay.lineage.relation(core.position.lineage) is Relation.LATER
    assert overlay.space.revision == core.position.watermark
    assert set(overlay.due()) == {b"/a/1", b"/a/2"}
    do(overlay, put("x", "1"))
    again = Overlay(core.here.store, KEYS, 10)
    assert content(again) == content(overlay)
    assert again.lineage == overlay.lineage


def test_after_a_restore_of_the_cluster_all_is_reported_again() -> None:
    store = MemoryStore()
    overlay = Overlay(store, KEYS, 9)
    for command in (put("x", "1"), put("y", "1"), delete("y")):
        do(overlay, command)
    for key, revision in overlay.due().items():
        overlay.reported(key, revision)
    assert not overlay.due()
    overlay.report_again()
    again = Overlay(store, KEYS, 9)
    assert set(again.due()) == {b"/local/berlin/x", b"/local/berlin/y"}
    assert (again.value(b"/local/berlin/x"), again.value(b"/local/berlin/y")) == (b"1", None)


def test_what_was_written_here_is_a_copy_once_another_replica_writes() -> None:
    """Its position tells it that what the other one writes is a later history, and what that lacks."""
    store, copied = MemoryStore(), MemoryStore()
    end_writing(store, KEYS)
    assert position_in(store) == Position(), "nothing was written there"
    writer = Overlay(store, KEYS, 9)
    do(writer, put("x", "1"))
    copied = store.snapshot()
    end_writing(copied, KEYS)
    later = Overlay(copied, KEYS, 10)  # the other one goes on from its copy
    do(writer, put("x", "2"))
    writer.note([put("y", "noted, and not applied before the end")])

    for _ in range(2):
        end_writing(store, KEYS)
        core = ReplicaCore(store, ranges_of([KEYS.prefix.decode()]), 1)
        assert core.complete
        assert (core.position.watermark, later.lineage.restored_from) == (4, 2)
        assert later.lineage.relation(core.position.lineage) is Relation.LATER
        assert [(change.revision, change.key) for change, _, _ in core.space.history(3, 4)] == [
            (3, b"/local/berlin/x"),
            (4, b"/local/berlin/y"),
        ]
    again = Overlay(store, KEYS, 11)
    assert again.lineage.relation(writer.lineage) is Relation.LATER
    assert set(again.due()) == {b"/local/berlin/x", b"/local/berlin/y"}
    do(again, put("z", "1"))
    assert again.space.revision == 5


@pytest.mark.parametrize(
    ("key", "end", "mine"),
    [
        (b"/local/berlin/x", b"", True),
        (b"/local/berlin/", b"/local/berlin0", True),
        (b"/a/", b"/a0", False),
        (b"", b"\x00", False),
        (b"/", b"0", False),
    ],
)
def test_which_keys_are_those_of_the_site(key: bytes, end: bytes, mine: bool) -> None:
    assert KEYS.has(bounds(key, end)) is mine


@pytest.mark.parametrize(
    ("key", "end"), [(b"/local/", b"/local0"), (b"/local/hamburg/x", b""), (b"/local/berlin", b"")]
)
def test_keys_of_other_sites_are_refused(key: bytes, end: bytes) -> None:
    with pytest.raises(RequestError, match="of the site berlin"):
        KEYS.has(bounds(key, end))


@pytest.mark.parametrize("name", ["", "a/b", "-a", "a" * 64, "a b", "ä"])
def test_names_of_sites(name: str) -> None:
    with pytest.raises(ValueError, match="no name of a site"):
        Site(name, "w")
