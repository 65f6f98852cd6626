"""Single states of a cluster, and what the planner does in each: what cannot run, what must not be touched, whose
volumes there are. Most of them once went wrong."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace

import pytest
from holdfast_operator.plan.actions import (
    Action,
    AddLearner,
    DeletePod,
    DeleteVolume,
    EvictPod,
    Forget,
    MarkVolumes,
    Promote,
    Record,
    RecordBootstrapped,
    Remove,
    TransferLeader,
    Wait,
)
from holdfast_operator.plan.cluster import plan, wanted_pods
from holdfast_operator.plan.facts import WIPE, Desired, Member, Membership, Node, NodeState, Observed, Pod, Run, Volume

OURS, OTHER = 0xC1, 0xD2


def node(member: int, cluster: int = OURS, state: NodeState = NodeState.MEMBER, *, ready: bool = True) -> Node:
    return Node(member, cluster, member, state, ready)


def empty(volume: int) -> Node:
    return Node(volume, 0, 0, NodeState.EMPTY, ready=False)


def good(member: int, template: str = "new") -> Pod:
    return Pod(f"u{member}", True, False, template, node(member))


def cannot_run(template: str, run: Run = Run.NEVER) -> Pod:
    return Pod("typo", False, False, template, None, run, "ImagePullBackOff: no such image")


def held(members: dict[int, int], cluster: int = OURS) -> dict[int, Volume]:
    return {o: Volume(f"data-{o}", f"v{o}", cluster, m) for o, m in members.items()}


def membership(
    *voters: int, leader: int = 0, learner: tuple[int, int] | None = None, behind: Iterable[int] = ()
) -> Membership:
    found = [Member(m, o, voter=True, caught_up=m not in set(behind)) for o, m in enumerate(voters)]
    if learner is not None:
        found.append(Member(learner[1], learner[0], voter=False, caught_up=False))
    return Membership(7, leader or voters[0], tuple(found))


def formed(pods: dict[int, Pod], found: Membership | None, volumes: dict[int, Volume], scheduled: int = 3) -> Observed:
    return Observed(pods, volumes, found, cluster_id=OURS, seed=1, bootstrapped=True, scheduled=scheduled)


def reason(action: Action) -> str:
    assert isinstance(action, Wait), action
    return action.reason


THREE = held({0: 1, 1: 2, 2: 3})


# ---- what cannot run ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", [Run.NEVER, Run.FAILING])
@pytest.mark.parametrize("replicas", [1, 3])
def test_before_the_cluster_is_formed_pods_of_a_corrected_template_are_replaced(replicas: int, run: Run) -> None:
    pods = {o: cannot_run("typo", run) for o in range(replicas)}
    action = plan(Desired(replicas, "new"), Observed(pods, {}, None, scheduled=replicas))
    assert isinstance(action, DeletePod)


@pytest.mark.parametrize("found", [None, membership(1, 2, 3)])
def test_without_a_quorum_pods_of_a_corrected_template_are_replaced(found: Membership | None) -> None:
    pods = {0: good(1, "old"), 1: cannot_run("typo"), 2: cannot_run("typo")}
    action = plan(Desired(3, "new"), formed(pods, found, THREE))
    assert isinstance(action, DeletePod)
    assert action.ordinal == 1
    single = plan(Desired(1, "new"), formed({0: cannot_run("typo")}, None, held({0: 1}), 1))
    assert isinstance(single, DeletePod)


def test_a_pod_that_cannot_run_from_the_wanted_template_is_reported_and_not_replaced() -> None:
    pods = {0: good(1), 1: good(2), 2: cannot_run("new")}
    action = plan(Desired(3, "new"), formed(pods, membership(1, 2, 3), THREE))
    assert isinstance(action, Wait)
    assert action.stalled
    assert "ImagePullBackOff" in action.message


def test_an_unreachable_kubelet_is_no_proof_that_a_pod_does_not_run() -> None:
    silent = Pod("u", False, False, "old", None, Run.UNKNOWN, "its node does not report")
    action = plan(Desired(3, "new"), formed({0: good(1, "old"), 1: silent, 2: silent}, None, THREE))
    assert reason(action) == "NoQuorum"


def test_a_learner_that_cannot_run_holds_nothing_up() -> None:
    learning = membership(1, 2, 3, learner=(3, 4))
    volumes = THREE | held({3: 4})
    outdated = {0: good(1, "old"), 1: good(2, "old"), 2: good(3, "old"), 3: cannot_run("typo")}
    repaired = plan(Desired(5, "new"), formed(outdated, learning, volumes, 5))
    assert repaired == DeletePod(3, "typo", "it is outdated and cannot run (ImagePullBackOff: no such image)", True)

    rolled = plan(Desired(5, "new"), formed({**outdated, 3: cannot_run("new")}, learning, volumes, 5))
    assert isinstance(rolled, EvictPod)

    lost = {0: good(1), 1: good(2), 2: Pod("u", False, False, "new", empty(99)), 3: cannot_run("new")}
    removed = plan(Desired(5, "new"), formed(lost, learning, volumes, 5))
    assert isinstance(removed, Remove)
    assert removed.member_id == 3

    without = Membership(8, 1, tuple(m for m in learning.members if m.id != 3))
    room = plan(Desired(5, "new"), formed(lost, without, volumes, 5))
    assert isinstance(room, Remove), "the learner that does not answer makes room for the one that does"
    assert room.member_id == 4


# ---- quorum ------------------------------------------------------------------------------------------------------


def test_no_voter_is_stopped_that_the_others_need() -> None:
    """All states of three voters: template, kubelet's readiness, and whether the process votes, starts or is gone."""
    states = list(itertools.product(["old", "new"], [True, False], ["voting", "starting", "silent", "gone"]))
    seen = 0
    for combination in itertools.product(states, repeat=3):
        if any(ready and state == "gone" for _, ready, state in combination):
            continue
        voting = [state != "gone" for _, _, state in combination]  # a process that starts or is silent may vote, too
        for leader in (n for n in range(3) if voting[n] and sum(voting) >= 2):
            seen += 1
            pods, members = {}, []
            for ordinal, (template, ready, state) in enumerate(combination):
                process = node(ordinal + 1, ready=state == "voting") if state in ("voting", "starting") else None
                run = Run.FAILING if state == "gone" else Run.RUNNING
                pods[ordinal] = Pod(f"u{ordinal}", ready, False, template, process, run)
                members.append(Member(ordinal + 1, ordinal, True, voting[ordinal]))
            action = plan(Desired(3, "new"), formed(pods, Membership(1, leader + 1, tuple(members)), THREE))
            if isinstance(action, DeletePod | EvictPod) and voting[action.ordinal]:
                left = sum(v for n, v in enumerate(voting) if n != action.ordinal)
                assert 2 * left > 3, (combination, leader, action)
            assert not isinstance(action, Remove)
    assert seen > 5000


