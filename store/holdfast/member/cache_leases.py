"""The leader's part of consistent caches (Chubby, section 2.7): who holds a lease, and which commands wait for them.

The holder of a lease may answer linearizable reads from its own copy of a cachable prefix (a zone). So nothing that may
change a key of the zone is appended before every holder has acknowledged that its copy is invalid, or its lease has
ended. To invalidate after the commit would be too late: another client could have read the new value by then.

    a zone is    what may be appended              a lease may be given
    quiet        everything                        yes
    held         nothing that touches the zone     yes, renewed
    invalidated  nothing that touches the zone,    no
                 until no lease is outstanding
    changing     everything                        no, until what was appended is applied

So there is one round of invalidations, after which nobody caches until the change is applied. A lease is given only
after a round of heartbeats that began after its request arrived; it lasts from the sending of the request by the
holder's clock, and here from the arrival, longer by the drift of clocks. Therefore a new leader, whose election came
after that round, knows no holders but waits for the time of one lease: until then nothing that touches a zone is
appended. A holder that takes long to acknowledge, or never does, closes its zone for ten times as long, so that nobody
can hold up writes for more than a tenth of the time.

Like the lessor, it proposes and sends nothing itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from holdfast.keyrange import bounds
from holdfast.machine import Machine
from holdfast.machine.cachable import prefix_range
from holdfast.member.cachable_zones import Zones, attached, written
from holdfast.member.interface import CacheGiven, HoldCache
from holdfast.proto import raft_pb2
from holdfast.raft.log import Entry
from holdfast.raft.types import Settings
from holdfast.status import CACHE_FORBIDDEN, CACHE_IDLE, CACHE_UNACKNOWLEDGED, NOT_CACHABLE, NOT_LEADER, Code, Refusal

MAX_HOLDERS = 64  # of one prefix: a write sends each of them an invalidation
CONFIRM_NS = 20_000_000  # between rounds of heartbeats for leases
PROMPT_NS = 100_000_000  # an acknowledgement that takes longer closes the zone
CLOSED_TIMES = 10  # for so many times as long as it took
_TOO_MANY = Refusal(
    Code.RESOURCE_EXHAUSTED, f"holdfast: {MAX_HOLDERS} clients hold leases of this cachable prefix, which is the most"
)
_BAD_NUMBER = Refusal(
    Code.INVALID_ARGUMENT, "holdfast: numbers of cache lease messages rise from 1; only what was sent is acknowledged"
)


class Held(NamedTuple):
    """A command that waits until no copy can show what it changes."""

    name: tuple[int, int, int]  # of the proposal; for a command of this leader itself: (0, lease, step)
    command: raft_pb2.Command
    data: bytes | None  # None: not named yet


class Asked(NamedTuple):
    """A holder's request for a lease, or for more time."""

    id: int
    number: int
    at: int  # when it arrived


class _Holder:
    __slots__ = (
        "acknowledged",
        "asked",
        "confirmed",
        "excused",
        "gone",
        "id",
        "invalidated_at",
        "invalidations",
        "revision",
        "until",
    )

    def __init__(self, id: int) -> None:
        self.id = id
        self.asked = self.confirmed = Asked(id, 0, 0)  # `confirmed`: this member led after it had arrived
        self.revision = 0  # of the lease; 0: it has none
        self.until = 0  # when the lease ends, at the latest
        self.invalidations = self.acknowledged = 0
        self.invalidated_at = 0  # when the newest invalidation was sent
        self.gone = False  # the connection is lost: nothing will be acknowledged
        self.excused = False  # by this server, which ended the stream

    @property
    def delays(self) -> bool:
        """Whether it had a lease when its newest invalidation was sent, and has not acknowledged that."""
        return bool(self.until) and self.acknowledged < self.invalidations


