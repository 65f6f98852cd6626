"""Tokens of a replica's callers. A replica cannot check them, as it knows no passwords and no keys: a member does, and
what it said is honoured here for a while, also without a network and after a restart.

What is known of a token is void when its user is deleted or gets another password: that is followed with the users.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

from holdfast.auth.store import AuthStore, Principal

CHECKED_AGAIN_SECONDS = 60.0
SKEW_SECONDS = 5.0  # a clock that was set back by more than this makes a token unknown
MAX_TOKENS = 1000


@dataclass(frozen=True, slots=True)
class Checked:
    """What a member said of a token. Times are Unix seconds. `until`: the end of its life, or of the trust in it."""

    user: str
    revision: int  # of auth
    at: float
    until: float


class CheckedTokens:
    """Implements `api.identity.Tokens`. Tokens are kept by their hash, so that nobody finds one in the directory."""

    def __init__(self, offline_seconds: float, stored: bytes, now: Callable[[], float]) -> None:
        """`offline_seconds`: how long a token is honoured after it was checked. `stored`: of an earlier process.
        `now`: Unix seconds."""
        self._offline_seconds = offline_seconds
        self._now = now
        self._known: dict[str, Checked] = {}
        for digest, of in json.loads(stored or b"{}").items():
            self._known[digest] = Checked(**of)
        self.changed = False  # since `stored`

    def stored(self) -> bytes:
        """For the next process."""
        now = self._now()
        known = {digest: asdict(of) for digest, of in self._known.items() if now <= of.until}
        self.changed = False
        return json.dumps(known).encode()

    def identify(self, token: str, auth: AuthStore) -> Principal | None:
        known = self._known.get(_digest(token))
        if known is None or not self._honoured(known):
            return None
        if known.user not in auth.users or auth.superseded(known.user, known.revision):
            return None
        return Principal(known.user, auth.revision)

    def _honoured(self, known: Checked) -> bool:
        return known.at - SKEW_SECONDS <= self._now() <= known.until

    def due(self, token: str) -> bool:
        """Whether a member should be asked about the token."""
        known = self._known.get(_digest(token))
        return known is None or not self._honoured(known) or self._now() > known.at + CHECKED_AGAIN_SECONDS

    def checked(self, token: str, user: str, revision: int, ends_ms: int) -> None:
        """A member knows the token. `ends_ms`: the end of its life (Unix ms); 0: it lives while it is used."""
        now = self._now()
        until = now + self._offline_seconds
        if ends_ms:
            until = min(until, ends_ms / 1000)
        digest = _digest(token)
        self._known.pop(digest, None)
        while len(self._known) >= MAX_TOKENS:
            del self._known[next(iter(self._known))]  # checked longest ago
        self._known[digest] = Checked(user, revision, now, until)
        self.changed = True

    def refused(self, token: str) -> None:
        """A member does not know the token."""
        if self._known.pop(_digest(token), None) is not None:
            self.changed = True

    def issue(self, user: str, revision: int) -> str | None:
        raise AssertionError("a replica issues no tokens")

    def ahead(self, token: str, auth: AuthStore, applied: int) -> bool:
        return False

    def ends_ms(self, token: str) -> int:
        return 0


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