def test_a_voter_that_votes_while_its_kubelet_calls_it_unready_is_not_taken_with_another_one_absent() -> None:
    unready = replace(good(3, "old"), ready=False)
    starting = Pod("u2", False, False, "new", None)
    pods = {0: good(1, "old"), 1: starting, 2: unready}
    action = plan(Desired(3, "new"), formed(pods, membership(1, 2, 3, behind=[2]), THREE))
    assert isinstance(action, Wait)


def test_pods_that_serve_are_evicted_and_others_deleted() -> None:
    serving = {0: good(1, "old"), 1: good(2, "old"), 2: good(3, "old")}
    assert isinstance(plan(Desired(3, "new"), formed(serving, membership(1, 2, 3), THREE)), EvictPod)
    unready = {**serving, 1: replace(good(2, "old"), ready=False)}
    action = plan(Desired(3, "new"), formed(unready, membership(1, 2, 3), THREE))
    assert isinstance(action, DeletePod)
    assert action.ordinal == 1


# ---- whose volumes -----------------------------------------------------------------------------------------------


def test_volumes_are_marked_with_what_their_processes_report() -> None:
    volumes = {o: Volume(f"data-{o}", f"v{o}") for o in range(4)}
    pods = {0: good(1), 1: good(2), 2: good(3), 3: Pod("u", False, False, "new", empty(9))}
    action = plan(Desired(3, "new"), formed(pods, membership(1, 2, 3), volumes))
    assert isinstance(action, MarkVolumes)
    assert [(m.name, m.cluster_id, m.member_id) for m in action.marks] == [
        ("data-0", OURS, 1),
        ("data-1", OURS, 2),
        ("data-2", OURS, 3),
        ("data-3", 0, 9),
    ]


@pytest.mark.parametrize("pod", [good(1), Pod("u", False, False, "new", None)])
def test_fewer_voters_over_the_volumes_of_more_wait_for_the_user(pod: Pod) -> None:
    desired, observed = Desired(1, "new"), Observed({0: pod}, THREE, None, scheduled=1)
    action = plan(desired, observed)
    assert reason(action) == "MoreVolumesThanVoters"
    assert wanted_pods(desired, observed) == 1
    adopting = replace(desired, adopt=OURS)
    assert wanted_pods(adopting, observed) == 3
    taken = plan(adopting, replace(observed, pods={o: good(o + 1) for o in range(3)}, scheduled=3))
    assert taken == Record(OURS, 1)
    assert isinstance(plan(replace(desired, adopt=OTHER), observed), Wait)


