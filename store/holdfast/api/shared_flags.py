"""A set of flags that is served: read once, kept current by the watch hub, and shared by all who ask for it.

An application that starts sends a selector; a thousand of them usually send the same one. So a set costs one read and
one watcher, however many streams it has. Changes that come together are taken together: the document is made anew at
most every COALESCE_SECONDS, and less often if sending it to all takes longer. A set parses only when the queue that it
shares with all other sets gives it a turn (`flag_parsing`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable, Iterator
from typing import NamedTuple, Protocol

from holdfast.api.flag_parsing import ParsingTurns
from holdfast.flags.flag_set import MAX_KEYS, MAX_TEXT_BYTES, Definitions, FlagSet, told
from holdfast.flags.selector import Selector
from holdfast.kv.rows import DELETE, Change
from holdfast.kv.scan import RangeScan
from holdfast.kv.space import KeySpace
from holdfast.proto import kv_pb2, rpc_pb2
from holdfast.served.scans import Failed, S
from holdfast.status import Code, Refusal, RequestError
from holdfast.watch.hub import Compacted, Delivery, Events, Hub
from holdfast.watch.watcher import Watcher

log = logging.getLogger("holdfast.flags")

COALESCE_SECONDS = 0.05
SENT_BYTES_PER_SECOND = 32 << 20  # documents of one set, to all of its streams
MAX_PAUSE_SECONDS = 5.0  # between two documents, however large and to however many
MAX_WAITING_BYTES = 2 * MAX_TEXT_BYTES  # of changes that are not parsed yet
MAKING_COST = 1024  # of a document, in addition to a sixteenth of its bytes: they are only joined
IDLE_SECONDS = 60.0  # a set that nobody uses is forgotten after this time
MAX_LINES = 5  # of the log, for one document

TOO_LARGE = Refusal(
    Code.RESOURCE_EXHAUSTED,
    f"holdfast: the flags of this selector are more than {MAX_KEYS} keys or {MAX_TEXT_BYTES} bytes; choose a narrower "
    "one",
)
TOO_MANY = Refusal(
    Code.RESOURCE_EXHAUSTED, "holdfast: this server serves too many sets of flags already; ask another one"
)


class Position(NamedTuple):
    """Where a server's data stands. `staleness`: the replica's bound in seconds, None if it is unknown; a member has
    none."""

    revision: int
    replica: bool = False
    staleness: float | None = None


class FlagSource(Protocol):
    """The key space that flags are read from: a member's or a replica's."""

    @property
    def hub(self) -> Hub: ...

    @property
    def space(self) -> KeySpace: ...

    def position(self) -> Position: ...

    def poke(self) -> None:
        """Wake the driver: the hub has work to do."""
        ...

    def scan(
        self, begin: Callable[[], S], done: Callable[[S], None], failed: Failed, owner: Hashable
    ) -> Callable[[], None] | None:
        """See `Scans.run`."""
        ...


class Fresh(NamedTuple):
    """The source's position at a time when a set had everything that the source had."""

    position: Position
    at: float

    @property
    def now(self) -> Position:
        """The position of what was read then: its bound has grown since."""
        staleness = self.position.staleness
        return self.position if staleness is None else self.position._replace(staleness=staleness + _now() - self.at)


class Document(NamedTuple):
    """A set as it is sent. `number` grows with each document of its set."""

    number: int
    definitions: Definitions
    text: bytes
    left_out: int
    fresh: Fresh


class User(Protocol):
    """Gets the documents of a set. After `flags_failed` it gets nothing more."""

    def flags_changed(self) -> None: ...

    def flags_failed(self, refusal: Refusal) -> None: ...


