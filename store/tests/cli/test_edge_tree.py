"""The tree of replicas from what servers say, and how it is shown."""

from __future__ import annotations

import random

import pytest
from holdfast.cli.edge_status import as_object, cells, duration, site_cell
from holdfast.cli.edge_tree import MAX_DEPTH, Entry, merged, tree
from holdfast.proto.holdfast_pb2 import DescribeResponse, FollowPath, ReplicaReport, SiteState

NOW = 100_000_000


def member(number: int, *reports: ReplicaReport, revision: int = 100, cluster: int = 0xC) -> DescribeResponse:
    return DescribeResponse(
        name=f"m{number}",
        volume_id=number,
        member_id=1000 + number,
        leader=1001,
        state=DescribeResponse.MEMBER,
        cluster_id=cluster,
        epoch=1,
        revision=revision,
        replicas=reports,
    )


def report(
    name: str, volume: int, upstream: int, watermark: int = 100, offline: int = 0, bound: int = 2, epoch: int = 1
) -> ReplicaReport:
    return ReplicaReport(
        replica=name,
        pool="shops",
        volume_id=volume,
        upstream=upstream,
        watermark=watermark,
        offline_since=offline,
        bound_seconds=bound,
        epoch=epoch,
        filter_version=0xABC,
    )


def asked(name: str, volume: int, path: list[int], *reports: ReplicaReport, connected: bool = True) -> DescribeResponse:
    return DescribeResponse(
        name=name,
        volume_id=volume,
        state=DescribeResponse.REPLICA,
        cluster_id=0xC,
        epoch=1,
        revision=99,
        connected=connected,
        staleness_ms=1001,
        path=FollowPath(nodes=[volume, *path]),
        replicas=reports,
    )


def drawn(*nodes: DescribeResponse) -> list[str]:
    return [entry.branch + entry.name for entry in tree(nodes)]


def found(name: str, *nodes: DescribeResponse) -> Entry:
    (entry,) = [e for e in tree(nodes) if e.name == name]
    return entry


def test_replicas_are_below_whom_they_follow() -> None:
    below_2 = [report("berlin-1", 12, 11), report("berlin-0", 11, 2), report("berlin-2", 13, 11), report("lab", 14, 2)]
    assert drawn(member(2, *below_2), member(1, report("kiosk", 15, 1)), member(3)) == [
        "c",
        "├─ m1",
        "│  └─ kiosk",
        "├─ m2",
        "│  ├─ berlin-0",
        "│  │  ├─ berlin-1",
        "│  │  └─ berlin-2",
        "│  └─ lab",
        "└─ m3",
    ]


def test_a_server_that_is_asked_at_two_addresses_is_there_once() -> None:
    assert drawn(member(1, report("kiosk", 15, 1)), member(1, report("kiosk", 15, 1))) == ["c", "└─ m1", "   └─ kiosk"]


def test_who_follows_goes_before_who_is_offline_and_the_newest_before_the_others() -> None:
    old = member(
        1, report("moved", 9, 1, 100, offline=500), report("lost", 8, 1, 7, offline=700), report("on", 7, 1, 5)
    )
    new = member(2, report("moved", 9, 2, 90), report("lost", 8, 2, 6, offline=600), report("on", 7, 2, 6))
    for nodes in ((old, new), (new, old)):
        reports = merged(nodes)
        assert {(r.replica, r.upstream, r.offline_since) for r in reports.values()} == {
            ("moved", 2, 0),
            ("lost", 1, 700),
            ("on", 2, 0),
        }


def test_a_copy_that_does_not_follow_the_writer_of_its_site_is_shown() -> None:
    reports: list[ReplicaReport] = []
    for name, follows, offline in (("berlin-0", True, 0), ("berlin-1", False, 0), ("berlin-2", False, NOW)):
        each = report(name, 11 + len(reports), 1, offline=offline)
        each.site.CopyFrom(SiteState(site="berlin", writer="berlin-0", follows=follows))
        reports.append(each)
    nodes = member(1, *reports, report("lab", 20, 1))
    entries = [found(name, nodes) for name in ("berlin-0", "berlin-1", "berlin-2")]
    assert [site_cell(entry) for entry in entries] == ["berlin", "berlin: not following berlin-0", "berlin"]
    told = [as_object(entry, NOW) for entry in entries]
    assert [each["site_follows"] for each in told] == [True, False, None], "of one that is offline it is not known"
    assert (told[1]["site"], told[1]["site_writer"]) == ("berlin", "berlin-0")
    assert (found("lab", nodes).site, as_object(found("lab", nodes), NOW)["site"]) == ("", None)


def test_a_relay_that_is_lost_keeps_its_place_and_those_below_it() -> None:
    nodes = member(1, report("relay", 11, 1, 80, offline=NOW - 65_000), report("leaf", 12, 11, offline=NOW - 65_000))
    assert drawn(nodes) == ["c", "└─ m1", "   └─ relay", "      └─ leaf"]
    relay = found("relay", nodes)
    assert (relay.state, relay.lag, relay.bound_seconds) == ("offline", 20, 0)
    assert cells(relay, NOW) == ["   └─ relay", "shops", "offline 1m 5s", "20", "unknown", "00000abc"]
    assert as_object(relay, NOW)["offline_seconds"] == 65