class _Zone:
    __slots__ = (
        "changing",
        "closed_until",
        "end",
        "holders",
        "leased",
        "open_at",
        "order",
        "pinned",
        "prefix",
        "slowest",
        "start",
    )

    def __init__(self, prefix: bytes, open_at: int, changing: int) -> None:
        self.prefix = prefix
        self.start, self.end = prefix_range(prefix) if prefix else (b"", None)
        self.holders: dict[int, _Holder] = {}
        self.open_at = open_at  # leases that an earlier leader gave may last until then
        self.changing = changing  # the newest entry that may change the zone: no lease before it is applied
        self.leased: dict[int, int] = {}  # lease -> the newest entry that may attach a key of the zone to it
        self.order: deque[tuple[int, int]] = deque()  # these (entry, lease), to forget those that are applied
        self.pinned = 0  # commands that touch it and wait
        self.closed_until = 0
        self.slowest = 0  # how long the slowest acknowledgement took since commands wait

    def attach(self, leases: Iterable[int], index: int, applied: int) -> None:
        """The entry at `index` may attach keys to these leases; `applied` is the newest entry that has done so."""
        while self.order and self.order[0][0] <= applied:
            before, lease = self.order.popleft()
            if self.leased[lease] == before:
                del self.leased[lease]
        for lease in leases:
            self.leased[lease] = index
            self.order.append((index, lease))

    def note_delay(self, holder: _Holder, now: int) -> None:
        """This holder lets commands wait no longer. Whichever way it ends that, its delay counts."""
        if holder.delays and not holder.excused:
            self.slowest = max(self.slowest, min(now, holder.until) - holder.invalidated_at)

    @property
    def ends(self) -> int:
        """From when on no lease is outstanding."""
        return max([self.open_at, *(holder.until for holder in self.holders.values())])


