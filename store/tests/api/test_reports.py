"""Which replicas a server lists, and which of them as offline."""

from __future__ import annotations

import random

from holdfast.api.reports import MAX_REPORTS, SILENT_MS, Reports
from holdfast.edge.follow import REPORT_BYTES, fitting
from holdfast.proto.holdfast_pb2 import ReplicaReport


class Server:
    """Reports on a clock that is set."""

    def __init__(self) -> None:
        self.now = 1000
        self.above: list[int] = []
        self.reports = Reports(lambda: self.above, lambda: self.now)

    def put(self, stream: int, name: str, *below: ReplicaReport, watermark: int = 1) -> None:
        self.reports.put(stream, report(name, *below, watermark=watermark))

    def gone(self, stream: int, at: int) -> None:
        self.now = at
        self.reports.gone(stream)

    @property
    def listed(self) -> dict[str, int]:
        """Since when each is offline; 0: it follows. Each is listed once, and alone."""
        found = self.reports.all()
        names = [r.replica for r in found]
        assert len(names) == len(set(names))
        assert not any(r.below for r in found)
        return {r.replica: r.offline_since for r in found}


def report(name: str, *below: ReplicaReport, watermark: int = 1, offline: int = 0, volume: int = 0) -> ReplicaReport:
    return ReplicaReport(replica=name, watermark=watermark, below=below, offline_since=offline, volume_id=volume)


def test_who_stops_following_is_kept_as_offline_until_it_reports_again() -> None:
    server = Server()
    server.put(1, "berlin", watermark=7)
    assert server.listed == {"berlin": 0}
    server.gone(1, at=2000)
    assert server.listed == {"berlin": 2000}
    assert server.reports.all()[0].watermark == 7, "its last report"
    server.gone(1, at=3000)
    assert server.listed == {"berlin": 2000}
    server.put(2, "berlin", watermark=8)
    assert server.listed == {"berlin": 0}
    server.gone(2, at=1500)
    assert server.listed == {"berlin": 1500}, "also if the clock was set back"


def test_a_stream_that_ends_after_its_successor_began_makes_nobody_offline() -> None:
    server = Server()
    server.put(1, "berlin")
    server.put(2, "berlin")
    server.gone(1, at=2000)
    assert server.listed == {"berlin": 0}
    server.gone(2, at=3000)
    assert server.listed == {"berlin": 3000}


def test_when_a_relay_ends_nothing_is_known_of_those_below_it() -> None:
    server = Server()
    server.put(1, "relay", report("leaf"), report("lost", offline=500))
    assert server.listed == {"relay": 0, "leaf": 0, "lost": 500}
    server.gone(1, at=2000)
    assert list(server.listed.items()) == [("lost", 500), ("leaf", 2000), ("relay", 2000)], "the latest last"
    server.put(2, "relay")
    assert server.listed == {"relay": 0, "leaf": 2000, "lost": 500}
    server.put(2, "relay", report("leaf"))
    assert server.listed == {"relay": 0, "leaf": 0, "lost": 500}


def test_who_is_silent_is_offline_since_its_last_message_until_it_says_something() -> None:
    """A network that is cut ends no stream for a minute."""
    server = Server()
    server.put(1, "relay", report("leaf"), report("lost", offline=500))
    server.put(2, "other")
    server.now = 16_000
    server.reports.heard(1)
    server.reports.heard(2)
    assert server.listed == {"relay": 0, "leaf": 0, "lost": 500, "other": 0}
    server.now = 16_000 + SILENT_MS
    server.reports.heard(2)
    assert server.listed == {"relay": 0, "leaf": 0, "lost": 500, "other": 0}
    server.now += 1
    assert server.listed == {"relay": 16_000, "leaf": 16_000, "lost": 500, "other": 0}
    server.reports.heard(1)
    assert server.listed == {"relay": 0, "leaf": 0, "lost": 500, "other": 0}
    server.now += SILENT_MS + 1
    server.put(3, "leaf")
    assert server.listed == {"relay": 31_001, "leaf": 0, "lost": 500, "other": 31_000}, "it follows elsewhere"
    server.gone(1, at=77_000)
    server.reports.heard(1)
    assert server.listed["relay"] == 31_001, "not since its connection was given up"


