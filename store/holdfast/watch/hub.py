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

from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from itertools import islice

from holdfast.kv.rows import Change
from holdfast.kv.space import KeySpace
from holdfast.watch.interest import Interest, Ref
from holdfast.watch.slice import Slice
from holdfast.watch.turns import Stream, Turns
from holdfast.watch.watcher import Watcher

__all__ = ["Compacted", "Delivery", "Events", "Hub", "Progress", "Watcher"]

CATCH_UP_WATCHERS = 256  # deliveries per turn
CATCH_UP_LOOKS = 2048  # watchers examined per turn, about; most want nothing of a slice
CATCH_UP_READ = 1000  # changes read from history per turn; a KiB counts as one; the last may exceed it
CATCH_UP_CHANGES = 2000  # looked at and sent per turn; a KiB counts as one; the last slice may exceed it
SLICES_KEPT = 8  # between turns, for watchers at the same place that come later
CLOSING_WATCHERS = 2000  # forgotten per turn, of a stream that was closed
LIVE_WATCHERS = 512  # deliveries in the turn in which changes are applied
LIVE_BYTES = 8 << 20  # delivered in that turn; the last delivery may exceed it
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


class Hub:
    """All watchers of one server: sends them changes as they are applied, or from history."""

    def __init__(self, space: KeySpace) -> None:
        self._space = space
        self._streams: dict[int, Stream] = {}
        self._interest = Interest()
        self._turns = Turns()
        self._slices: deque[Slice] = deque(maxlen=SLICES_KEPT)  # the newest first
        self._reading: Slice | None = None  # the slice that is being read, over several turns
        self._closing: dict[int, Stream] = {}  # closed, with watchers that are still in `_interest`
        self._live_bytes = 0  # delivered by the running `publish`
        self.events = 0  # sent to watchers so far

    @property
    def busy(self) -> bool:
        """Whether `catch_up` has something to do."""
        return bool(self._turns or self._closing)

    @property
    def behind(self) -> int:
        """Number of watchers that are behind."""
        return sum(len(stream.behind) for stream in self._streams.values())

    @property
    def streams(self) -> int:
        return len(self._streams)

    @property
    def watchers(self) -> int:
        return len(self._interest)

    def replace_space(self, space: KeySpace) -> None:
        """A snapshot replaced the state: all watchers continue from their `next`, with the history of the new one."""
        told = self._space.revision
        self._space = space
        self._forget_slices()
        for stream in self._streams.values():
            for watcher in stream.watchers.values():
                if watcher.id not in stream.behind:
                    watcher.next = max(watcher.next, told + 1)
                if watcher.next <= space.revision:
                    stream.behind.setdefault(watcher.id, watcher)
                else:
                    stream.behind.pop(watcher.id, None)
            self._turns.update(stream)

    # ---- streams and watchers ------------------------------------------------------------------------------

    def open(self, stream: int, client: Hashable = None) -> None:
        """`client`: what the streams of one client, such as a connection, have in common; None: a client of its own."""
        self._forget(stream)
        self._streams[stream] = Stream(stream, (stream,) if client is None else client)

    def close(self, stream: int) -> None:
        """Send nothing more on the stream. `catch_up` forgets its watchers, if there are many."""
        gone = self._streams.pop(stream, None)
        if gone is not None:
            self._turns.remove(gone)
            self._closing[stream] = gone
            self._forget(stream, CLOSING_WATCHERS)

    def _forget(self, stream: int, most: int | None = None) -> int:
        """Forget so many watchers of a closed stream, or all. Returns how many."""
        gone = self._closing.get(stream)
        if gone is None:
            return 0
        watchers = list(islice(gone.watchers.values(), most))
        for watcher in watchers:
            del gone.watchers[watcher.id]
            self._interest.remove((stream, watcher.id), watcher.ranges)
        if not gone.watchers:
            del self._closing[stream]
        return len(watchers)

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
            self._fall_behind(state, watcher)
        elif watcher.next > self._space.revision + 1:
            state.ahead[watcher.id] = None

    def cancel(self, stream: int, watcher: int) -> bool:
        state = self._streams.get(stream)
        gone = state.watchers.pop(watcher, None) if state else None
        if state is not None and gone is not None:
            state.ahead.pop(watcher, None)
            self._not_behind(state, gone)
            self._interest.remove((stream, watcher), gone.ranges)
        return gone is not None

    def _fall_behind(self, stream: Stream, watcher: Watcher) -> None:
        stream.behind[watcher.id] = watcher
        self._turns.update(stream)

    def _not_behind(self, stream: Stream, watcher: Watcher) -> None:
        if stream.behind.pop(watcher.id, None) is not None:
            self._turns.update(stream)

    def _all_fall_behind(self, revision: int) -> None:
        """All watchers that were not sent `revision` read it, and the later ones, from history."""
        for stream in self._streams.values():
            if len(stream.behind) == len(stream.watchers):
                continue
            for watcher in stream.watchers.values():
                if watcher.next <= self._space.revision and watcher.id not in stream.behind:
                    watcher.next = max(watcher.next, revision)
                    stream.behind[watcher.id] = watcher
            self._turns.update(stream)

    def block(self, stream: int) -> None:
        """The client reads too slowly: send nothing on the stream until `unblock`."""
        self._set_blocked(stream, True)

    def unblock(self, stream: int) -> None:
        self._set_blocked(stream, False)

    def _set_blocked(self, stream: int, blocked: bool) -> None:
        state = self._streams.get(stream)
        if state is not None:
            state.blocked = blocked
            self._turns.update(state)

    # ---- deliveries ----------------------------------------------------------------------------------------

    def publish(self, revisions: Iterable[list[Change]]) -> list[Delivery]:
        """Deliver these applied revisions, which are consecutive and in order."""
        out: list[Delivery] = []
        looks = LIVE_LOOKS
        self._live_bytes = 0
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
        stream = self._streams.get(ref[0])
        watcher = stream.watchers.get(ref[1]) if stream is not None else None
        if stream is None or watcher is None:
            return  # its stream was closed
        if watcher.next > revision:
            return
        if watcher.id in stream.behind:
            return  # it will read this from history
        if stream.blocked or len(out) >= LIVE_WATCHERS or self._live_bytes > LIVE_BYTES:
            watcher.next = revision  # it was sent everything before
            self._fall_behind(stream, watcher)
            return
        watcher.next = revision + 1
        wanted = [c for c in changes if watcher.wants(c)]
        if wanted:
            for change in wanted:
                self._live_bytes += len(change.kv) + (len(change.previous or b"") if watcher.prev_kv else 0)
            self._send(stream, watcher, wanted, revision, out)

    def _send(
        self, stream: Stream, watcher: Watcher, changes: list[Change], revision: int, out: list[Delivery]
    ) -> None:
        watcher.told = True
        self.events += len(changes)
        out.append(Events(stream.id, watcher, changes, revision))

    def catch_up(self) -> list[Delivery]:
        """Send the next slice of history to watchers that are behind."""
        out: list[Delivery] = []
        space = self._space
        self._drop_stale_slices()
        read = spent = 0
        for stream, watcher in self._turns.window(CATCH_UP_LOOKS):
            if spent > CATCH_UP_CHANGES or len(out) >= CATCH_UP_WATCHERS:
                break
            if watcher.next < space.compacted:
                self.cancel(stream.id, watcher.id)
                out.append(Compacted(stream.id, watcher, space.compacted))
                continue
            slice_ = self._slice_of(watcher.next)
            if slice_ is None:
                if read < CATCH_UP_READ:
                    read += self._read(watcher.next, CATCH_UP_READ - read)
                    slice_ = self._slice_of(watcher.next)
                if slice_ is None:
                    continue  # it stays in front, for the next turn
            taken = slice_.take(watcher, space)
            spent += taken.cost
            watcher.next = taken.following
            self._turns.served(stream, watcher)
            if watcher.next > space.revision:
                self._not_behind(stream, watcher)
            if taken.changes:
                self._send(stream, watcher, taken.changes, space.revision, out)
        left = CLOSING_WATCHERS
        while self._closing and left > 0:
            left -= max(1, self._forget(next(iter(self._closing)), left))
        if not self._turns:
            self._forget_slices()
        return out

    def _slice_of(self, revision: int) -> Slice | None:
        """A slice that was read and has this revision."""
        for slice_ in self._slices:
            if revision in slice_:
                return slice_
        return None

    def _read(self, revision: int, budget: int) -> int:
        """Read on in the slice that is being read, or begin one at `revision`. Returns the cost."""
        slice_ = self._reading
        if slice_ is None:
            slice_ = self._reading = Slice(revision)
        cost = slice_.read(self._space, budget)
        if slice_.whole:
            self._slices.appendleft(slice_)
            self._reading = None
        return cost

    def _drop_stale_slices(self) -> None:
        """Drop slices that end where history ended when they were read, if there is more now: a watcher gets several
        revisions at once. The compacted part of a slice that is being read cannot be read any more."""
        space = self._space
        if any(slice_.last and slice_.following <= space.revision for slice_ in self._slices):
            fresh = [s for s in self._slices if not s.last or s.following > space.revision]
            self._slices = deque(fresh, SLICES_KEPT)
        if self._reading is not None and self._reading.at[0] < space.compacted:
            self._reading = None

    def _forget_slices(self) -> None:
        self._slices.clear()
        self._reading = None

    def progress(self, stream: int) -> Progress | None:
        """Progress of all watchers of the stream; None if it is blocked, or one is behind or begins in the future."""
        state = self._streams.get(stream)
        revision = self._space.revision
        if state is None or not state.watchers or state.blocked or state.behind:
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
                synced = watcher.id not in stream.behind and watcher.next <= revision + 1
                if watcher.progress and not watcher.told and synced and not stream.blocked:
                    out.append(Progress(stream.id, watcher, revision))
                watcher.told = False
        return out