def test_pods_of_a_cluster_that_is_not_taken_over_yet_are_not_removed() -> None:
    """The object was made again, and fewer voters were wanted before the operator had looked."""
    observed = Observed({o: good(o + 1) for o in range(3)}, THREE, None, scheduled=3)
    assert wanted_pods(Desired(1, "new"), observed) == 3
    assert reason(plan(Desired(1, "new"), observed)) == "MoreVolumesThanVoters"


def test_an_empty_volume_beside_those_of_a_cluster_forms_nothing_and_deletes_nothing() -> None:
    pods = {0: Pod("u0", False, False, "new", empty(50))}
    volumes = {0: Volume("data-0", "v0"), **held({1: 2, 2: 3})}
    assert reason(plan(Desired(1, "new"), Observed(pods, volumes, None, scheduled=1))) == "MoreVolumesThanVoters"
    three = {**pods, 1: good(2), 2: good(3)}
    assert plan(Desired(3, "new"), Observed(three, volumes, None, scheduled=3)) == Record(OURS, 2)


def test_volumes_of_which_nothing_is_known_are_never_deleted() -> None:
    volumes = held({0: 50}) | {1: Volume("data-1", "v1"), 2: Volume("data-2", "v2", OTHER, 7)}
    action = plan(Desired(1, "new"), formed({0: good(50)}, membership(50), volumes, 1))
    assert reason(action) == "AsWanted"


def test_the_volume_of_a_removed_member_is_deleted_once_its_pod_is_gone() -> None:
    volumes = held({0: 1, 1: 2})
    going = replace(good(2), terminating=True)
    waiting = plan(Desired(1, "new"), formed({0: good(1), 1: going}, membership(1), volumes, 1))
    assert not isinstance(waiting, DeleteVolume)
    action = plan(Desired(1, "new"), formed({0: good(1)}, membership(1), volumes, 1))
    assert action == DeleteVolume("data-1", "v1", "its member was removed")


def test_a_removed_member_on_a_wanted_ordinal_gets_an_empty_volume() -> None:
    pods = {0: good(1), 1: good(2), 2: Pod("u2", False, False, "new", node(33, state=NodeState.REMOVED, ready=False))}
    volumes = held({0: 1, 1: 2, 2: 33})
    observed = formed(pods, membership(1, 2, 3, behind=[3]), volumes)
    assert plan(Desired(3, "new"), observed) == DeleteVolume("data-2", "v2", "its member was removed")
    marked = {**volumes, 2: replace(volumes[2], terminating=True)}
    action = plan(Desired(3, "new"), replace(observed, volumes=marked))
    assert isinstance(action, DeletePod)
    assert action.ordinal == 2


def test_members_of_another_cluster_in_the_place_of_ours_are_reported() -> None:
    pods = {o: Pod(f"u{o}", True, False, "new", node(o + 1, OTHER)) for o in range(3)}
    assert reason(plan(Desired(3, "new"), formed(pods, None, held({0: 1, 1: 2, 2: 3}, OTHER)))) == "ClusterIDMismatch"


def test_one_volume_of_another_cluster_stops_only_its_ordinal() -> None:
    stranger = Pod("u3", False, False, "old", node(8, OTHER, ready=False))
    pods = {
        0: good(1, "old"),
        1: good(2, "old"),
        2: good(3, "old"),
        3: stranger,
        4: Pod("u", False, False, "new", empty(5)),
    }
    volumes = THREE | held({3: 8}, OTHER)
    joined = plan(Desired(5, "new"), formed(pods, membership(1, 2, 3), volumes, 5))
    assert isinstance(joined, AddLearner)
    assert joined.ordinal == 4
    four = membership(1, 2, 3)
    four = replace(four, members=(*four.members, Member(5, 4, True, True)))
    rolled = plan(Desired(5, "new"), formed({**pods, 4: good(5)}, four, volumes, 5))
    assert isinstance(rolled, EvictPod)
    settled = {o: good(o + 1) for o in range(3)} | {3: stranger, 4: good(5)}
    action = plan(Desired(5, "new"), formed(settled, four, volumes | held({4: 5}), 5))
    assert reason(action) == "ForeignVolume"


