"""What went wrong with the attempts of a call, for its error, and whether another attempt may go better.

A server that does not lead, or that has no leader, may do so at any moment: such a call goes on to the next server
until its timeout. A replica that is cut off stays so for longer, unless it only changes over to another upstream: if
that is what all addresses say, a call gives up after CUT_OFF_SECONDS, and at once if it says itself how old its answer
may be.
"""

from __future__ import annotations

import grpc

from holdfast.client.errors import Unavailable
from holdfast.status import (
    NOT_SERVED_OFFLINE,
    REPLICA_DISCONNECTED,
    REPLICA_TOO_OLD,
    WRITER_UNREACHABLE,
    Known,
    for_people,
    said_by_server,
)

CUT_OFF_SECONDS = 2.0  # a replica whose upstream stops follows the next one within this time, if it reaches one
# Errors of a replica that does not reach what could answer the call.
_CUT_OFF = (REPLICA_DISCONNECTED, WRITER_UNREACHABLE, REPLICA_TOO_OLD, NOT_SERVED_OFFLINE)


class Failures:
    def __init__(self, *, patience: float) -> None:
        """`patience`: for how many seconds all addresses may say that they are cut off."""
        self._patience = patience
        self._last = ""  # what went wrong since a server gave a reason
        self._said = ""  # the last reason of a server
        self._known: Known | None = None  # it, too
        self._in_a_row = 0  # the newest answers of replicas that are cut off
        self._since = 0.0  # when the first of these came

    def note(self, text: str, *, late: bool = False) -> None:
        """Something that no server said. `late`: an attempt had no time left, which tells less than what was before."""
        self._in_a_row = 0
        if not late or not (self._last or self._said):
            self._last = text

    def refused(self, where: str, code: grpc.StatusCode, details: str, known: Known | None, now: float) -> None:
        """An attempt ended with this error of a server, or of the connection to it."""
        if not said_by_server(details):
            silent = code is grpc.StatusCode.DEADLINE_EXCEEDED
            text = f"{where} is silent" if silent else f"the connection to {where} broke: {details or code.name}"
            self.note(text, late=silent)
            return
        self._last, self._known = "", known
        if known not in _CUT_OFF:
            self._said, self._in_a_row = f"{where} answered: {for_people(details)}", 0
            return
        self._said = for_people(details)  # it names the replica
        self._since = self._since if self._in_a_row else now
        self._in_a_row += 1

    def cut_off(self, addresses: int, now: float) -> Unavailable | None:
        """The error if each of so many addresses has said that it is cut off, for long enough."""
        if 0 < addresses <= self._in_a_row and now >= self._since + self._patience:
            return Unavailable(self._said, self._known)
        return None

    def too_late(self, seconds: float, otherwise: str) -> Unavailable:
        """The error after `seconds`. `otherwise`: the reason if nothing went wrong but that."""
        if not self._said:
            return Unavailable(f"no endpoint answered in time: {self._last or otherwise}")
        last = f"; {self._last}" if self._last else ""
        return Unavailable(f"not done within {seconds:g} s: {self._said}{last}", self._known)
