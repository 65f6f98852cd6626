"""What the status of a HoldfastEdgePool tells."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from holdfast.proto import holdfast_pb2
from holdfast_operator.model.pool import PoolSpec
from holdfast_operator.plan.freshness import peaks
from holdfast_operator.plan.pool import Replica
from holdfast_operator.pool_status import Seen, pool_status, reports_of
from holdfast_operator.resources.pool import replica_on

from .resources.cases import POOL, POOLS

NOW = 1_800_000_000.0
PODS = ["berlin-a-0", "berlin-b-0", "berlin-c-0"]
OBJECT = {**POOL, "metadata": {**POOL["metadata"], "generation": 1}}
Reports = list[holdfast_pb2.ReplicaReport]


def report(replica: str, watermark: int = 7, pool: str = "berlin", bound: int = 0, left: float = 0) -> Any:
    return holdfast_pb2.ReplicaReport(
        replica=replica, pool=pool, watermark=watermark, bound_seconds=bound, offline_since=round(left * 1000)
    )


def seen(listed: Reports | None, pods: list[str] = PODS) -> Seen:
    reports = reports_of("berlin", pods, listed)
    replicas = [Replica(p, p, outdated=False, ready=True, runs=True, terminating=False, reachable=True) for p in pods]
    return Seen(pods, False, frozenset(), replicas, reports, peaks({}, reports or {}, NOW), NOW)


def told(found: Seen, **fields: int) -> dict[str, Any]:
    return pool_status(OBJECT, PoolSpec.model_validate({**POOLS["plain"], **fields}), found, "")


def written_by(node: str, **changes: Any) -> tuple[str, str]:
    writer = f"{replica_on('berlin', 'edge-1')}-0"
    spec = PoolSpec.model_validate({**POOLS["plain"], "site": {"name": "factory", "writer": node}})
    found = seen([report(writer)], [writer])
    found = replace(found, replicas=[replace(found.replicas[0], **changes.pop("replica", {}))], **changes)
    return condition(pool_status(OBJECT, spec, found, ""), "SiteWriter")[:2]


def test_the_writer_of_a_site_is_told() -> None:
    assert written_by("edge-1") == ("True", "Ready")
    assert written_by("edge-1", replica={"ready": False}) == ("False", "NotReady")
    assert written_by("edge-7") == ("False", "NoSuchNode")
    assert written_by("edge-1", shared=True) == ("False", "OneStatefulSet")
    assert condition(told(seen([])), "SiteWriter") == ("", "", "")


def condition(status: dict[str, Any], type_: str) -> tuple[str, str, str]:
    found = {c["type"]: (c["status"], c["reason"], c["message"]) for c in status["conditions"]}
    return found.get(type_, ("", "", ""))


def counts(status: dict[str, Any]) -> tuple[int | None, ...]:
    return tuple(status[key] for key in ("replicas", "online", "offline", "synced", "worstBoundSeconds"))


# ---- when to look again ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "again"),
    [
        (report(PODS[2], bound=2), False),
        (report(PODS[2]), True),  # its age is not known yet
        (report(PODS[2], watermark=0, bound=2), True),
        (report(PODS[2], bound=2, left=NOW - 5), True),
        (report("another"), True),  # none of it
    ],
)
def test_while_a_replica_that_is_ready_is_not_known_to_be_well_its_status_is_looked_at_again_soon(
    last: Any, again: bool
) -> None:
    listed = [report(PODS[0], bound=2), report(PODS[1], bound=500), last]
    found = seen(listed)
    assert found.settling == again
    *others, third = found.replicas
    assert not replace(found, replicas=[*others, replace(third, ready=False)]).settling, "its pod's event will tell"
    assert not replace(found, replicas=[*others, replace(third, reachable=False)]).settling
    assert not replace(found, reports=None).settling


# ---- who follows -------------------------------------------------------------------------------------------


def test_online_are_those_that_follow_and_synced_those_of_them_that_have_everything() -> None:
    follow = [report(PODS[0], bound=2), report(PODS[1], watermark=0, bound=20)]
    assert counts(told(seen(follow))) == (3, 2, 1, 1, 20)
    assert counts(told(seen([*follow, report(PODS[2], bound=500, left=NOW - 5)]))) == (3, 2, 1, 1, 20)


def test_replicas_of_other_pools_and_of_nodes_that_left_do_not_count() -> None:
    listed = [*(report(pod) for pod in PODS), report("berlin-gone-0"), report(PODS[0], pool="paris", left=NOW)]
    assert counts(told(seen(listed))) == (3, 3, 0, 3, None)


def test_no_replica_follows_a_cluster_that_answers() -> None:
    assert counts(told(seen([]))) == (3, 0, 3, 0, None)


def test_what_no_member_says_is_absent() -> None:
    status = told(seen(None), stalenessTargetSeconds=10)
    assert counts(status) == (3, None, None, None, None)
    assert condition(status, "Fresh") == ("Unknown", "NoAnswer", "no member answers the operator")
    assert condition(status, "Ready")[0] == "True", "the replicas serve"


# ---- freshness ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bound", "status", "reason"), [(5, "True", "AllFresh"), (20, "False", "TooOld"), (0, "Unknown", "NotReported")]
)
def test_the_bounds_are_compared_with_the_target(bound: int, status: str, reason: str) -> None:
    found = told(seen([report(pod, bound=bound) for pod in PODS]), stalenessTargetSeconds=10)
    assert condition(found, "Fresh")[:2] == (status, reason)


def test_without_a_target_or_a_replica_nothing_is_called_fresh() -> None:
    assert condition(told(seen([report(pod, bound=5) for pod in PODS])), "Fresh") == ("", "", "")
    assert condition(told(seen([], pods=[]), stalenessTargetSeconds=10), "Fresh")[:2] == ("Unknown", "NoNodes")


def test_the_status_does_not_change_with_what_is_written_to_the_store() -> None:
    before, after = (told(seen([report(pod, watermark=n, bound=2) for pod in PODS])) for n in (7, 8))
    assert before == after


# ---- relays ------------------------------------------------------------------------------------------------


def test_relays_are_named_once_they_are_ready() -> None:
    found = replace(seen([]), relays=frozenset(PODS[:2]))
    ready = condition(told(found, relaysPerSite=2), "Relays")
    assert ready == ("True", "AllReady", "2 of 2 relays are ready: berlin-a-0, berlin-b-0")
    one, other, third = found.replicas
    rolling = replace(found, replicas=[replace(one, ready=False), replace(other, outdated=True), third])
    assert condition(told(rolling, relaysPerSite=2), "Relays") == ("False", "NotReady", "0 of 2 relays are ready")
    assert condition(told(seen([])), "Relays") == ("", "", "")


def test_a_pool_of_one_stateful_set_says_that_it_can_have_no_relays() -> None:
    status, reason, message = condition(told(replace(seen([]), shared=True), relaysPerSite=2), "Relays")
    assert (status, reason) == ("False", "OneStatefulSet")
    assert "make a new pool" in message