def test_a_deleted_stateful_set_comes_back_with_a_pod_for_each_member() -> None:
    volumes = held({o: o + 1 for o in range(7)})
    observed = formed({}, None, volumes, scheduled=0)
    assert wanted_pods(Desired(3, "new"), observed) == 7
    assert reason(plan(Desired(3, "new"), observed)) == "NoQuorum"


def test_pods_that_are_going_count_for_nothing() -> None:
    going = {o: replace(good(o + 1), terminating=True) for o in range(3)}
    assert reason(plan(Desired(3, "new"), Observed(going, {}, None, scheduled=3, fresh_id=5))) == "WaitingForPods"


@pytest.mark.parametrize("replicas", [1, 3])
def test_a_cluster_whose_volumes_are_all_empty_is_reported_and_given_up_only_by_the_user(replicas: int) -> None:
    pods = {o: Pod(f"u{o}", False, False, "new", empty(90 + o)) for o in range(replicas)}
    desired, observed = Desired(replicas, "new"), formed(pods, None, {}, replicas)
    assert reason(plan(desired, observed)) == "DataLost"
    assert plan(replace(desired, wipe=OURS), observed) == Forget(OURS)
    assert reason(plan(replace(desired, wipe=OTHER), observed)) == "DataLost"


def test_what_the_user_gave_up_is_deleted_volume_by_volume() -> None:
    desired = Desired(1, "new", wipe=OURS)
    volumes = dict(THREE)
    observed = Observed({0: good(1)}, volumes, None, scheduled=1, fresh_id=5)
    for ordinal in range(3):
        action = plan(desired, replace(observed, volumes=volumes))
        assert isinstance(action, DeleteVolume)
        assert action.name == f"data-{ordinal}"
        volumes[ordinal] = replace(volumes[ordinal], terminating=True)
    action = plan(desired, replace(observed, volumes=volumes))
    assert isinstance(action, DeletePod)
    anew = Observed({0: Pod("u", False, False, "new", empty(60))}, {}, None, scheduled=1, fresh_id=5)
    assert plan(desired, anew) == Record(5, 60)


def test_a_member_that_somebody_else_added_is_reported() -> None:
    found = membership(1, 2, 3)
    found = replace(found, members=(*found.members, Member(9, -1, True, True)))
    pods = {0: good(1), 1: good(2), 2: good(3)}
    assert reason(plan(Desired(3, "new"), formed(pods, found, THREE))) == "UnknownMember"


def test_the_learner_is_promoted_before_anything_is_rolled() -> None:
    found = membership(1, 2, learner=(2, 3))
    pods = {0: good(1, "old"), 1: good(2, "old"), 2: good(3, "old")}
    assert reason(plan(Desired(3, "new"), formed(pods, found, THREE))) == "CatchingUp"
    caught_up = replace(found, members=(*found.members[:2], Member(3, 2, False, True)))
    assert isinstance(plan(Desired(3, "new"), formed(pods, caught_up, THREE)), Promote)


def test_the_leader_hands_over_before_its_pod_goes_or_its_member_is_removed() -> None:
    pods = {0: good(1, "old"), 1: good(2), 2: good(3)}
    observed = formed(pods, membership(1, 2, 3), THREE)
    assert plan(Desired(3, "new"), observed) == TransferLeader(0, 2, "its pod is outdated and the last one")
    assert isinstance(plan(Desired(3, "new"), replace(observed, transfer_expired=True)), EvictPod)
    leading = formed({o: good(o + 1) for o in range(3)}, membership(1, 2, 3, leader=3), THREE)
    assert isinstance(plan(Desired(1, "new"), leading), TransferLeader)


def test_a_ready_pod_that_does_not_answer_is_evicted() -> None:
    """The operator may be the one that is cut off: applications may use this pod, and budgets count it."""
    silent = Pod("u", True, False, "old", None)
    observed = formed({0: good(1), 1: good(2), 2: silent}, membership(1, 2, 3), THREE)
    assert plan(Desired(3, "new"), observed) == EvictPod(2, "u", "it is outdated")
    unready = replace(silent, ready=False)
    observed = formed({0: good(1), 1: good(2), 2: unready}, membership(1, 2, 3), THREE)
    assert plan(Desired(3, "new"), observed) == DeletePod(2, "u", "it is outdated and not ready")


