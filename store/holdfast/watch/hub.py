"""Delivers changes to watchers. Pure: the driver feeds in applied changes and carries deliveries to the streams.

A watcher has one number, `next`: the first revision that it was not sent. If that is the next revision to come, it is
*synced* and gets changes as they are applied; otherwise it catches up from history, in slices. A stream whose client
reads too slowly gets nothing until it can take more, and then its watchers catch up, so a slow client costs no memory
and delays nothing. Watchers beyond those that fit in a turn of the loop catch up, too: ten thousand watchers of one key
are served in many short turns, with several changes at once if those come faster. If finding the watchers of a turn's
changes takes too long, all watchers read these from history. Progress goes through the same queue as events, so it
never overtakes one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

from holdfast.kv.rows import Change
from holdfast.kv.space import KeySpace
from holdfast.watch.interest import Interest, Ref
from holdfast.watch.slice import Slice
from holdfast.watch.watcher import Watcher

CATCH_UP_WATCHERS = 256  # per turn
CATCH_UP_CHANGES = 1000  # read, and as many sent, per turn; a KiB counts as one; the last slice may exceed it
CATCH_UP_READS = 256  # changes read per turn: some 5 ms
LIVE_WATCHERS = 512  # deliveries in the turn in which changes are applied
LIVE_LOOKS = 8192  # watchers examined for the changes of a turn


@dataclass(slots=True)
class Events:
    """Whole revisions for one watcher, in order. `revision` is the key space's when this was made."""

    stream: int
    watcher: Watcher
    changes: list[Change]
    revision: int


@dataclass(slots=True)
class Compacted:
    """The watcher needs history that is compacted, and was cancelled."""

    stream: int
    watcher: Watcher
    compacted: int


@dataclass(slots=True)
class Progress:
    """Every change up to `revision` was sent to the watcher, or (watcher None) to all watchers of the stream."""

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
    parked: dict[Ref, None] = field(default_factory=dict)  # watchers that are behind, while the stream is blocked
    ahead: dict[int, None] = field(default_factory=dict)  # watchers that began at a future revision


def _cost(changes: list[Change]) -> int:
    return len(changes) + (sum(len(change.kv) + len(change.previous or b"") for change in changes) >> 10)