def test_who_has_moved_is_not_offline() -> None:
    """From below one replica to below another one, to this server itself, and back."""
    server = Server()
    server.put(1, "old", report("leaf"))
    server.put(1, "old", report("leaf", offline=1000))
    assert server.listed == {"old": 0, "leaf": 1000}
    server.put(2, "new", report("leaf"))
    assert server.listed == {"old": 0, "new": 0, "leaf": 0}
    server.put(1, "old", report("leaf", offline=1000), watermark=2)
    assert server.listed["leaf"] == 0, "what the old one says later changes nothing"
    server.put(3, "leaf")
    server.put(2, "new", report("leaf", offline=1000))
    assert server.listed["leaf"] == 0
    server.gone(3, at=2000)
    assert server.listed["leaf"] == 2000, "the latest that is known, not what a former one says"
    server.put(1, "old", report("leaf"))
    assert server.listed["leaf"] == 0
    server.put(1, "old")
    server.put(2, "new")
    assert "leaf" not in server.listed, "nobody says anything of it any more"


def test_a_server_lists_nobody_as_offline_that_it_follows_itself() -> None:
    server = Server()
    server.reports.put(1, report("one", volume=11))
    server.gone(1, at=2000)
    server.above = [1, 11, 99]
    assert server.listed == {}
    server.above = [1, 99]
    assert server.listed == {"one": 2000}


def test_a_replica_cannot_say_of_itself_that_it_is_offline_nor_others_that_they_will_be() -> None:
    server = Server()
    server.reports.put(1, report("one", report("leaf", offline=10**15), offline=500))
    assert server.listed == {"one": 0, "leaf": 1000}


def test_what_is_below_those_below_is_not_kept() -> None:
    server = Server()
    server.put(1, "relay", report("leaf", report("deep")))
    assert server.listed == {"relay": 0, "leaf": 0}


def test_the_list_is_bounded_and_those_that_are_offline_for_longest_go_first() -> None:
    server = Server()
    for n in range(3 * MAX_REPORTS):
        server.put(n, f"r{n}")
        server.gone(n, at=n + 1)
        assert len(server.reports._offline) <= 2 * MAX_REPORTS
    assert list(server.listed.values()) == list(range(2 * MAX_REPORTS + 1, 3 * MAX_REPORTS + 1))
    for n in range(10):
        server.put(n, f"on{n}")
    listed = server.listed
    assert len(listed) == MAX_REPORTS
    assert sum(not since for since in listed.values()) == 10
    assert min(since for since in listed.values() if since) == 2 * MAX_REPORTS + 11
    server.put(99, "relay", *(report(f"leaf{n}") for n in range(2 * MAX_REPORTS)))
    assert len(server.listed) == MAX_REPORTS
    assert not any(server.listed.values())


def test_what_one_replica_tells_of_others_pushes_out_none_that_follows_here() -> None:
    server = Server()
    server.put(1, "berlin")
    server.put(2, "mallory", *(report(f"invented-{n}") for n in range(MAX_REPORTS + 1000)))
    server.put(3, "paris")
    assert {"berlin", "mallory", "paris"} <= server.listed.keys()
    assert len(server.listed) == MAX_REPORTS
    server.put(2, "mallory", report("berlin", watermark=9))
    assert [r.watermark for r in server.reports.all() if r.replica == "berlin"] == [1], "its own stream knows better"


def test_of_what_does_not_fit_a_message_those_that_are_offline_for_longest_are_left_out() -> None:
    server = Server()
    for n in range(MAX_REPORTS - 10):
        server.put(n, f"{n:0250}")
        server.gone(n, at=n + 1)
    for n in range(10):
        server.put(n, f"on{n}")
    told = fitting(server.reports.all())
    assert REPORT_BYTES // 2 < sum(r.ByteSize() for r in told) < REPORT_BYTES
    assert [r.offline_since for r in told] == [*[0] * 10, *range(MAX_REPORTS - 10, MAX_REPORTS - len(told), -1)]


def test_whatever_happens_who_follows_is_listed_as_following_and_nobody_else() -> None:
    """Random streams, with the names that any of them reports, against what is meant."""
    chance = random.Random(7)
    for _ in range(200):
        server = Server()
        streams: dict[int, list[ReplicaReport]] = {}
        for _ in range(40):
            server.now += chance.randrange(1, 50)
            stream = chance.randrange(4)
            if chance.random() < 0.3:
                server.reports.gone(stream)
                streams.pop(stream, None)
            else:
                names = chance.sample("abcdef", 3)
                offline = [0, *(chance.choice((0, chance.randrange(1, server.now))) for _ in names[1:])]
                told = [report(name, offline=since) for name, since in zip(names, offline, strict=True)]
                server.put(stream, names[0], *told[1:])
                streams[stream] = told
            following = {r.replica for told in streams.values() for r in told if not r.offline_since}
            listed = server.listed
            assert {name for name, since in listed.items() if not since} == following
            assert all(since <= server.now for since in listed.values())