def test_a_cluster_that_serves_is_not_wiped() -> None:
    """Whoever copies the wrong id into the annotation must not lose a healthy cluster."""
    pods = {0: good(1), 1: good(2), 2: good(3)}
    serving = formed(pods, membership(1, 2, 3), THREE)
    wiping = replace(Desired(3, "new"), wipe=serving.cluster_id)
    action = plan(wiping, serving)
    assert isinstance(action, Wait)
    assert (action.reason, action.stalled) == ("WipeRefused", True)
    assert isinstance(plan(replace(wiping, template="newer"), replace(serving, template="newer")), EvictPod), (
        "it holds nothing up"
    )
    silent = replace(serving, membership=None)
    assert not isinstance(plan(wiping, silent), Wait), "one that does not serve is given up"


def test_a_pod_that_is_being_deleted_is_nothing_for_the_user() -> None:
    going = replace(good(3), terminating=True, ready=False, trouble="it is being deleted", run=Run.FAILING, node=None)
    action = plan(Desired(3, "new"), formed({0: good(1), 1: good(2), 2: going}, membership(1, 2, 3), THREE))
    assert isinstance(action, Wait)
    assert not action.stalled


def test_a_member_that_does_not_answer_is_waited_for() -> None:
    silent = Pod("u", True, False, "new", None)
    action = plan(Desired(3, "new"), formed({0: good(1), 1: good(2), 2: silent}, membership(1, 2, 3), THREE))
    assert isinstance(action, Wait)
    assert (action.reason, action.progressing) == ("MemberSilent", True)


def test_a_cluster_whose_majority_is_not_here_is_a_question_for_the_user() -> None:
    """For example one that was taken over from a single volume of another place."""
    lone = {0: good(1), **{o: Pod(f"u{o}", False, False, "new", empty(90 + o)) for o in (1, 2)}}
    action = plan(Desired(3, "new"), formed(lone, None, THREE))
    assert isinstance(action, Wait)
    assert (action.reason, action.stalled) == ("NoQuorum", True)
    assert f"set {WIPE} to {OURS:016x}" in action.message
    # A majority that is here elects a leader in a moment.
    two = {**lone, 1: good(2)}
    action = plan(Desired(3, "new"), formed(two, None, THREE))
    assert isinstance(action, Wait)
    assert not action.stalled


UNSCHEDULABLE = Pod("p0", False, False, "new", None, Run.NEVER, "Unschedulable: no node fits")


def forming(volume: Volume) -> Observed:
    """A cluster that is not formed: two pods with empty volumes answer, and the first cannot be scheduled."""
    pods = {0: UNSCHEDULABLE, **{o: Pod(f"u{o}", True, False, "new", empty(o)) for o in (1, 2)}}
    others = {o: Volume(f"data-{o}", f"v{o}") for o in (1, 2)}
    return Observed(pods, {0: volume, **others}, None, scheduled=3, fresh_id=5)


def test_before_a_cluster_is_formed_its_own_volume_on_a_lost_node_is_freed() -> None:
    mine = Volume("data-0", "v0", lost=True, younger=True)
    assert plan(Desired(3, "new"), forming(mine)) == DeleteVolume("data-0", "v0", "the node that it was on is gone")
    going = replace(mine, terminating=True)
    assert plan(Desired(3, "new"), forming(going)) == DeletePod(0, "p0", "its volume was on a node that is gone")


def test_before_a_cluster_is_formed_an_older_volume_on_a_lost_node_is_a_question_for_the_user() -> None:
    action = plan(Desired(3, "new"), forming(Volume("data-0", "v0", lost=True)))
    assert reason(action) == "VolumeOnLostNode"
    assert isinstance(action, Wait)
    assert action.stalled
    assert "data-0" in action.message


def test_a_volume_of_a_cluster_on_a_lost_node_is_not_freed_before_that_is_taken_over() -> None:
    action = plan(Desired(3, "new"), forming(Volume("data-0", "v0", OURS, 1, lost=True, younger=True)))
    assert reason(action) == "WaitingForPods"


def test_a_lost_status_is_taken_from_the_volumes() -> None:
    observed = Observed({o: good(o + 1) for o in range(3)}, THREE, None, scheduled=3, fresh_id=5)
    assert plan(Desired(3, "new"), observed) == Record(OURS, 1)
    assert plan(Desired(3, "new"), replace(observed, cluster_id=OURS)) == RecordBootstrapped()


def test_without_a_quorum_the_volume_of_another_cluster_is_asked_about() -> None:
    """It may be what holds up the majority: a pod that cannot be scheduled beside it."""
    pods = {0: cannot_run("new"), 1: Pod("u1", True, False, "new", node(9, OTHER)), 2: good(3)}
    action = plan(Desired(3, "new"), formed(pods, None, THREE))
    assert isinstance(action, Wait)
    assert action.reason == "NoQuorum"
    assert f"set the annotation {WIPE} to {OTHER:016x}" in action.message
