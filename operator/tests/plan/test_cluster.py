"""The planner against a simulated cluster: whatever happens, quorum is kept, ids are not reused, and it settles."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field, replace

import pytest
from holdfast_operator.plan.actions import (
    Action,
    AddLearner,
    DeletePod,
    DeleteVolume,
    EvictPod,
    Form,
    MarkVolumes,
    Open,
    Promote,
    Record,
    RecordBootstrapped,
    Remove,
    TransferLeader,
    Wait,
)
from holdfast_operator.plan.cluster import plan, wanted_pods
from holdfast_operator.plan.facts import Desired, Member, Membership, Node, NodeState, Observed, Pod, Run, Volume


@dataclass
class FakePod:
    uid: str
    template: str
    volume: int
    ready: bool = False
    answers: bool = True


@dataclass
class World:
    """The true state of a cluster. It executes actions as Kubernetes and members would, and checks each of them."""

    chance: random.Random
    desired: Desired
    pods: dict[int, FakePod] = field(default_factory=dict)
    volumes: dict[int, int] = field(default_factory=dict)  # ordinal -> volume id
    belongs: dict[int, tuple[int, bool]] = field(default_factory=dict)  # volume id -> (cluster id, opened)
    members: dict[int, tuple[int, bool, bool]] = field(default_factory=dict)  # id -> (ordinal, voter, caught up)
    removed: set[int] = field(default_factory=set)
    leader: int = 0
    config_index: int = 1
    cluster_id: int = 0
    seed: int = 0
    bootstrapped: bool = False
    scheduled: int = 0
    marks: dict[int, tuple[int, int]] = field(default_factory=dict)  # volume id -> (cluster id, member id) of its claim
    ids: itertools.count[int] = field(default_factory=lambda: itertools.count(100))
    formed: int = 0

    def alive(self, member: int) -> bool:
        ordinal = self.members[member][0]
        pod = self.pods.get(ordinal)
        return pod is not None and pod.answers and pod.volume == member

    def quorum(self) -> bool:
        voters = [m for m, (_, voter, _) in self.members.items() if voter]
        return bool(voters) and 2 * sum(self.alive(m) for m in voters) > len(voters)

    def kubernetes(self) -> None:
        """The StatefulSet's controller and the kubelets."""
        self.scheduled = wanted_pods(self.desired, self.observe())
        for ordinal in range(self.scheduled):
            if ordinal not in self.pods:
                volume = self.volumes.setdefault(ordinal, next(self.ids))
                self.pods[ordinal] = FakePod(f"uid{next(self.ids)}", self.desired.template, volume)
        for ordinal in [o for o in self.pods if o >= self.scheduled]:
            del self.pods[ordinal]
        for pod in self.pods.values():
            member = self.members.get(pod.volume)
            pod.ready = pod.answers and member is not None and member[1] and self.quorum()
        for id, (ordinal, voter, _) in list(self.members.items()):
            if self.alive(id):
                self.members[id] = (ordinal, voter, True)
        if self.quorum() and not (self.leader in self.members and self.alive(self.leader)):
            voters = [m for m, (_, voter, _) in self.members.items() if voter and self.alive(m)]
            self.leader = self.chance.choice(voters)

    def observe(self) -> Observed:
        membership = None
        if self.quorum():
            found = (Member(i, o, v, c and self.alive(i)) for i, (o, v, c) in sorted(self.members.items()))
            membership = Membership(self.config_index, self.leader, tuple(found))
        return Observed(
            pods={o: self._pod(p) for o, p in self.pods.items()},
            volumes={o: Volume(f"data-{o}", f"v{v}", *self.marks.get(v, (0, 0))) for o, v in self.volumes.items()},
            membership=membership,
            cluster_id=self.cluster_id,
            seed=self.seed,
            bootstrapped=self.bootstrapped,
            fresh_id=next(self.ids),
            scheduled=self.scheduled,
        )

    def _pod(self, pod: FakePod) -> Pod:
        cluster, opened = self.belongs.get(pod.volume, (0, False))
        state = NodeState.EMPTY if not cluster else NodeState.MEMBER if opened else NodeState.FORMED
        if pod.volume in self.removed:
            state = NodeState.REMOVED
        node = Node(pod.volume, cluster, pod.volume if cluster else 0, state, pod.ready)
        return Pod(pod.uid, pod.ready, False, pod.template, node if pod.answers else None)

    def carry_out(self, action: Action) -> None:
        if isinstance(action, Record):
            assert not self.bootstrapped
            self.cluster_id, self.seed = action.cluster_id, action.seed
        elif isinstance(action, Form):
            assert not any(self.belongs.get(p.volume) for p in self.pods.values()), "formed beside a formed one"
            pod = self.pods[action.ordinal]
            assert pod.volume == action.volume_id
            self.formed += 1
            self.belongs[pod.volume] = (action.cluster_id, False)
            self.members = {pod.volume: (action.ordinal, True, True)}
            self.leader = pod.volume
        elif isinstance(action, RecordBootstrapped):
            assert any(c == self.cluster_id for c, _ in self.belongs.values())
            self.bootstrapped = True
        elif isinstance(action, Open):
            self.belongs[self.pods[action.ordinal].volume] = (action.cluster_id, True)
        elif isinstance(action, AddLearner):
            self._check_index(action.config_index)
            assert action.member_id not in self.removed, "an id was used twice"
            assert not any(not voter for _, voter, _ in self.members.values()), "two learners at once"
            self.members[action.member_id] = (action.ordinal, False, False)
            self.belongs[action.member_id] = (self.cluster_id, True)
        elif isinstance(action, Promote):
            self._check_index(action.config_index)
            ordinal, _, caught_up = self.members[action.member_id]
            assert caught_up, "promoted before it had caught up"
            self.members[action.member_id] = (ordinal, True, True)
        elif isinstance(action, Remove):
            self._check_index(action.config_index)
            _, voter, _ = self.members.pop(action.member_id)
            self.removed.add(action.member_id)
            assert not voter or self.quorum(), "a removal lost the quorum"
        elif isinstance(action, TransferLeader):
            assert self.alive(action.to)
            self.leader = action.to
        elif isinstance(action, MarkVolumes):
            for mark in action.marks:
                self.marks[int(mark.uid.removeprefix("v"))] = (mark.cluster_id, mark.member_id)
        elif isinstance(action, DeletePod | EvictPod):
            before = self.quorum()
            pod = self.pods.pop(action.ordinal)
            assert pod.uid == action.uid
            assert self.quorum() == before or len(self.members) == 1, "replacing a pod lost the quorum"
        elif isinstance(action, DeleteVolume):
            ordinal = int(action.name.removeprefix("data-"))
            assert self.volumes[ordinal] not in self.members, "the volume of a member was deleted"
            del self.volumes[ordinal]

    def _check_index(self, index: int) -> None:
        assert index == self.config_index, "decided on an old configuration"
        self.config_index += 1

    def trouble(self) -> None:
        """A fault that the cluster can survive: at most a minority is lost at a time."""
        voters = [m for m, (_, voter, _) in self.members.items() if voter]
        if len(voters) < 3 or not self.bootstrapped or not all(self.alive(m) for m in self.members):
            return
        ordinal = self.members[self.chance.choice(voters)][0]
        if self.chance.random() < 0.5:
            del self.volumes[ordinal]  # pod and volume
        del self.pods[ordinal]

    def settled(self) -> bool:
        voters = {o for o, v, _ in self.members.values() if v}
        return (
            voters == set(range(self.desired.replicas)) == set(self.pods)
            and len(self.members) == self.desired.replicas
            and all(p.ready and p.template == self.desired.template for p in self.pods.values())
            and voters <= set(self.volumes)
            # Of the others, only those stay of which no process ever reported whether they hold anything.
            and not any(
                self.volumes[o] in self.marks or self.volumes[o] in self.belongs for o in set(self.volumes) - voters
            )
        )


