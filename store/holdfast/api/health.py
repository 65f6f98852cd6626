"""Health pages: etcd's /health, and /livez and /readyz with named checks for Kubernetes probes.

Probes need no authentication: they show whether reading works, but no data.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from holdfast.api.pages import Page, Query, Say, as_json, say_checks
from holdfast.machine import CORRUPT_ALARM
from holdfast.member.driver import Member
from holdfast.member.interface import Answer
from holdfast.member.node import Node, State
from holdfast.proto import rpc_pb2

READ_SECONDS = 2.0

Told = Callable[[str], None]  # called with the problem found; empty: none
Check = Callable[[Told], None]


class Health:
    """The checks of one member. `turns` returns the problem of the event loop, `ready` the reason not to send clients
    here (both empty if none), `leaderless` for how many seconds a voter has known no leader, or 0 if that is not longer
    than an election."""

    def __init__(
        self, node: Node, turns: Callable[[], str], ready: Callable[[], str], leaderless: Callable[[], float]
    ) -> None:
        self._node = node
        self._turns = turns
        self._ready = ready
        self._leaderless = leaderless
        self.well = self.unwell = 0  # how often /health succeeded and failed
        self.checks: dict[tuple[str, str], bool] = {}  # (page, check) -> whether it last succeeded

    # ---- checks --------------------------------------------------------------------------------------------

    def _member(self) -> Member | None:
        """The member, once it may serve."""
        return self._node.member if self._node.serving else None

    def _why_none(self) -> str:
        if self._node.state is not State.MEMBER:
            return "belongs to no cluster yet"
        return "has not yet all that it served before its start"

    def _turning(self, told: Told) -> None:
        told(self._turns())

    def _serializable_read(self, told: Told) -> None:
        told("" if self._member() is not None else self._why_none())

    def _linearizable_read(self, told: Told) -> None:
        member = self._member()
        if member is None:
            told(self._why_none())
        elif member.is_learner:
            told("")  # not checked on learners, as in etcd
        else:
            self._read(member, told)

    def _read(self, member: Member, told: Told) -> None:
        def answered(answer: Answer) -> None:
            told("" if answer.error is None else answer.error.message)

        member.read(answered, time.monotonic_ns() + int(READ_SECONDS * 1e9))

    def _data_corruption(self, told: Told) -> None:
        member = self._member()
        corrupt = member is not None and any(alarm == CORRUPT_ALARM for _, alarm in member.state.alarms)
        told("alarm activated: CORRUPT" if corrupt else "")

    def _non_learner(self, told: Told) -> None:
        member = self._member()
        learner = member is not None and member.is_learner
        told("node is a learner" if learner else "")

    def _caught_up(self, told: Told) -> None:
        told(self._ready())

    def _leader(self, told: Told) -> None:
        told(self._without_leader())

    def _without_leader(self) -> str:
        seconds = self._leaderless()
        return f"no leader for {seconds:.0f} s: linearizable reads and writes wait" if seconds else ""

    # ---- pages ---------------------------------------------------------------------------------------------

    def pages(self) -> dict[str, Page]:
        live: dict[str, Check] = {"loop": self._turning}
        # Readiness does not require a quorum: otherwise losing it would remove all endpoints, and with them
        # serializable reads, which need no quorum.
        ready: dict[str, Check] = {
            "data_corruption": self._data_corruption,
            "serializable_read": self._serializable_read,
            "non_learner": self._non_learner,
            "caught_up": self._caught_up,
        }
        pages: dict[str, Page] = {"/health": self._health}
        # Checks that depend on a quorum have their own paths, but are not part of /readyz, which only notes the lack.
        asked = {
            "linearizable_read": self._linearizable_read,
            "read_index": self._linearizable_read,
            "leader": self._leader,
        }
        for path, checks, more in (("/livez", live, {}), ("/readyz", ready, asked)):
            pages[path] = self._all_of(path, checks)
            for name, check in {**checks, **more}.items():
                pages[f"{path}/{name}"] = self._all_of(path, {name: check})
        pages["/livez/serializable_read"] = self._all_of("/livez", {"serializable_read": self._serializable_read})
        return pages

    def _all_of(self, path: str, checks: Mapping[str, Check]) -> Page:
        """A page that succeeds if all its checks do, except those that the query excludes."""
        kind = path.strip("/")

        def page(query: Query, say: Say) -> None:
            excluded = set(query.get("exclude", ()))
            names = [check for check in checks if check not in excluded]
            found: dict[str, str] = {}

            def told(check: str, wrong: str) -> None:
                found[check] = wrong
                self.checks[kind, check] = not wrong
                if len(found) == len(names):
                    note = self._without_leader() if kind == "readyz" else ""
                    notes = [note] if note and "leader" not in names else []
                    in_order = {name: found[name] for name in names}
                    say_checks(kind, in_order, say, verbose="verbose" in query, notes=notes)

            if not names:
                say(200, "ok\n")
            for check in names:
                checks[check](lambda wrong, check=check: told(check, wrong))  # type: ignore[misc]

        return page

    def _health(self, query: Query, answer: Say) -> None:
        def say(status: int, body: str) -> None:
            self.well += status == 200
            self.unwell += status != 200
            answer(status, body)

        # "serializable" checks this member alone: liveness probes use it, and a missing leader is no reason to restart.
        alone = query.get("serializable", [""])[0] == "true"
        member = self._member()
        if member is None or not (alone or member.raft.leader):
            say(503, _unhealthy("RAFT NO LEADER"))  # also before it may serve: it knows no leader yet
            return
        excluded = set(query.get("exclude", ()))
        for _, alarm in sorted(member.state.alarms):
            name = rpc_pb2.AlarmType.Name(alarm)
            if name not in excluded:
                say(503, _unhealthy(f"ALARM {name}"))
                return
        if alone:
            say(200, _HEALTHY)
            return
        self._read(member, lambda wrong: say(503, _unhealthy(f"RANGE ERROR:{wrong}")) if wrong else say(200, _HEALTHY))


_HEALTHY = as_json({"health": "true", "reason": ""})


def _unhealthy(reason: str) -> str:
    return as_json({"health": "false", "reason": reason})