class Hub:
    """All watchers of one server: sends them changes as they are applied, or from history."""

    def __init__(self, space: KeySpace) -> None:
        self._space = space
        self._streams: dict[int, _Stream] = {}
        self._interest = Interest()
        self._behind: dict[int, int] = {}  # stream -> number of watchers that are behind
        self._reading: Slice | None = None  # the slice of the first of these, while not all of it is read
        self._ready: dict[Ref, None] = {}  # behind, on streams that are not blocked; the next to serve first
        self.events = 0  # sent to watchers so far

    @property
    def busy(self) -> bool:
        """Whether `catch_up` has something to do."""
        return bool(self._ready)

    @property
    def behind(self) -> int:
        """Number of watchers that are behind."""
        return sum(self._behind.values())

    @property
    def streams(self) -> int:
        return len(self._streams)

    @property
    def watchers(self) -> int:
        return len(self._interest)

    def replace_space(self, space: KeySpace) -> None:
        """A snapshot replaced the state: all watchers continue from their `next`, with the history of the new one."""
        told = self._space.revision
        self._space, self._reading = space, None
        for stream in self._streams.values():
            for watcher in stream.watchers.values():
                ref = (stream.id, watcher.id)
                if not self._is_behind(stream, ref):
                    watcher.next = max(watcher.next, told + 1)
                    if watcher.next <= space.revision:
                        self._fall_behind(stream, ref)

    def begin_anew(self, space: KeySpace) -> None:
        """A snapshot of another history replaced the state, whose revisions mean other changes: no watcher can
        continue, and all are told that what they need is compacted."""
        self._space, self._reading = space, None
        for stream in self._streams.values():
            stream.ahead.clear()
            for watcher in stream.watchers.values():
                ref = (stream.id, watcher.id)
                watcher.next = 0
                if not self._is_behind(stream, ref):
                    self._fall_behind(stream, ref)

    # ---- streams and watchers ------------------------------------------------------------------------------

    def open(self, stream: int) -> None:
        self._streams[stream] = _Stream(stream)

    def close(self, stream: int) -> None:
        gone = self._streams.pop(stream, None)
        if gone is not None:
            for watcher in gone.watchers.values():
                self._unlink(gone, watcher)

    def new_id(self, stream: int) -> int:
        """An id for a watcher that is not in use on the stream, and that this never returned before."""
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
        """Begin to watch at revision `watcher.next`; 0 means the next revision."""
        state = self._streams[stream]
        if watcher.next == 0:
            watcher.next = self._space.revision + 1
        state.watchers[watcher.id] = watcher
        self._interest.add((stream, watcher.id), watcher.ranges)
        if watcher.next <= self._space.revision:
            self._fall_behind(state, (stream, watcher.id))
        elif watcher.next > self._space.revision + 1:
            state.ahead[watcher.id] = None

    def cancel(self, stream: int, watcher: int) -> bool:
        state = self._streams.get(stream)
        gone = state.watchers.pop(watcher, None) if state else None
        if state is not None and gone is not None:
            state.ahead.pop(watcher, None)
            self._unlink(state, gone)
        return gone is not None

    def _unlink(self, stream: _Stream, watcher: Watcher) -> None:
        ref = (stream.id, watcher.id)
        if self._is_behind(stream, ref):
            self._ready.pop(ref, None)
            stream.parked.pop(ref, None)
            self._not_behind(stream)
            if not self._ready:
                self._reading = None  # for nobody
        self._interest.remove(ref, watcher.ranges)

    def _is_behind(self, stream: _Stream, ref: Ref) -> bool:
        return ref in self._ready or ref in stream.parked

    def _fall_behind(self, stream: _Stream, ref: Ref) -> None:
        self._behind[stream.id] = self._behind.get(stream.id, 0) + 1
        (stream.parked if stream.blocked else self._ready)[ref] = None

    def _not_behind(self, stream: _Stream) -> None:
        """One watcher of this stream is not behind any more."""
        self._behind[stream.id] -= 1
        if not self._behind[stream.id]:
            del self._behind[stream.id]

    def _all_fall_behind(self, revision: int) -> None:
        """All watchers that were not sent `revision` read it, and the later ones, from history."""
        for stream in self._streams.values():
            if self._behind.get(stream.id, 0) == len(stream.watchers):
                continue
            for watcher in stream.watchers.values():
                ref = (stream.id, watcher.id)
                if watcher.next <= self._space.revision and not self._is_behind(stream, ref):
                    watcher.next = max(watcher.next, revision)
                    self._fall_behind(stream, ref)

    def block(self, stream: int) -> None:
        """The client reads too slowly: send nothing on the stream until `unblock`."""
        state = self._streams.get(stream)
        if state is not None and not state.blocked:
            state.blocked = True
            if stream in self._behind:
                refs = ((stream, watcher) for watcher in state.watchers)
                state.parked = {ref: None for ref in refs if ref in self._ready}
                for ref in state.parked:
                    del self._ready[ref]

    def unblock(self, stream: int) -> None:
        state = self._streams.get(stream)
        if state is not None:
            state.blocked = False
            self._ready.update(state.parked)
            state.parked = {}

    # ---- deliveries ----------------------------------------------------------------------------------------

    def publish(self, revisions: Iterable[list[Change]]) -> list[Delivery]:
        """Deliver these applied revisions, which are consecutive and in order."""
        out: list[Delivery] = []
        looks = LIVE_LOOKS
        for changes in revisions:
            revision = changes[0].revision
            found: dict[Ref, list[Change]] = {}
            for change in changes:
                for ref in islice(self._interest.of(change.key), looks + 1):
                    looks -= 1
                    known = found.setdefault(ref, [])
                    if not known or known[-1] is not change:  # several ranges of one watcher may cover the key
                        known.append(change)
            if looks < 0:
                self._all_fall_behind(revision)
                break
            for ref in sorted(found):
                self._deliver(ref, revision, found[ref], out)
        return out

    def _deliver(self, ref: Ref, revision: int, changes: list[Change], out: list[Delivery]) -> None:
        stream = self._streams[ref[0]]
        watcher = stream.watchers[ref[1]]
        if watcher.next > revision:
            return
        if self._is_behind(stream, ref):
            return  # it will read this from history
        if stream.blocked or len(out) >= LIVE_WATCHERS:
            watcher.next = revision  # it was sent everything before
            self._fall_behind(stream, ref)
            return
        watcher.next = revision + 1
        wanted = [c for c in changes if watcher.wants(c)]
        if wanted:
            watcher.told = True
            self.events += len(wanted)
            out.append(Events(stream.id, watcher, wanted, revision))

    def catch_up(self) -> list[Delivery]:
        """Send the next slice of history to watchers that are behind."""
        out: list[Delivery] = []
        refs = list(islice(self._ready, CATCH_UP_WATCHERS))
        space = self._space
        slices: dict[int, Slice] = {}  # watchers that fell behind together need the same one: read it only once
        read = sent = rows = 0
        for ref in refs:
            if sent > CATCH_UP_CHANGES:
                break
            stream = self._streams[ref[0]]
            watcher = stream.watchers[ref[1]]
            if watcher.next < space.history_from:
                self.cancel(*ref)
                out.append(Compacted(ref[0], watcher, space.history_from))
                continue
            slice_ = slices.get(watcher.next)
            if slice_ is None:
                if rows >= CATCH_UP_READS or read >= CATCH_UP_CHANGES:
                    continue  # it stays in front, for the next turn
                slice_ = self._read(watcher.next, CATCH_UP_READS - rows)
                read, rows = read + slice_.cost, rows + slice_.changes
                if slice_ is self._reading:
                    rows = CATCH_UP_READS
                    continue
                slices[watcher.next] = slice_
            before = slice_.cost
            wanted, watcher.next = slice_.take(watcher)
            read += slice_.cost - before
            sent += 1 + _cost(wanted)
            if watcher.next > space.revision:
                del self._ready[ref]
                self._not_behind(stream)
            else:
                self._ready[ref] = self._ready.pop(ref)  # behind the others
            if wanted:
                watcher.told = True
                self.events += len(wanted)
                out.append(Events(ref[0], watcher, wanted, space.revision))
        return out

    def _read(self, start: int, most: int) -> Slice:
        """Read so many changes of the slice that begins with `start`. It is `self._reading` if there are more."""
        before, self._reading = self._reading, None
        slice_ = before if before is not None and before.start == start else Slice(self._space, start)
        if not slice_.advance(most):
            self._reading = slice_
        return slice_

    def progress(self, stream: int) -> Progress | None:
        """Progress of all watchers of the stream; None if it is blocked, or one is behind or begins in the future."""
        state = self._streams.get(stream)
        revision = self._space.revision
        if state is None or not state.watchers or state.blocked or stream in self._behind:
            return None
        while state.ahead:
            first = next(iter(state.ahead))
            if state.watchers[first].next > revision + 1:
                return None
            del state.ahead[first]
        return Progress(stream, None, revision)

    def tick(self) -> list[Delivery]:
        """The progress interval has passed: send progress to watchers that asked for it and got nothing meanwhile."""
        out: list[Delivery] = []
        revision = self._space.revision
        for stream in self._streams.values():
            for watcher in stream.watchers.values():
                synced = not self._is_behind(stream, (stream.id, watcher.id)) and watcher.next <= revision + 1
                if watcher.progress and not watcher.told and synced and not stream.blocked:
                    out.append(Progress(stream.id, watcher, revision))
                watcher.told = False
        return out
