"""What has to hold at every step. Each write of an operator is judged right before it takes effect."""

from __future__ import annotations

from holdfast_operator.sim.conduct import Conduct
from holdfast_operator.sim.kube import Request
from holdfast_operator.sim.objects import Object, controller_of, going, name_of, uid_of
from holdfast_operator.sim.raft import Disk, Group, Member
from holdfast_operator.sim.shape import NAMESPACE
from holdfast_operator.sim.statefulset import ordinal
from holdfast_operator.sim.world import Acting, World

OURS = ("HoldfastCluster", "HoldfastEdgePool", "HoldfastConfig")


class Invariants:
    def __init__(self, world: World) -> None:
        self._world = world
        self._conduct = Conduct(world)
        self._acting: Acting | None = None
        self._owners: dict[str, str] = {}  # uid of a StatefulSet, also of one that is gone: the uid of its owner
        self._gone_at: dict[str, float] = {}  # uid of an object of ours: when it was deleted
        self._took: dict[str, float] = {}  # name of an operator: when it last took a pod away
        self.writes = 0
        self.last_write = ""
        world.api.watchers.append(self._noticed)

    def _noticed(self, event: str, obj: Object) -> None:
        if obj["kind"] == "StatefulSet":
            controller = controller_of(obj)
            self._owners.setdefault(uid_of(obj), controller["uid"] if controller is not None else "")
        if obj["kind"] in OURS and (event == "DELETED" or going(obj)):
            self._gone_at.setdefault(uid_of(obj), self._world.now)
        if (event == "DELETED" or going(obj)) and obj["kind"] == "Pod":
            if self._acting is None:
                self._world.disrupted()
            else:
                self._took[self._acting.name] = self._world.now

    # ---- writes of an operator -----------------------------------------------------------------------------

    def before_write(self, operator: Acting, request: Request) -> None:
        self._acting = operator
        if request.kind.name != "Event":
            self.writes += 1
            self.last_write = str(request)
        live = None
        name = request.name or request.body.get("metadata", {}).get("name", "")
        if name:
            live = self._world.api.get(request.kind.name, request.namespace, name)
        if live is None or not self._refused(request, live):
            ends = request.method == "DELETE" or request.sub == "eviction"
            self._conduct.before_write(operator, request, live if ends else None)
        if live is None or request.kind.name in OURS or self._refused(request, live):
            return
        if request.method != "POST" or request.sub:
            self._ours(operator, request, live)
        if request.method == "DELETE" or request.sub == "eviction":
            if live["kind"] == "Pod":
                self._keeps_majority(operator, [live], str(request))
            elif live["kind"] == "PersistentVolumeClaim":
                self._may_delete_volume(live)
            elif live["kind"] == "StatefulSet":
                self._keeps_majority(operator, self._pods_from(live, 0), str(request))
        elif live["kind"] == "StatefulSet" and "replicas" in request.body.get("spec", {}):
            replicas = request.body["spec"]["replicas"]
            if replicas < live["spec"]["replicas"]:
                self._keeps_majority(operator, self._pods_from(live, replicas), f"{request} with {replicas} replicas")

    def after_write(self) -> None:
        self._acting = None

    @staticmethod
    def _refused(request: Request, live: Object) -> bool:
        """Whether the API server will refuse the request because it was made for another object, or for another version
        of it."""
        before = request.body.get("preconditions") or request.body.get("deleteOptions", {}).get("preconditions") or {}
        if not before and request.method != "POST":
            before = request.body.get("metadata", {})
        return any(before.get(key) not in (None, "", live["metadata"][key]) for key in ("uid", "resourceVersion"))

    def _ours(self, operator: Acting, request: Request, live: Object) -> None:
        """Nothing of another owner is touched; nothing of an owner that was gone before the pass began."""
        owners = {uid_of(obj) for kind in OURS for obj in self._world.api.list(kind)}
        owners |= {uid for uid, at in self._gone_at.items() if at >= operator.pass_at}
        controller = controller_of(live)
        if live["kind"] == "PersistentVolumeClaim":
            return  # judged by what is on it
        uid = controller["uid"] if controller is not None else ""
        if self._owners.get(uid, uid) not in owners:
            self._world.fail("touches only its own", f"{request}: its owner is {controller and controller['name']}")

    def _pods_from(self, stateful: Object, first: int) -> list[Object]:
        name = name_of(stateful)
        return [p for p in self._world.voter_pods() if ordinal(name_of(p), name) >= first]

    def _keeps_majority(self, operator: Acting, pods: list[Object], what: str) -> None:
        """If a majority answers, it still does without these pods."""
        world = self._world
        others = [at for name, at in self._took.items() if name != operator.name]
        if operator.pass_at <= max([world.disrupted_at, *others]):
            return  # it decided before it could know; a disruption budget refuses then
        uids = {uid_of(pod) for pod in pods}
        taken = {r.disk.member_id for r in world.hardware.runtimes.values() if r.pod_uid in uids}
        for group in world.groups.values():
            staying = world.staying(group)
            if group.cluster_id in world.wiped:
                continue
            if len(group.voters) > 1 and group.answers(staying) and not group.answers(staying - taken):
                world.fail("keeps the majority", f"{what} takes a voter that {len(group.voters)} voters need")

    def _may_delete_volume(self, claim: Object) -> None:
        """Deleted is only what holds nothing, a member that is known to be removed, or what the user gave up."""
        volume = self._world.hardware.volumes.get(uid_of(claim))
        if volume is None or going(claim) or volume.disk.cluster_id in self._world.wiped:
            return
        disk = volume.disk
        for group in self._world.groups.values():
            if disk.volume_id in group.members:
                self._world.fail("deletes no member's volume", f"{name_of(claim)} holds a member of the configuration")
            elif disk.cluster_id == group.cluster_id and disk.member_id not in group.removed:
                self._world.fail("deletes no member's volume", f"{name_of(claim)} holds a member that is not removed")
        if disk.cluster_id and disk.cluster_id not in self._world.groups:
            self._world.fail("deletes no member's volume", f"{name_of(claim)} is of another cluster")

    # ---- calls to members ----------------------------------------------------------------------------------

    def before_change(self, group: Group, new: dict[int, Member]) -> None:
        self._conduct.before_change(group, new)
        voters = {m.id for m in new.values() if m.voter}
        staying = self._world.staying(group)
        if group.answers(staying) and voters != group.voters and not group.answers(staying, voters):
            recent = self._world.now - self._world.disrupted_at < 5.0
            if not recent:
                self._world.fail("keeps the majority", f"{len(voters)} voters would need more than answer")

    def before_form(self, cluster_id: int, disk: Disk) -> None:
        """A cluster is formed once: never while volumes of an earlier one are claimed by the same object."""
        prefix = f"data-{self._world.shape.cluster}-voter-"
        for claim in self._world.api.list("PersistentVolumeClaim", NAMESPACE):
            volume = self._world.hardware.volumes.get(uid_of(claim))
            if volume is None or not name_of(claim).startswith(prefix) or going(claim):
                continue
            group = self._world.groups.get(volume.disk.cluster_id)
            if group is None or group.cluster_id == cluster_id or volume.disk.member_id in group.removed:
                continue
            if group.acknowledged and not group.given_up:
                self._world.fail("formed once", f"{name_of(claim)} holds a member of the cluster that is there already")