@pytest.mark.parametrize("seed", range(300))
def test_it_keeps_quorum_and_settles(seed: int) -> None:
    chance = random.Random(seed)
    world = World(chance, Desired(chance.choice([1, 3, 5]), "t0"))
    for step in range(400):
        if step < 250 and chance.random() < 0.08:
            world.trouble()
        if step < 250 and chance.random() < 0.03:
            world.desired = replace(world.desired, template=f"t{chance.randrange(3)}")
        if step < 250 and chance.random() < 0.02:
            world.desired = replace(world.desired, replicas=chance.choice([1, 3, 5]))
        if chance.random() < 0.7:
            world.kubernetes()
        if chance.random() < 0.05 and not world.bootstrapped:
            world.cluster_id = world.seed = 0  # the status is lost
        world.carry_out(plan(world.desired, world.observe()))
    for _ in range(200):
        world.kubernetes()
        world.carry_out(plan(world.desired, world.observe()))
    assert world.settled(), plan(world.desired, world.observe())
    assert world.formed == 1
    assert isinstance(plan(world.desired, world.observe()), Wait)


def three(template: str = "old", leader: int = 1) -> World:
    world = World(random.Random(1), Desired(3, template))
    for _ in range(60):
        world.kubernetes()
        world.carry_out(plan(world.desired, world.observe()))
    assert world.settled()
    world.leader = next(i for i, (o, _, _) in world.members.items() if o == leader)
    return world


def actions(world: World, count: int = 60) -> list[Action]:
    taken: list[Action] = []
    for _ in range(count):
        action = plan(world.desired, world.observe())
        if not isinstance(action, Wait):
            taken.append(action)
        world.carry_out(action)
        world.kubernetes()
    return taken


def test_the_leader_goes_last_and_hands_over_first() -> None:
    world = three(leader=0)
    world.desired = replace(world.desired, template="new")
    taken = actions(world)
    assert [type(a).__name__ for a in taken] == ["EvictPod", "EvictPod", "TransferLeader", "EvictPod"]
    assert [a.ordinal for a in taken if isinstance(a, EvictPod)] == [1, 2, 0]


