"""The two kinds of token, as in etcd. Simple tokens are random; they are issued through the log, so that every member
knows them, and expire when they are not used for a while. JSON Web Tokens are signed and carry the user and the auth
revision themselves. Only members check tokens so; a replica asks one of them.
"""

from __future__ import annotations

import secrets
import string
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from holdfast.api.identity import Tokens
from holdfast.auth.store import AuthStore, Principal
from holdfast.durations import seconds
from holdfast.status import INVALID_AUTH_TOKEN, RequestError

SIMPLE_TTL_SECONDS = 300.0
SWEEP_SECONDS = 60.0
MAX_KNOWN = 1000  # signed tokens kept in the cache of verified ones
_CHECKS: Any = {"verify_aud": False, "verify_iat": False, "verify_iss": False, "verify_sub": False, "verify_jti": False}
MAX_AHEAD = 1_000_000  # log entries: a token from further ahead of this member's applied index is not waited for
_LEAST_SECRET = {"HS256": 32, "HS384": 48, "HS512": 64}  # bytes (RFC 7518, section 3.2)
_LETTERS = string.ascii_letters
_NEVER = 1 << 62
_FAR = 1 << 40  # seconds; a token that ends so late does not end


class BadTokenOptions(Exception):
    """--auth-token is invalid; the message says why."""


class SimpleTokens:
    """Random tokens, known from the log. Each use extends a token's life by the TTL. `sweep` has to be called every
    `sweep_seconds`: a token that is not used here lives for so long more at most."""

    def __init__(self, ttl_seconds: float = SIMPLE_TTL_SECONDS) -> None:
        self._ttl = ttl_seconds
        self._used: dict[str, float] = {}
        self.sweep_seconds = min(SWEEP_SECONDS, self._ttl / 5)

    def identify(self, token: str, auth: AuthStore) -> Principal | None:
        now = time.monotonic()
        user = auth.tokens.get(token)
        if user is None:
            return None
        if now > self._used.get(token, now) + self._ttl:
            self._drop(token, auth)
            return None
        self._used[token] = now
        return Principal(user, auth.revision)

    def sweep(self, auth: AuthStore) -> None:
        """Drop expired tokens. The TTL of a token that was never seen on this member starts now: also of one that has
        been issued, and that nobody uses."""
        now = time.monotonic()
        self._used = {token: self._used.get(token, now) for token in auth.tokens}
        for token in [t for t, used in self._used.items() if now > used + self._ttl]:
            self._drop(token, auth)

    def _drop(self, token: str, auth: AuthStore) -> None:
        auth.tokens.pop(token, None)
        self._used.pop(token, None)

    def issue(self, user: str, revision: int) -> None:
        return None

    def ahead(self, token: str, auth: AuthStore, applied: int) -> bool:
        """Compares the index at the end of the token, which is that of the entry that issued it."""
        tail = token.rpartition(".")[2]
        index = int(tail) if tail.isascii() and tail.isdigit() and len(tail) < 20 else 0
        return 0 < index - applied <= MAX_AHEAD

    def ends_ms(self, token: str) -> int:
        return 0