class SharedSet:
    """The flags of one selector. States: reading; current, with a `document`; closed, with a `failure` if it failed.
    Implements `flag_parsing.Work`."""

    def __init__(
        self,
        selector: Selector,
        source: FlagSource,
        owner: Hashable,
        stream: int,
        parsing: ParsingTurns,
        *,
        crowded: Callable[[], bool],
        ended: Callable[[SharedSet], None],
        drop: Callable[[SharedSet], None],
    ) -> None:
        """`owner`: the connection that asked first. `stream`: its number in the hub. `crowded` says whether all sets
        together take too much memory; `ended` is called when this one has failed, `drop` when nobody uses it."""
        self.selector = selector
        self.source = source
        self.owner = owner
        self.stream = stream
        self._parsing = parsing
        self._crowded = crowded
        self._ended = ended
        self._drop = drop
        self._flags = FlagSet(selector)
        self._users: dict[User, None] = {}
        self.document: Document | None = None
        self.failure: Refusal | None = None
        self.idle_since = time.monotonic()  # the last user left then, or it failed then
        self.closed = False
        self._hub = source.hub
        self._hub.open(self.stream)
        self._cancel_scan: Callable[[], None] | None = None
        self._reads = 0  # started so far: an older one that still ends is ignored
        self._revision = 0  # up to which changes were received
        self._fresh = Fresh(source.position(), _now())
        self._waiting: dict[bytes, bytes | None] = {}  # changed keys, not taken yet
        self._waiting_bytes = 0
        self._taking: Iterator[int] | None = None
        self._queued = False  # for parsing
        self._build: asyncio.TimerHandle | None = None
        self._built_at = 0.0

    @property
    def size(self) -> int:
        """About how many bytes this takes in memory."""
        text = len(self.document.text) if self.document is not None else 0
        return self._flags.size + self._waiting_bytes + text

    @property
    def users(self) -> int:
        return len(self._users)

    @property
    def position(self) -> Position:
        """Where the document stands. While changes wait, it grows older."""
        settled = self._build is None and not self._queued and self._cancel_scan is None
        progress = self._hub.progress(self.stream) if settled else None
        if progress is not None:
            return self.source.position()._replace(revision=progress.revision)
        assert self.document is not None
        return self.document.fresh.now

    def use(self, user: User) -> None:
        """Tell `user` of each new document, and of the current one if there is one."""
        if self.failure is not None:
            user.flags_failed(self.failure)
            return
        self._users[user] = None
        if self.document is not None:
            user.flags_changed()

    def leave(self, user: User) -> None:
        self._users.pop(user, None)
        if not self._users:
            self.idle_since = time.monotonic()

    # ---- reading -------------------------------------------------------------------------------------------

    def read(self) -> None:
        """Read all of it, and watch from there on. Raises RequestError."""
        self._reads += 1
        number, selector, begun = self._reads, self.selector, self._fresh
        self._waiting.clear()
        self._waiting_bytes = 0
        request = rpc_pb2.RangeRequest(key=selector.key, range_end=selector.range_end, limit=MAX_KEYS + 1)

        def begin() -> _Bounded:
            nonlocal begun
            begun = Fresh(self.source.position()._replace(revision=self.source.space.revision), _now())
            return _Bounded(self.source.space.scan(request))

        def done(scan: _Bounded) -> None:
            if number == self._reads and not self.closed:
                self._cancel_scan = None
                self._begin_at(begun, scan.found)

        def failed(refusal: Refusal) -> None:
            if number == self._reads:
                self.fail(refusal)

        self._cancel_scan = self.source.scan(begin, done, failed, self.stream)

    def _begin_at(self, begun: Fresh, kvs: list[bytes]) -> None:
        self._flags = FlagSet(self.selector)
        self._fresh, self._revision = begun, begun.position.revision
        watcher = Watcher(self._hub.new_id(self.stream), (self.selector.bounds,), self._revision + 1)
        self._hub.add(self.stream, watcher)
        self.source.poke()
        for data in kvs:
            kv = kv_pb2.KeyValue.FromString(data)
            self._wait(kv.key, kv.value)
        self._queue()

    def deliver(self, delivery: Delivery) -> None:
        if isinstance(delivery, Events):
            self._revision = delivery.revision
            self._take(delivery.changes)
        elif isinstance(delivery, Compacted):
            self.read_again()

    def read_again(self) -> None:
        """The history that this set needs is gone: read all of it anew. Until then the document stays as it is."""
        self._stop()
        for watcher in self._hub.watchers_of(self.stream):
            self._hub.cancel(self.stream, watcher.id)
        try:
            self.read()
        except RequestError as error:
            self.fail(error.refusal)

    def _take(self, changes: list[Change]) -> None:
        for change in changes:
            self._wait(change.key, None if change.type == DELETE else kv_pb2.KeyValue.FromString(change.kv).value)
        if not self._users and time.monotonic() > self.idle_since + IDLE_SECONDS:
            self._drop(self)  # nobody has asked for long: what changes costs nothing any more
        elif self._waiting_bytes > MAX_WAITING_BYTES:
            self.fail(TOO_LARGE)
        elif not self._queued and self._build is None:
            self._build_later()

    def _wait(self, key: bytes, value: bytes | None) -> None:
        self._unwait(key)
        self._waiting[key] = value
        self._waiting_bytes += len(key) + len(value or b"")

    def _unwait(self, key: bytes) -> bytes | None:
        if key not in self._waiting:
            return None
        value = self._waiting.pop(key)
        self._waiting_bytes -= len(key) + len(value or b"")
        return value

    # ---- in turns ------------------------------------------------------------------------------------------

    def _build_later(self) -> None:
        size = len(self.document.text) if self.document is not None else 0
        pause = min(MAX_PAUSE_SECONDS, size * len(self._users) / SENT_BYTES_PER_SECOND)
        at = max(COALESCE_SECONDS, self._built_at + pause - time.monotonic())
        self._build = asyncio.get_running_loop().call_later(at, self._queue)

    def _queue(self) -> None:
        self._build = None
        self._queued = True
        self._parsing.add(self.owner, self.stream, self)

    def advance(self, budget: int) -> int:
        """Take what waits, then make the document. See `flag_parsing.Work`."""
        self._queued = False
        spent = 0
        while spent < budget:
            if self._taking is None:
                if not self._waiting:
                    spent += MAKING_COST + (self._flags.size >> 4)
                    self._finish()
                    return spent
                key = next(iter(self._waiting))
                self._taking = self._flags.take(key, self._unwait(key))
            cost = next(self._taking, None)
            if cost is None:
                self._taking = None
            else:
                spent += cost
        if self._flags.too_large:
            self.fail(TOO_LARGE)
        elif self._crowded():
            self.fail(TOO_MANY)
        else:
            self._queue()
        return spent

    def _finish(self) -> None:
        flags = self._flags
        if flags.too_large:
            self.fail(TOO_LARGE)
            return
        self._log()
        if flags.broken:
            self.fail(
                Refusal(
                    Code.FAILED_PRECONDITION,
                    f"holdfast: the value of {self.selector} is no flagd document: {flags.broken}",
                )
            )
            return
        before, self._built_at = self.document, time.monotonic()
        progress = self._hub.progress(self.stream)
        if progress is not None:
            self._revision = progress.revision
            self._fresh = Fresh(self.source.position(), _now())
        fresh = self._fresh._replace(position=self._fresh.position._replace(revision=self._revision))
        definitions, left_out = flags.definitions(), len(flags.left_out)
        text = definitions.text()
        same = before is not None and (before.text, before.left_out) == (text, left_out)
        number = 1 if before is None else before.number + (not same)
        self.document = Document(number, definitions, text, left_out, fresh)
        if not same:
            for user in list(self._users):
                user.flags_changed()

    def _log(self) -> None:
        """Say what is left out, once for each revision of it."""
        for line in told(self._flags.newly_left_out(), MAX_LINES):
            log.warning("flags of %s at revision %d: left out %s", self.selector, self._revision, line)

    # ---- the end -------------------------------------------------------------------------------------------

    def fail(self, refusal: Refusal) -> None:
        """End, and tell all users why."""
        if self.closed:
            return
        log.warning("flags of %s at revision %d: %s", self.selector, self._revision, refusal.message)
        users = list(self._users)
        self.failure, self.idle_since = refusal, time.monotonic()
        self._ended(self)
        for user in users:
            user.flags_failed(refusal)

    def close(self) -> None:
        self.closed = True
        self._stop()
        self._hub.close(self.stream)
        self._users.clear()
        self._flags, self.document = FlagSet(self.selector), None

    def _stop(self) -> None:
        """Stop what is under way."""
        self._reads += 1
        if self._build is not None:
            self._build.cancel()
        self._parsing.remove(self.owner, self.stream)
        self._queued = False
        self._build = self._taking = None
        if self._cancel_scan is not None:
            self._cancel_scan()
            self._cancel_scan = None


class _Bounded:
    """A scan that fails if it finds too much: a selector may name any prefix."""

    def __init__(self, scan: RangeScan) -> None:
        self._scan = scan
        self._counted = self._bytes = 0
        self.floor = scan.floor

    @property
    def found(self) -> list[bytes]:
        return self._scan.found

    @property
    def held(self) -> int:
        return self._scan.held

    def close(self) -> None:
        self._scan.close()

    def advance(self, budget: int) -> int:
        left = self._scan.advance(budget)
        found = self._scan.found
        self._bytes += sum(map(len, found[self._counted :]))
        self._counted = len(found)
        if self._bytes > MAX_TEXT_BYTES or self._counted > MAX_KEYS:
            raise RequestError(TOO_LARGE)
        return left


def _now() -> float:
    """A clock that also runs while the machine is suspended, as that of a replica's bound does."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
