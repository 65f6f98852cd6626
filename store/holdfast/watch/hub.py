"""Who watches what, and what each is told when. Pure: the driver feeds changes in and carries messages out.

A watcher knows one number: `next`, the first revision it has not been told. If that is the next one to come, it is
*synced* and gets changes as they are applied; otherwise it catches up from history, a slice at a time. A stream whose
client reads too slowly is left alone until it can take more: its watchers then catch up, so a slow client costs no
memory and holds up nothing. Progress goes through the same queue as events, so it can never overtake one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from holdfast.kv.ranges import within
from holdfast.kv.rows import DELETE, Change
from holdfast.kv.space import Space

CATCH_UP_REVISIONS = 1000
CATCH_UP_WATCHERS = 64  # a turn


@dataclass(slots=True)
class Watcher:
    """One watch on a stream, of one or more ranges [start, end); end None = no end."""

    id: int
    ranges: tuple[tuple[bytes, bytes | None], ...]
    next: int
    prev_kv: bool = False
    no_put: bool = False
    no_delete: bool = False
    fragment: bool = False
    progress: bool = False
    told: bool = False  # something was sent since the last progress tick

    def wants(self, change: Change) -> bool:
        return self.covers(change.key) and not (self.no_delete if change.type == DELETE else self.no_put)

    def covers(self, key: bytes) -> bool:
        return any(within(key, start, end) for start, end in self.ranges)

    @property
    def single_key(self) -> bytes | None:
        start, end = self.ranges[0]
        return start if len(self.ranges) == 1 and end == start + b"\x00" else None


@dataclass(slots=True)
class Events:
    """Whole revisions for one watcher, in order. `revision` is the store's when this was made."""

    stream: int
    watcher: Watcher
    changes: list[Change]
    revision: int


@dataclass(slots=True)
class Compacted:
    """The watcher asked for history that is gone; it has been cancelled."""

    stream: int
    watcher: Watcher
    compacted: int


@dataclass(slots=True)
class Progress:
    """Every change up to `revision` has been sent: to one watcher, or (watcher None) to all of the stream."""

    stream: int
    watcher: Watcher | None
    revision: int


Delivery = Events | Compacted | Progress


@dataclass(slots=True)
class _Stream:
    id: int
    watchers: dict[int, Watcher] = field(default_factory=dict)
    blocked: bool = False
    next_id: int = 0