class JwtTokens:
    """Signed tokens with the claims `username`, `revision` and `exp`, as in etcd. Tokens of other issuers are checked
    as in etcd: without `exp` they do not expire, and claims on audience, issuer and time of issue are ignored."""

    def __init__(self, method: str, sign_key: Any, verify_key: Any, ttl_seconds: float) -> None:
        self._method = method
        self._sign_key = sign_key
        self._verify_key = verify_key
        self._ttl = ttl_seconds
        self._known: dict[str, tuple[Principal, float]] = {}  # tokens that were verified, and when they expire

    def identify(self, token: str, auth: AuthStore) -> Principal | None:
        who = self._verified(token)
        if who is None or who.revision > auth.revision or auth.superseded(who.user, who.revision):
            return None
        return who

    def _verified(self, token: str) -> Principal | None:
        """The claims of a token with a valid signature that has not expired. Verifies each signature once."""
        known = self._known.get(token)
        if known is not None and time.time() < known[1]:
            return known[0]
        try:
            claims = jwt.decode(token, self._verify_key, algorithms=[self._method], options=_CHECKS)
        except (jwt.PyJWTError, ValueError, OverflowError, RecursionError):
            return None
        user, revision = claims.get("username"), claims.get("revision")
        if isinstance(revision, float) and revision.is_integer():
            revision = int(revision)  # JSON does not tell integers from floats
        if not isinstance(user, str) or not user or type(revision) is not int or not 0 <= revision < 1 << 63:
            return None
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        who = Principal(user, revision)
        self._known[token] = (who, int(claims.get("exp", _NEVER)))
        return who

    def issue(self, user: str, revision: int) -> str:
        if self._sign_key is None:
            raise RequestError(INVALID_AUTH_TOKEN)  # without a private key this member can only verify
        claims = {"username": user, "revision": revision, "exp": int(time.time() + self._ttl)}
        return jwt.encode(claims, self._sign_key, algorithm=self._method)

    def ahead(self, token: str, auth: AuthStore, applied: int) -> bool:
        """Whether another member issued the token at an auth revision that is not applied here yet."""
        who = self._verified(token)
        return who is not None and who.revision > auth.revision

    def ends_ms(self, token: str) -> int:
        known = self._known.get(token)
        return 0 if known is None or known[1] >= _FAR else int(known[1] * 1000)


def new_token() -> str:
    """The random letters of a simple token. Applying its entry appends the entry's index."""
    return "".join(secrets.choice(_LETTERS) for _ in range(16))


def parse_tokens(text: str, simple_ttl_seconds: float) -> Tokens:
    """Parse --auth-token: simple, or jwt,sign-method=…[,pub-key=FILE][,priv-key=FILE][,ttl=5m].

    Raises BadTokenOptions.
    """
    kind, *words = text.split(",")
    if kind == "simple" and not words:
        return SimpleTokens(simple_ttl_seconds)
    if kind != "jwt":
        raise BadTokenOptions(f"--auth-token {text!r}: give simple, or jwt,sign-method=RS256,priv-key=FILE")
    options: dict[str, str] = {}
    for word in words:
        name, found, value = word.partition("=")
        if not found or name not in ("sign-method", "pub-key", "priv-key", "ttl"):
            raise BadTokenOptions(f"--auth-token: {word!r} is not one of sign-method=, pub-key=, priv-key=, ttl=")
        options[name] = value
    return _jwt(options)


def _jwt(options: Mapping[str, str]) -> JwtTokens:
    method = options.get("sign-method", "")
    try:
        algorithm = jwt.get_algorithm_by_name(method)
    except NotImplementedError:
        raise BadTokenOptions(f"--auth-token: {method!r} is not a sign-method; RS256, ES256 and HS256 are") from None
    files = {name: _read(options[name]) for name in ("pub-key", "priv-key") if name in options}
    if not files or (method.startswith("HS") and "priv-key" not in files):
        raise BadTokenOptions("--auth-token: jwt needs pub-key=FILE, priv-key=FILE or both; HS256 needs priv-key=FILE")
    least = _LEAST_SECRET.get(method, 0)
    if least and len(files["priv-key"]) < least:
        raise BadTokenOptions(
            f"--auth-token: the key in {options['priv-key']} has {len(files['priv-key'])} bytes; {method} needs at "
            f"least {least}, or tokens can be forged by trying (openssl rand -out FILE {least})"
        )
    try:
        sign = algorithm.prepare_key(files["priv-key"]) if "priv-key" in files else None
        verify = algorithm.prepare_key(_public(files["pub-key"])) if "pub-key" in files else sign
        if verify is sign and sign is not None and hasattr(sign, "public_key"):
            verify = sign.public_key()
    except (ValueError, TypeError, jwt.PyJWTError) as error:
        raise BadTokenOptions(f"--auth-token: a key file does not fit {method}: {error}") from error
    try:
        return JwtTokens(method, sign, verify, seconds(options.get("ttl", "5m")))
    except ValueError as error:
        raise BadTokenOptions(f"--auth-token: ttl: {error}") from None


def _public(pem: bytes) -> bytes:
    """The public key in `pem`, which may also be a certificate."""
    if b"BEGIN CERTIFICATE" not in pem:
        return pem
    key = x509.load_pem_x509_certificate(pem).public_key()
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BadTokenOptions(f"--auth-token: cannot read {path}: {error.strerror}") from error