def test_no_pod_is_replaced_by_its_like() -> None:
    """The API server refuses the wanted template, so a pod that goes comes back as it was."""
    world = three()
    world.pods[2].answers = False
    world.desired = replace(world.desired, template="new")
    refused = replace(world.observe(), template="old")
    stuck = replace(refused.pods[2], run=Run.NEVER, ready=False)
    for observed in (refused, replace(refused, pods={**refused.pods, 2: stuck})):
        action = plan(world.desired, observed)
        assert isinstance(action, Wait)
        assert action.reason == "RollingOut"
    assert isinstance(plan(world.desired, replace(refused, template="new")), EvictPod)


def test_broken_pods_go_first() -> None:
    world = three(leader=0)
    world.pods[2].answers = False
    world.kubernetes()
    world.desired = replace(world.desired, template="new")
    first = plan(world.desired, world.observe())
    assert isinstance(first, DeletePod)
    assert first.ordinal == 2


def test_a_lost_volume_is_replaced_by_a_new_id_removed_first() -> None:
    world = three()
    old = next(i for i, (o, _, _) in world.members.items() if o == 2)
    del world.pods[2]
    del world.volumes[2]
    world.kubernetes()
    taken = actions(world, 20)
    assert [type(a).__name__ for a in taken] == ["Remove", "AddLearner", "MarkVolumes", "Promote"]
    assert isinstance(taken[0], Remove)
    assert taken[0].member_id == old


def test_nothing_is_done_without_a_quorum() -> None:
    world = three()
    for ordinal in (0, 1):
        world.pods[ordinal].answers = False
    world.desired = replace(world.desired, template="new", replicas=5)
    action = plan(world.desired, world.observe())
    assert isinstance(action, Wait)
    assert action.reason == "NoQuorum"
    assert wanted_pods(replace(world.desired, replicas=1), world.observe()) == 3, "observation never takes pods away"


def test_scaling_down_is_not_over_before_the_pods_are_gone() -> None:
    world = three()
    world.desired = replace(world.desired, replicas=1, template="old")
    seen = world.observe()
    assert seen.membership is not None
    alone = replace(seen.membership, leader=seen.membership.members[0].id, members=seen.membership.members[:1])
    going = {n: replace(pod, terminating=n > 0) for n, pod in seen.pods.items()}
    action = plan(world.desired, replace(seen, membership=alone, pods=going, scheduled=1))
    assert isinstance(action, Wait)
    assert (action.reason, action.progressing) == ("ScalingDown", True)
    stuck = {n: replace(pod, run=Run.UNKNOWN) if n else pod for n, pod in going.items()}
    action = plan(world.desired, replace(seen, membership=alone, pods=stuck, scheduled=1))
    assert isinstance(action, Wait)
    assert action.reason == "AsWanted"
    assert "nothing is known" not in action.message, "it is known that their members were removed"


def test_a_pod_that_holds_nothing_makes_room_without_a_quorum() -> None:
    """Somebody scaled the StatefulSet by hand, and the new pods have the places of voters."""
    world = three()
    for ordinal in (0, 1):
        world.pods[ordinal].answers = False
    observed = replace(world.observe(), scheduled=5)
    empty = Volume("data-4", "uid", cluster_id=0, member_id=99)
    assert wanted_pods(world.desired, observed) == 5, "nothing is known of the new volumes"
    only_last = {**observed.volumes, 4: empty}
    assert wanted_pods(world.desired, replace(observed, volumes=only_last)) == 4
    both = {**only_last, 3: replace(empty, name="data-3")}
    assert wanted_pods(world.desired, replace(observed, volumes=both)) == 3
    member = replace(observed.pods[2], node=Node(99, world.cluster_id, 99, NodeState.MEMBER, True))
    assert wanted_pods(world.desired, replace(observed, volumes=both, pods={**observed.pods, 4: member})) == 5


def test_a_second_loss_is_not_made_by_us() -> None:
    """One voter's volume is lost while another voter is not ready: removing the lost one would leave no majority."""
    world = three(leader=0)
    world.pods[1].ready = False
    lost = world.pods[2]
    lost.volume = next(world.ids)
    world.volumes[2] = lost.volume
    action = plan(world.desired, world.observe())
    assert isinstance(action, Wait)
    assert action.reason == "QuorumAtRisk"


def test_pods_of_two_clusters_are_left_alone() -> None:
    world = World(random.Random(1), Desired(3, "t"))
    world.kubernetes()
    world.belongs = {world.pods[0].volume: (7, True), world.pods[1].volume: (8, True)}
    taken = actions(world, 5)
    assert [type(a).__name__ for a in taken] == ["MarkVolumes"]
    action = plan(world.desired, world.observe())
    assert isinstance(action, Wait)
    assert action.reason == "ClusterIDMismatch"


def test_a_lost_status_never_forms_again() -> None:
    world = three()
    world.cluster_id, world.seed, world.bootstrapped = 0, 0, False
    taken = actions(world, 5)
    assert [type(a).__name__ for a in taken] == ["Record", "RecordBootstrapped"]
    assert world.formed == 1
