"""Linearizability: could a single store that does one operation after the other have given the clients' answers?

In the style of Wing, Gong and Lowe: look for an order of all operations that respects real time and in which every
answer is correct. Revisions make the search short. An answer says which revision its operation made or saw, so its
place is known, except for its order among others at the same revision. It remains to find which operation of *unknown*
outcome (or expiry of a lease) made each revision that no answer named. There the search branches and backtracks.
Therefore an answer with a wrong revision counts as a violation, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from holdfast_lab.sim.operations import Kind, Operation, Outcome, State, Version, effect
from holdfast_lab.sim.violation import Violation

MAX_STEPS = 2_000_000  # one history of 20,000 seeds, with many unknown outcomes, took 750,107
BROKEN_STEPS = 20_000  # where a rule is broken, there may be no order to find
_most_steps = MAX_STEPS

Hint = Callable[[int], dict[bytes, bytes | None]]  # revision -> new values of the keys; None: it deleted the key

_KNOWN = (Kind.PUT, Kind.SEQUENTIAL, Kind.DELETE, Kind.CAS, Kind.GET, Kind.REVOKE)
_UNKNOWN = (Kind.PUT, Kind.SEQUENTIAL, Kind.DELETE, Kind.CAS, Kind.REVOKE, Kind.EXPIRE)


@contextmanager
def limited(steps: int) -> Iterator[None]:
    """Give up the search after so many steps, until the block is left."""
    global _most_steps  # noqa: PLW0603 - it is set for a whole run, far above the search
    before, _most_steps = _most_steps, steps
    try:
        yield
    finally:
        _most_steps = before


def check_history(operations: Iterable[Operation], hint: Hint = lambda _: {}) -> int:
    """Raise a Violation of I10 if there is no such order. Returns how often the search branched.

    `hint` says what the log did at a revision. The search tries that first, but never relies on it.
    """
    history = list(operations)
    known = [o for o in history if o.outcome is Outcome.DONE and o.kind in _KNOWN]
    known.sort(key=lambda o: (o.revision, not _wrote(o), o.invoked))
    maybe = [o for o in history if o.outcome in (Outcome.UNKNOWN, Outcome.OPEN) and o.kind in _UNKNOWN]
    return _Search(known, maybe, hint).run()


def _wrote(operation: Operation) -> bool:
    """Whether the answer says that the operation made a revision. (The answer to a revocation does not.)"""
    if operation.kind in (Kind.PUT, Kind.SEQUENTIAL):
        return True
    if operation.kind is Kind.DELETE:
        return bool(operation.result)
    return operation.kind is Kind.CAS and bool(operation.result[0])


class _Search:
    def __init__(self, known: list[Operation], maybe: list[Operation], hint: Hint) -> None:
        self._known = known
        self._maybe = maybe
        self._revocations: dict[int, list[Operation]] = {}  # a revocation may be what made its revision
        for operation in known:
            if operation.kind is Kind.REVOKE:
                self._revocations.setdefault(operation.revision, []).append(operation)
        self._hint = hint
        self._failed: set[tuple[int, int, frozenset[int], frozenset[tuple[bytes, Version]]]] = set()
        self._forks = self._steps = 0
        self._deepest: tuple[int, str] = (-1, "")

    def run(self) -> int:
        if not self._place(0, 1, {}, 0, frozenset()):
            at, why = self._deepest
            before = "\n".join(f"  {o!r}" for o in self._known[max(0, at - 6) : at])
            raise Violation("I10", f"the history is not linearizable: {why}\nafter\n{before}")
        return self._forks

    def _place(self, at: int, revision: int, state: State, latest: int, used: frozenset[int]) -> bool:
        """Place known operations from `at` on; `latest` is the latest invocation among those placed."""
        while at < len(self._known):
            operation = self._known[at]
            if operation.id in used:  # a revocation that was needed to make a revision
                at += 1
                continue
            if operation.returned < latest:
                return self._fail(at, f"{operation!r} was over before something that comes before it began")
            makes = _wrote(operation)
            if revision < operation.revision - makes:
                return self._fill(at, revision, state, latest, used)
            if revision != operation.revision - makes:
                return self._fail(at, f"{operation!r} has a revision that is taken ({revision} is reached)")
            after, told = effect(operation, state, revision + 1)
            if (after is not None) != makes or (operation.kind is not Kind.REVOKE and told != operation.result):
                return self._fail(at, f"{operation!r} should have been told {told}")
            if after is not None:
                state, revision = after, revision + 1
            latest = max(latest, operation.invoked)
            at += 1
        return True

    def _fill(self, at: int, revision: int, state: State, latest: int, used: frozenset[int]) -> bool:
        """No answer named the next revision: find the operation that may have made it."""
        key = (at, revision, used, frozenset(state.items()))
        if key in self._failed:
            return False
        self._steps += 1
        if self._steps > _most_steps:
            raise Violation("I10", f"no order found in {_most_steps} steps, up to {self._known[at]!r}")
        nearest = self._known[at].returned
        found = [o for o in self._maybe if o.id not in used and o.invoked <= nearest]
        found += [o for o in self._revocations.get(revision + 1, ()) if o.id not in used and o.invoked <= nearest]
        right = self._hint(revision + 1)
        forks: list[tuple[bool, int, Operation, State]] = []
        for operation in found:
            after, _ = effect(operation, state, revision + 1)
            if after is not None and operation.returned >= latest:
                forks.append((_changes(state, after) != right, operation.invoked, operation, after))
        forks.sort(key=lambda fork: fork[:2])
        self._forks += len(forks) > 1
        for _, _, operation, after in forks:
            if self._place(at, revision + 1, after, max(latest, operation.invoked), used | {operation.id}):
                return True
        self._failed.add(key)
        return self._fail(at, f"nothing can have made revision {revision + 1}, which {self._known[at]!r} comes after")

    def _fail(self, at: int, why: str) -> bool:
        if at > self._deepest[0]:
            self._deepest = (at, why)
        return False


def _changes(before: State, after: State) -> dict[bytes, bytes | None]:
    changed = {key: version[0] for key, version in after.items() if before.get(key) != version}
    return {**changed, **{key: None for key in before if key not in after}}
