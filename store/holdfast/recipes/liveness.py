"""When a session is certainly alive, by the local clock alone.

A session is a lease that is renewed. The server counts the lease's TTL from some moment after the request was sent, on
its own clock; so until `asked + TTL`, less what two clocks may differ, the lease cannot have ended. States, as in
Chubby (§2.8):

| state    | means                                                     | way out                                  |
|----------|-----------------------------------------------------------|------------------------------------------|
| SAFE     | the lease cannot have ended                               | time: JEOPARDY                           |
| JEOPARDY | it may have ended: nothing that it protects may be used   | a renewal: SAFE; the grace ends: EXPIRED |
| EXPIRED  | it has ended, or its end was not seen in the grace: final | none                                     |

From every state: the server says that the lease is gone: EXPIRED.
"""

from __future__ import annotations

import math
from enum import Enum

GRACE_SECONDS = 45.0
MAX_DRIFT = 0.02  # how much faster the server's clock may run than ours, as a share


class State(Enum):
    SAFE = "safe"
    JEOPARDY = "jeopardy"
    EXPIRED = "expired"


class Liveness:
    """The state of one session. Times are seconds on a clock that goes on while the machine is suspended."""

    def __init__(self, asked: float, ttl: float, grace: float = GRACE_SECONDS) -> None:
        """`asked`: before the request that granted the lease was sent."""
        self.grace = grace
        self.safe_until = -math.inf
        self._gone = False
        self._extend(asked, ttl)

    def _extend(self, asked: float, ttl: float) -> None:
        self.safe_until = max(self.safe_until, asked + ttl / (1 + MAX_DRIFT))

    def state(self, now: float) -> State:
        if now >= self.safe_until + self.grace:
            self._gone = True
        if self._gone:
            return State.EXPIRED
        return State.SAFE if now < self.safe_until else State.JEOPARDY

    def renewed(self, now: float, asked: float, ttl: float) -> None:
        """A renewal that was asked for at `asked` was answered; `ttl` is 0 or less if the lease is gone."""
        if self.state(now) is State.EXPIRED:
            return
        if ttl <= 0:
            self._gone = True
        else:
            self._extend(asked, ttl)

    def end(self) -> None:
        """The session was given up or revoked."""
        self._gone = True