def test_of_whose_upstream_nothing_is_known_is_elsewhere() -> None:
    """It followed a member that does not answer, or says nothing of its place, as version 0.1."""
    reports = [report("far", 11, 77), report("below-far", 12, 11), report("early", 0, 0), report("early-2", 0, 0)]
    assert drawn(member(1, *reports)) == [
        "c",
        "└─ m1",
        "elsewhere",
        "├─ early",
        "├─ early-2",
        "└─ far",
        "   └─ below-far",
    ]


def test_a_replica_that_is_asked_shows_those_below_it() -> None:
    nodes = asked("berlin-0", 11, [1], report("berlin-1", 12, 11, watermark=90))
    assert drawn(nodes) == ["c", "└─ berlin-0", "   └─ berlin-1"]
    assert found("berlin-1", nodes).lag == 9, "behind the newest that is known"
    own = found("berlin-0", nodes)
    assert (own.state, own.watermark, own.bound_seconds, own.upstream) == ("online", 99, 2, 1)


def test_a_replica_that_is_asked_beside_members_is_in_its_place_and_knows_itself_best() -> None:
    known = report("berlin-0", 11, 1, watermark=50, offline=NOW - 1000, bound=5)
    nodes = [asked("berlin-0", 11, [], report("leaf", 12, 11), connected=False), member(1, known)]
    assert drawn(*nodes) == ["c", "└─ m1", "   └─ berlin-0", "      └─ leaf"]
    own = found("berlin-0", *nodes)
    assert (own.state, own.offline_since, own.watermark, own.bound_seconds, own.pool) == (
        "disconnected",
        NOW - 1000,
        99,
        2,
        "shops",
    )
    nodes[0] = asked("berlin-0", 11, [1], report("leaf", 12, 11))
    assert (found("berlin-0", *nodes).state, found("berlin-0", *nodes).offline_since) == ("online", 0)


def test_what_is_not_known_is_said() -> None:
    loading, restored = report("new", 11, 1, watermark=0, bound=0), report("old", 12, 1, watermark=500, epoch=0)
    nodes = member(1, loading, restored)
    assert cells(found("new", nodes), NOW)[3:5] == ["loading", "unknown"]
    assert as_object(found("new", nodes), NOW)["lag"] is None
    assert cells(found("old", nodes), NOW)[3:5] == ["epoch 0", "≤ 2 s"]


def test_a_replica_that_follows_nobody_is_below_nobody() -> None:
    """Neither below one of version 0.1, whose number is not known."""
    nodes = [asked("alone", 11, [], connected=False), member(1, report("early", 0, 0))]
    assert drawn(*nodes) == ["c", "├─ m1", "└─ alone", "elsewhere", "└─ early"]


def test_clusters_are_apart() -> None:
    nodes = [member(1, report("a", 11, 2)), member(2, report("b", 12, 2), cluster=0xD)]
    assert drawn(*nodes) == ["c", "└─ m1", "elsewhere", "└─ a", "d", "└─ m2", "   └─ b"]


def test_replicas_that_say_that_they_follow_each_other_are_there_once() -> None:
    circle = [report("a", 11, 12), report("b", 12, 11), report("self", 13, 13), report("twin", 11, 1)]
    lines = drawn(member(1, *circle))
    assert sorted(line.lstrip("│├└─ ") for line in lines) == ["a", "b", "c", "elsewhere", "m1", "self", "twin"]


def test_the_depth_is_bounded() -> None:
    chain = [report(f"r{n:04}", n + 2, n + 1) for n in range(3000)]
    entries = tree([member(1, *chain)])
    assert sum(e.kind == "replica" for e in entries) == 3000
    assert max(len(e.branch) for e in entries) == 3 * MAX_DEPTH


def test_every_replica_is_there_once_whatever_is_said() -> None:
    chance = random.Random(3)
    for _ in range(300):
        volumes = range(8)
        nodes = [
            member(
                n,
                *(report(name, chance.choice(volumes), chance.choice(volumes)) for name in chance.sample("abcdef", 4)),
            )
            for n in (1, 2)
        ]
        nodes += [
            asked(name, chance.choice(volumes[3:]), chance.sample(volumes, 2)) for name in chance.sample("abc", 1)
        ]
        names = {r.replica for node in nodes for r in node.replicas} | {nodes[-1].name}
        shown = [e.name for e in tree(nodes) if e.kind == "replica"]
        assert sorted(shown) == sorted(names)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-5, "0s"), (0, "0s"), (59, "59s"), (61, "1m 1s"), (3600, "1h 0m"), (90_061, "1d 1h"), (10**7, "115d 17h")],
)
def test_durations(seconds: int, shown: str) -> None:
    assert duration(seconds) == shown


def test_no_name_controls_the_terminal() -> None:
    nodes = member(1, report("a\x1b[2J\u202e\n", 11, 1))
    (entry,) = [e for e in tree([nodes]) if e.kind == "replica"]
    assert all(cell.isprintable() for cell in cells(entry, NOW))
    assert cells(entry, NOW)[0] == "   └─ a\\x1b[2J\\u202e\\n"
