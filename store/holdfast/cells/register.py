"""A register that is kept by several clusters: it can be read and changed while a minority of them is away.

    async with cells.connect({"eu": …, "us": …, "ap": …}) as them:
        primary = them.register("primary")
        await primary.change(lambda before: b"eu" if before is None else before)

A read takes one round trip to the cells if nobody changes the register meanwhile, a change takes two.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable
from dataclasses import replace

from holdfast.cells import wire
from holdfast.cells.acceptor import Acceptor, Promise, Refused, Taken
from holdfast.cells.ballot import NONE
from holdfast.cells.cell_set import CellSet
from holdfast.cells.clock import now
from holdfast.cells.errors import CellsUnavailable, each
from holdfast.cells.links import Links, OtherSet
from holdfast.cells.record import Effect, Record
from holdfast.cells.round import Phase, Round
from holdfast.cells.wire import AnotherIdentity
from holdfast.client.errors import ClientError, OutcomeUnknown
from holdfast.client.values import to_bytes
from holdfast.proto import rpc_pb2

Change = Callable[[bytes | None], str | bytes | None]  # the next value; None: leave it as it is
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 1.0  # seconds after a round that another proposer won


class Register:
    """`name`: without slashes. Changes by one Register come one after the other."""

    def __init__(self, links: Links, name: str, timeout: float) -> None:
        if not name or "/" in name:
            raise ValueError(f"{name!r} is no name of a register: give one without a slash")
        self.name = name
        self._links = links
        self._timeout = timeout
        self._proposer = secrets.randbits(64)
        self._highest = NONE  # ballot that was seen
        self._turn = asyncio.Lock()
        self._missing = ""  # which answers the last round lacked

    async def read(self) -> bytes | None:
        """The value, as of some time between call and answer. Raises CellsUnavailable."""
        found = await self._look(now() + self._timeout)
        if found is None:  # somebody is changing it: decide what it is
            return await self.change(lambda _: None)
        return Record.unpacked(found.accepted.value).value

    async def change(self, change: Change) -> bytes | None:
        """Replace the value by `change(value)`, as if nobody else did anything meanwhile; returns the new one. `change`
        may be called several times. Raises CellsUnavailable, or OutcomeUnknown if it cannot be said whether the change
        took effect."""
        async with self._turn:
            return await self._change(change, now() + self._timeout)

    async def _change(self, change: Change, end: float) -> bytes | None:
        id, tried_at, pause = secrets.token_bytes(8), -1, FIRST_PAUSE  # `tried_at`: changes when the cells were asked

        while True:
            before = Record()
            taken = False

            def next_value(value: bytes | None, tried_at: int = tried_at) -> bytes:
                nonlocal before, taken
                before = Record.unpacked(value)
                if tried_at >= 0:
                    effect = before.effect(id, tried_at)
                    if effect is Effect.UNKNOWN:
                        raise OutcomeUnknown(
                            f"{self.name}: too many other changes since to say if this one took effect"
                        )
                    taken = effect is Effect.TAKEN
                wanted = None if taken else change(before.value)
                return (before if wanted is None else before.changed(to_bytes(wanted), id)).packed()

            self._missing = ""
            round = await self._round(next_value, end, tried=tried_at >= 0)
            self._highest = max(self._highest, round.ballot, round.higher)
            if round.phase is Phase.DECIDED:
                return Record.unpacked(round.value).value
            if round.value is not None and not taken:
                tried_at = before.changes if tried_at < 0 else tried_at
            if now() + pause > end:
                error = OutcomeUnknown if tried_at >= 0 else CellsUnavailable
                why = self._missing or f"others were changing it for {self._timeout:g} s"
                raise error(f"{self.name}: {why}")
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _round(self, change: Callable[[bytes | None], bytes], end: float, *, tried: bool) -> Round:
        try:
            cells = await self._links.cells(_left(end))
        except CellsUnavailable as error:
            if tried:
                raise OutcomeUnknown(f"{self.name}: {error}") from error
            raise
        round = Round(self._highest.after(self._proposer), cells)
        round = await self._ask(round, change, end, tried=tried)
        if round.phase is Phase.ACCEPT:
            round = await self._ask(round, change, end, tried=True)
        return round

    async def _ask(self, round: Round, change: Callable[[bytes | None], bytes], end: float, *, tried: bool) -> Round:
        """Ask all cells for what this phase needs, until the next one. Raises OutcomeUnknown if the cells were asked to
        accept a value before (`tried`), CellsUnavailable otherwise."""
        phase = round.phase
        errors: dict[str, ClientError] = {}
        ballot, value = round.ballot, round.value

        def request(identity: bytes) -> rpc_pb2.TxnRequest:
            if value is None:
                return wire.prepare(identity, self.name, ballot)
            return wire.accept(identity, self.name, ballot, value)

        async for cell, answer in self._links.ask(round.cells, request, _left(end)):
            said = answer if isinstance(answer, ClientError) else self._said(cell, answer, phase, round.cells)
            if isinstance(said, ClientError):
                errors[cell] = said
                if isinstance(said, OtherSet) and said.newer:
                    break
            elif isinstance(said, Taken) or (phase is Phase.ACCEPT and isinstance(said, Refused)):
                round = round.taken(cell, said)
            else:
                round = round.promise(cell, said, change)
            if round.phase is not phase:
                return round
        self._missing = f"too few cells answered ({each(errors)})"
        if round.refused or not self._links.is_newest(round.cells):
            return replace(round, phase=Phase.LOST)  # begin another one, with a higher ballot or for the new set
        error = OutcomeUnknown if tried else CellsUnavailable
        raise error(f"{self.name}: {self._missing}")

    def _said(
        self, cell: str, answer: rpc_pb2.TxnResponse, phase: Phase, cells: CellSet
    ) -> Promise | Taken | Refused | OtherSet:
        said = wire.prepared(answer) if phase is Phase.PREPARE else wire.taken(answer)
        return self._links.moved(cell, said.set, cells) if isinstance(said, AnotherIdentity) else said

    async def _look(self, end: float) -> Acceptor | None:
        """The state that a quorum of cells agrees on; None if there is none."""
        cells = await self._links.cells(_left(end))
        errors: dict[str, ClientError] = {}
        by: dict[Acceptor, set[str]] = {}
        async for cell, answer in self._links.ask(cells, lambda id: wire.look(id, self.name), _left(end)):
            found = answer if isinstance(answer, ClientError) else wire.seen(answer)
            if isinstance(found, AnotherIdentity):
                found = self._links.moved(cell, found.set, cells)
            if isinstance(found, ClientError):
                errors[cell] = found
                if isinstance(found, OtherSet) and found.newer:
                    return None
                continue
            by.setdefault(found, set()).add(cell)
            if found.promised == found.accepted.ballot and cells.is_quorum(by[found]):
                return found
        if self._links.is_newest(cells) and not cells.is_quorum(set().union(*by.values())):
            raise CellsUnavailable(f"{self.name}: too few cells answered ({each(errors)})")
        return None


def _left(end: float) -> float:
    return max(0.0, end - now())