class CacheLeases:
    """Handles cache leases while this member leads. Between `demote` and `promote` it does nothing."""

    def __init__(self, settings: Settings) -> None:
        self._lease_ns = settings.cache_lease_ns
        self._drifted_ns = self._lease_ns * (100 + settings.max_clock_drift_percent) // 100
        # Since this member started: invalidations sent; commands that waited, and those of them that waited for leases
        # of an earlier leader; leases that ran out while a command waited.
        self.invalidations = self.waited = self.waited_as_new_leader = self.ran_out = 0
        self._reset()

    def _reset(self) -> None:
        self._by_prefix: dict[bytes, _Zone] = {}
        self._zones: Zones[_Zone] = Zones(())
        self._of: dict[int, _Zone] = {}  # a holder's zone
        self._held: dict[tuple[int, int, int], tuple[Held, list[_Zone]]] = {}
        self._blocked: set[bytes] = set()  # prefixes of the zones for which commands wait
        self._unanswered: set[int] = set()  # holders that wait for a lease
        self._to_confirm: dict[int, Asked] = {}
        self._confirm_at = 0  # not before that
        self._open_at = 0
        self._everything: _Zone | None = None
        self._term_start = 0
        self.active = False  # whether commands have to be looked at before they are appended

    # ---- leadership ----------------------------------------------------------------------------------------

    def promote(self, machine: Machine, unapplied: Iterable[Entry], term_start: int, now: int) -> None:
        """Begin to lead. `unapplied`: entries of earlier leaders that are not applied here yet."""
        self._reset()
        self._term_start = term_start
        self._open_at = now + self._drifted_ns
        if any(_declares(entry) for entry in unapplied):
            # An earlier leader may have applied it, and have given leases of a prefix that is not known here yet.
            self._everything = _Zone(b"", self._open_at, term_start)
        self.declared(machine, term_start)

    def demote(self, out: list[CacheGiven]) -> None:
        """Forget everything. The next leader waits; commands that wait are proposed to it by their members."""
        out += [CacheGiven(id, refused=NOT_LEADER) for id in self._of]
        self._reset()

    def declared(self, machine: Machine, last_index: int) -> list[CacheGiven]:
        """The declarations have changed. `last_index`: of the log. No earlier leader gave leases of what is declared in
        our term."""
        before = self._by_prefix
        open_at = self._open_at if machine.applied_index < self._term_start else 0
        self._by_prefix = {
            prefix: before.get(prefix) or _Zone(prefix, open_at, last_index) for prefix in sorted(machine.cachable)
        }
        self._zones = Zones(self._by_prefix.values())
        self._activate()
        ended = [id for prefix in before.keys() - self._by_prefix.keys() for id in before[prefix].holders]
        for id in ended:
            self._forget(id)
        return [CacheGiven(id, refused=CACHE_FORBIDDEN) for id in ended]

    # ---- commands ------------------------------------------------------------------------------------------

    def _activate(self) -> None:
        self.active = bool(self._by_prefix) or self._everything is not None

    def touched(self, command: raft_pb2.Command, machine: Machine) -> list[_Zone]:
        """The zones that `command` may change."""
        if self._everything is not None and machine.applied_index >= self._term_start:
            self._everything = None
            self._activate()
        ranges = list(written(command))
        revoked = command.lease_revoke.id if command.HasField("lease_revoke") else None
        if revoked is not None:
            ranges += [bounds(key, b"") for key in machine.space.leased.get(revoked, ())]
        found = {zone.prefix: zone for start, end in ranges for zone in self._zones.touched(start, end)}
        if revoked is not None:
            before = machine.applied_index < self._term_start  # which keys are attached is not known yet
            found |= {zone.prefix: zone for zone in self._by_prefix.values() if before or revoked in zone.leased}
        if self._everything is not None and (ranges or revoked is not None):
            found[b""] = self._everything
        return list(found.values())

    def holds_back(self, held: Held, zones: list[_Zone], now: int, out: list[CacheGiven]) -> bool:
        """Whether this command has to wait: keep it until `released`, and invalidate the copies."""
        if held.name in self._held:
            return True  # it was proposed again
        blocked = [zone for zone in zones if zone.ends > now]
        if not blocked:
            return False
        self._held[held.name] = (held, zones)
        self.waited += 1
        self.waited_as_new_leader += any(zone.open_at > now for zone in blocked)
        for zone in zones:
            zone.pinned += 1
            self._invalidate(zone, now, out)
        self._blocked.update(zone.prefix for zone in blocked)
        return True

    def _invalidate(self, zone: _Zone, now: int, out: list[CacheGiven]) -> None:
        for holder in zone.holders.values():
            if holder.until > now and holder.acknowledged == holder.invalidations:
                holder.invalidations += 1
                holder.invalidated_at, holder.revision = now, 0
                self.invalidations += 1
                out.append(CacheGiven(holder.id, invalidations=holder.invalidations))

    def appended(self, zones: list[_Zone], command: raft_pb2.Command, index: int, applied: int) -> None:
        """This command is in the log at `index`; entries up to `applied` are applied."""
        leases = set(attached(command)) - {0}
        for zone in zones:
            zone.changing = index
            zone.attach(leases, index, applied)
            for holder in zone.holders.values():
                holder.revision = 0  # whoever had a lease has none any more

    def released(self, now: int, out: list[CacheGiven]) -> list[Held]:
        """Commands that need not wait any more. Ask `holds_back` again before appending them: the zones may be others
        by now."""
        if not self._blocked:
            return []
        still = {zone.prefix for zone in self._all_zones() if zone.ends > now} & self._blocked
        if still == self._blocked:
            return []
        for prefix in self._blocked - still:
            self._close_if_slow(self._by_prefix.get(prefix), now, out)
        self._blocked = still
        free = [name for name, (_, zones) in self._held.items() if not any(zone.prefix in still for zone in zones)]
        found: list[Held] = []
        for name in free:
            held, zones = self._held.pop(name)
            found.append(held)
            for zone in zones:
                zone.pinned -= 1
        return found

    def _all_zones(self) -> list[_Zone]:
        zones = list(self._by_prefix.values())
        return zones if self._everything is None else [*zones, self._everything]

    def _close_if_slow(self, zone: _Zone | None, now: int, out: list[CacheGiven]) -> None:
        """Remove the holders that have let commands wait until their leases ran out. If any holder was slow, give no
        leases of the zone for a while."""
        if zone is None:
            return
        for holder in [h for h in zone.holders.values() if h.delays]:
            zone.note_delay(holder, now)
            self.ran_out += not holder.excused
            if not holder.gone:
                out.append(CacheGiven(holder.id, refused=CACHE_UNACKNOWLEDGED))
            self._forget(holder.id)
        if zone.slowest > PROMPT_NS:
            zone.closed_until = now + CLOSED_TIMES * zone.slowest
        zone.slowest = 0

    # ---- holders -------------------------------------------------------------------------------------------

    def hold(self, item: HoldCache, now: int, out: list[CacheGiven]) -> Refusal | None:
        """A message of a holder, or of somebody who wants to be one. Returns why it is refused."""
        zone = self._of.get(item.id)
        if zone is None:
            zone = self._zones.around(*bounds(item.key, item.range_end))
            if zone is None:
                return NOT_CACHABLE
            if len(zone.holders) >= MAX_HOLDERS:
                self._make_room(zone, now, out)
            if len(zone.holders) >= MAX_HOLDERS:
                return _TOO_MANY
            zone.holders[item.id] = _Holder(item.id)
            self._of[item.id] = zone
        holder = zone.holders[item.id]
        if item.number <= holder.asked.number or not holder.acknowledged <= item.acknowledged <= holder.invalidations:
            self.release(item.id, now, done=False)
            return _BAD_NUMBER
        if item.acknowledged > holder.acknowledged:
            zone.note_delay(holder, now)
            holder.acknowledged, holder.until = item.acknowledged, 0
        holder.asked = self._to_confirm[item.id] = Asked(item.id, item.number, now)
        return None

    def release(self, id: int, now: int, *, done: bool, excused: bool = False) -> None:
        """A holder has ended its stream. `done`: it said before that it does not use its copy any more. `excused`: this
        server ended the stream, so the holder could not say that."""
        zone = self._of.get(id)
        if zone is None:
            return
        holder = zone.holders[id]
        holder.excused = excused
        if done or holder.until <= now:
            zone.note_delay(holder, now)
            self._forget(id)
        else:
            holder.gone = True
            self._unanswered.discard(id)
            self._to_confirm.pop(id, None)

    def _forget(self, id: int) -> None:
        zone = self._of.pop(id)
        del zone.holders[id]
        self._unanswered.discard(id)
        self._to_confirm.pop(id, None)

    def _make_room(self, zone: _Zone, now: int, out: list[CacheGiven]) -> None:
        """Remove holders that have no lease and do not ask for one any more."""
        for holder in [h for h in zone.holders.values() if h.until <= now and h.asked.at + self._drifted_ns <= now]:
            if not holder.gone:
                out.append(CacheGiven(holder.id, refused=CACHE_IDLE))
            self._forget(holder.id)

    def to_confirm(self, now: int) -> tuple[Asked, ...]:
        """Requests to answer once a round of heartbeats has confirmed that this member still leads. They are collected,
        so that thousands of holders do not mean thousands of rounds."""
        if not self._to_confirm or now < self._confirm_at:
            return ()
        self._confirm_at = now + CONFIRM_NS
        asked, self._to_confirm = tuple(self._to_confirm.values()), {}
        return asked

    def confirmed(self, requests: Iterable[Asked]) -> None:
        for asked in requests:
            zone = self._of.get(asked.id)
            if zone is not None and not zone.holders[asked.id].gone:
                zone.holders[asked.id].confirmed = asked
                self._unanswered.add(asked.id)

    def give(self, machine: Machine, now: int) -> list[CacheGiven]:
        """The leases to give now."""
        given: list[CacheGiven] = []
        for id in sorted(self._unanswered):
            zone = self._of[id]
            if zone.closed_until <= now:
                zone.closed_until = 0
            if not zone.pinned and machine.applied_index >= zone.changing and not zone.closed_until:
                self._unanswered.discard(id)
                given += self._give(zone.holders[id], machine.space.revision, now)
        return given

    def _give(self, holder: _Holder, revision: int, now: int) -> list[CacheGiven]:
        asked = holder.confirmed
        if holder.acknowledged < holder.invalidations or asked.at + self._lease_ns <= now:
            return []  # it will ask again
        holder.revision = holder.revision or revision
        holder.until = asked.at + self._drifted_ns
        lease_ms = self._lease_ns // 1_000_000
        return [CacheGiven(holder.id, asked.number, lease_ms, holder.revision, holder.invalidations)]

    # ---- what is seen of it --------------------------------------------------------------------------------

    @property
    def deadline(self) -> int | None:
        """When `released`, `to_confirm` or `give` has something to do, at the latest."""
        times = [zone.ends for zone in self._all_zones() if zone.prefix in self._blocked]
        times += [self._of[id].closed_until for id in self._unanswered if self._of[id].closed_until]
        if self._to_confirm:
            times.append(self._confirm_at)
        return min(times, default=None)

    def holders(self, now: int) -> int:
        """How many clients hold a lease."""
        return sum(holder.until > now for zone in self._by_prefix.values() for holder in zone.holders.values())


def _declares(entry: Entry) -> bool:
    if not entry.data:
        return False
    decoded = entry.decoded
    command = decoded if isinstance(decoded, raft_pb2.Command) else raft_pb2.Command.FromString(entry.data)
    return command.HasField("cachable")