class Hub:
    """All watchers of one server."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._streams: dict[int, _Stream] = {}
        self._by_key: dict[bytes, set[tuple[int, int]]] = {}  # watchers of a single key: (stream, watcher)
        self._ranges: dict[tuple[int, int], Watcher] = {}
        self._behind: dict[tuple[int, int], None] = {}  # insertion-ordered
        self.events = 0  # sent to watchers so far

    @property
    def busy(self) -> bool:
        """Whether `catch_up` has something to do."""
        return any(not self._streams[stream].blocked for stream, _ in self._behind)

    @property
    def behind(self) -> int:
        """Watchers that still catch up."""
        return len(self._behind)

    @property
    def streams(self) -> int:
        return len(self._streams)

    @property
    def watchers(self) -> int:
        return len(self._ranges) + sum(len(w) for w in self._by_key.values())

    def replace_space(self, space: Space) -> None:
        """The state was replaced by a snapshot: everyone goes on from where they are, out of its history."""
        told = self._space.revision
        self._space = space
        for stream in self._streams.values():
            for watcher in stream.watchers.values():
                ref = (stream.id, watcher.id)
                if ref not in self._behind:
                    watcher.next = max(watcher.next, told + 1)
                    if watcher.next <= space.revision:
                        self._behind[ref] = None

    # ---- streams and watchers ------------------------------------------------------------------------------

    def open(self, stream: int) -> None:
        self._streams[stream] = _Stream(stream)

    def close(self, stream: int) -> None:
        gone = self._streams.pop(stream, None)
        if gone is not None:
            for watcher in gone.watchers.values():
                self._unlink(stream, watcher)

    def new_id(self, stream: int) -> int:
        """An id for a watcher that no other on the stream has, nor was ever given by this."""
        state = self._streams[stream]
        while state.next_id in state.watchers:
            state.next_id += 1
        state.next_id += 1
        return state.next_id - 1

    def watchers_of(self, stream: int) -> list[Watcher]:
        return list(self._streams[stream].watchers.values())

    def has(self, stream: int, watcher: int) -> bool:
        return watcher in self._streams[stream].watchers

    def add(self, stream: int, watcher: Watcher) -> None:
        """Begin to watch at `watcher.next`; 0 = from the next revision on."""
        state = self._streams[stream]
        if watcher.next == 0:
            watcher.next = self._space.revision + 1
        state.watchers[watcher.id] = watcher
        key = watcher.single_key
        if key is not None:
            self._by_key.setdefault(key, set()).add((stream, watcher.id))
        else:
            self._ranges[stream, watcher.id] = watcher
        if watcher.next <= self._space.revision:
            self._behind[stream, watcher.id] = None

    def cancel(self, stream: int, watcher: int) -> bool:
        state = self._streams.get(stream)
        gone = state.watchers.pop(watcher, None) if state else None
        if gone is not None:
            self._unlink(stream, gone)
        return gone is not None

    def _unlink(self, stream: int, watcher: Watcher) -> None:
        ref = (stream, watcher.id)
        self._behind.pop(ref, None)
        key = watcher.single_key
        if key is None:
            del self._ranges[ref]
        else:
            self._by_key[key].discard(ref)
            if not self._by_key[key]:
                del self._by_key[key]

    def block(self, stream: int) -> None:
        """The client does not keep up: send it nothing until `unblock`."""
        state = self._streams.get(stream)
        if state is not None:
            state.blocked = True

    def unblock(self, stream: int) -> None:
        state = self._streams.get(stream)
        if state is not None:
            state.blocked = False

    # ---- what is sent --------------------------------------------------------------------------------------

    def publish(self, revisions: Iterable[list[Change]]) -> list[Delivery]:
        """These revisions were applied, in order and next to one another."""
        out: list[Delivery] = []
        for changes in revisions:
            revision = changes[0].revision
            found: dict[tuple[int, int], list[Change]] = {}
            for change in changes:
                for ref in self._by_key.get(change.key, ()):
                    found.setdefault(ref, []).append(change)
                for ref, watcher in self._ranges.items():
                    if watcher.covers(change.key):
                        found.setdefault(ref, []).append(change)
            for ref in sorted(found):
                self._deliver(ref, revision, found[ref], out)
        return out

    def _deliver(self, ref: tuple[int, int], revision: int, changes: list[Change], out: list[Delivery]) -> None:
        stream = self._streams[ref[0]]
        watcher = stream.watchers[ref[1]]
        if watcher.next > revision:
            return
        if ref in self._behind:
            return  # it will read this from history
        if stream.blocked:
            watcher.next = revision  # it was told everything before
            self._behind[ref] = None
            return
        watcher.next = revision + 1
        wanted = [c for c in changes if watcher.wants(c)]
        if wanted:
            watcher.told = True
            self.events += len(wanted)
            out.append(Events(stream.id, watcher, wanted, revision))

    def catch_up(self) -> list[Delivery]:
        """Tell watchers that are behind some more of the past."""
        out: list[Delivery] = []
        refs = [ref for ref in self._behind if not self._streams[ref[0]].blocked][:CATCH_UP_WATCHERS]
        space = self._space
        for ref in refs:
            watcher = self._streams[ref[0]].watchers[ref[1]]
            if watcher.next < space.compacted:
                self.cancel(*ref)
                out.append(Compacted(ref[0], watcher, space.compacted))
                continue
            groups, following = space.changes_from(watcher.next, space.revision, CATCH_UP_REVISIONS)
            wanted = [c for group in groups for c in group if watcher.wants(c)]
            watcher.next = max(following, watcher.next)
            if watcher.next > space.revision:
                del self._behind[ref]
            else:
                self._behind[ref] = self._behind.pop(ref)  # the others first
            if wanted:
                watcher.told = True
                self.events += len(wanted)
                out.append(Events(ref[0], watcher, wanted, space.revision))
        return out

    def progress(self, stream: int) -> Progress | None:
        """How far all watchers of the stream are, or None if that cannot be said now."""
        state = self._streams.get(stream)
        revision = self._space.revision
        if state is None or not state.watchers or state.blocked:
            return None
        for watcher in state.watchers.values():
            if (stream, watcher.id) in self._behind or watcher.next > revision + 1:
                return None
        return Progress(stream, None, revision)

    def tick(self) -> list[Delivery]:
        """The progress interval has passed: tell those who asked and have heard nothing."""
        out: list[Delivery] = []
        revision = self._space.revision
        for stream in self._streams.values():
            for watcher in stream.watchers.values():
                synced = (stream.id, watcher.id) not in self._behind and watcher.next <= revision + 1
                if watcher.progress and not watcher.told and synced and not stream.blocked:
                    out.append(Progress(stream.id, watcher, revision))
                watcher.told = False
        return out
