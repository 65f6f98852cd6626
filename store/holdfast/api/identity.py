"""Who makes a call: by a token in its metadata, or by the certificate that its connection showed.

Two kinds of token, as etcd has them. Simple ones are random, handed out through the log so that every member knows
them, and forgotten when they are not used for a while. JSON Web Tokens say who and as of when themselves, signed.
"""

from __future__ import annotations

import secrets
import string
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from holdfast.auth.store import NOBODY, AuthStore, Principal
from holdfast.durations import seconds
from holdfast.front.calls import Call
from holdfast.member.driver import Member
from holdfast.status import INVALID_AUTH_TOKEN, RequestError

SIMPLE_TTL_SECONDS = 300.0
SWEEP_SECONDS = 60.0
MAX_KNOWN = 1000  # signed tokens whose signature need not be looked at again
_CHECKS: Any = {"verify_aud": False, "verify_iat": False, "verify_iss": False, "verify_sub": False, "verify_jti": False}
MAX_AHEAD = 1_000_000  # entries that the cluster may be ahead of this member: a token of a later one is not waited for
_LEAST_SECRET = {"HS256": 32, "HS384": 48, "HS512": 64}  # bytes, as RFC 7518 section 3.2 has it
# Metadata of a call that somebody passed on: the certificate of the connection is theirs, not the caller's.
FORWARDED = "holdfast-forwarded"
_LETTERS = string.ascii_letters


class BadTokenOptions(Exception):
    """--auth-token cannot be used; says what is wrong with it."""


class Tokens(Protocol):
    """One kind of token."""

    def identify(self, token: str, auth: AuthStore) -> Principal | None:
        """Whose token this is; None if it is void."""
        ...

    def issue(self, user: str, revision: int) -> str | None:
        """A new one, or None if it has to go through the log."""
        ...

    def ahead(self, token: str, auth: AuthStore, applied: int) -> bool:
        """Whether the token can be one that is known only after more of the log is applied than `applied`."""
        ...


class SimpleTokens:
    """Random tokens, known from the log; used again within the time they live, they live on."""

    def __init__(self, ttl_seconds: float = SIMPLE_TTL_SECONDS) -> None:
        self._ttl = ttl_seconds
        self._used: dict[str, float] = {}
        self._swept = time.monotonic()

    def identify(self, token: str, auth: AuthStore) -> Principal | None:
        now = time.monotonic()
        if now > self._swept + min(SWEEP_SECONDS, self._ttl):
            self._sweep(auth, now)
        user = auth.tokens.get(token)
        if user is None:
            return None
        if now > self._used.get(token, now) + self._ttl:
            self._drop(token, auth)
            return None
        self._used[token] = now
        return Principal(user, auth.revision)

    def _sweep(self, auth: AuthStore, now: float) -> None:
        """Forget what nobody has used for long. What was never used here counts from now on."""
        self._swept = now
        self._used = {token: self._used.get(token, now) for token in auth.tokens}
        for token in [t for t, used in self._used.items() if now > used + self._ttl]:
            self._drop(token, auth)

    def _drop(self, token: str, auth: AuthStore) -> None:
        auth.tokens.pop(token, None)
        self._used.pop(token, None)

    def issue(self, user: str, revision: int) -> None:
        return None

    def ahead(self, token: str, auth: AuthStore, applied: int) -> bool:
        """The entry that made it known says its own index at the end of the token."""
        tail = token.rpartition(".")[2]
        index = int(tail) if tail.isascii() and tail.isdigit() and len(tail) < 20 else 0
        return 0 < index - applied <= MAX_AHEAD


class JwtTokens:
    """Signed tokens: `username`, `revision` and `exp`, as etcd makes them. Those of others are taken as etcd takes
    them: without `exp` they have no end, and what they say of an audience, an issuer or their making is not asked."""

    def __init__(self, method: str, sign_key: Any, verify_key: Any, ttl_seconds: float) -> None:
        self._method = method
        self._sign_key = sign_key
        self._verify_key = verify_key
        self._ttl = ttl_seconds
        self._known: dict[str, tuple[Principal, float]] = {}  # tokens that were verified, and when they expire

    def identify(self, token: str, auth: AuthStore) -> Principal | None:
        who = self._verified(token)
        if who is None or who.revision > auth.revision or auth.superseded(*who):
            return None
        return who

    def _verified(self, token: str) -> Principal | None:
        """What a token says that has our signature and has not expired. The signature is looked at once."""
        known = self._known.get(token)
        if known is not None and time.time() < known[1]:
            return known[0]
        try:
            claims = jwt.decode(token, self._verify_key, algorithms=[self._method], options=_CHECKS)
        except (jwt.PyJWTError, ValueError, OverflowError, RecursionError):
            return None
        user, revision = claims.get("username"), claims.get("revision")
        if isinstance(revision, float) and revision.is_integer():
            revision = int(revision)  # as JSON has numbers
        if not isinstance(user, str) or not user or type(revision) is not int or not 0 <= revision < 1 << 63:
            return None
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        who = Principal(user, revision)
        self._known[token] = (who, int(claims.get("exp", 1 << 62)))
        return who

    def issue(self, user: str, revision: int) -> str:
        if self._sign_key is None:
            raise RequestError(INVALID_AUTH_TOKEN)  # this member can only verify
        claims = {"username": user, "revision": revision, "exp": int(time.time() + self._ttl)}
        return jwt.encode(claims, self._sign_key, algorithm=self._method)

    def ahead(self, token: str, auth: AuthStore, applied: int) -> bool:
        """Another member may have made it at a revision of users that is not applied here yet."""
        who = self._verified(token)
        return who is not None and who.revision > auth.revision


def new_token() -> str:
    """The letters of a simple token; the index of its entry is appended when that is applied."""
    return "".join(secrets.choice(_LETTERS) for _ in range(16))


def parse_tokens(text: str, simple_ttl_seconds: float) -> Tokens:
    """--auth-token: simple, or jwt,sign-method=…[,pub-key=FILE][,priv-key=FILE][,ttl=5m]. Raises BadTokenOptions."""
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
    """A public key, also if a certificate is given for it."""
    if b"BEGIN CERTIFICATE" not in pem:
        return pem
    key = x509.load_pem_x509_certificate(pem).public_key()
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BadTokenOptions(f"--auth-token: cannot read {path}: {error.strerror}") from error


class Identities:
    """Tells who makes a call."""

    def __init__(self, tokens: Tokens, *, trust_common_names: bool) -> None:
        self.tokens = tokens
        self._trust_common_names = trust_common_names

    def principal(self, call: Call, member: Member) -> Principal:
        """Who makes this call; nobody, if that was not said or does not matter. Raises RequestError if the token is
        void."""
        auth = member.state.auth
        if not auth.enabled:
            return NOBODY
        token = token_of(call)
        if token:
            who = self.tokens.identify(token, auth)
            if who is None:
                raise RequestError(INVALID_AUTH_TOKEN)
            return who
        if self._trust_common_names and call.peer.common_name and FORWARDED not in call.metadata:
            return Principal(call.peer.common_name, auth.revision)
        return NOBODY

    def waits_for(self, call: Call, member: Member) -> bool:
        """Whether the call's token can be one that was given out by an entry which is not applied here yet. After one
        linearizable read it is applied, if there is one: whoever shows the token has had the answer to it."""
        state = member.state
        if not state.auth.enabled:
            return False
        token = token_of(call)
        return bool(token) and self.tokens.ahead(token, state.auth, state.applied_index)


class Caller:
    """Who opened a stream. What they may is looked up again whenever it matters, by the users and roles of then."""

    def __init__(self, identities: Identities, call: Call, member: Member) -> None:
        self._identities = identities
        self._call = call
        self._member = member
        self._user: str | None = None  # not known before it is asked for while users count
        self._password: bytes | None = None  # the hash of the password that the caller's token stands for

    def shown(self) -> Principal:
        """By what the call shows, as for a call that is made now. Raises RequestError if the token is void."""
        who = self._identities.principal(self._call, self._member)
        if self._member.state.auth.enabled:
            self._user, self._password = who.user, self._password_of(who.user)
        return who

    def standing(self) -> Principal:
        """The user that was told by what the call showed, with the rights of now: a token that has expired meanwhile
        does not end a stream; its user's end, or another password, does. Raises RequestError."""
        auth = self._member.state.auth
        if not auth.enabled:
            return NOBODY
        if self._user is None:
            return self.shown()
        if token_of(self._call) and self._password_of(self._user) not in (None, self._password):
            raise RequestError(INVALID_AUTH_TOKEN)
        return Principal(self._user, auth.revision if self._user else 0)

    def _password_of(self, name: str) -> bytes | None:
        user = self._member.state.auth.users.get(name)
        return None if user is None else user.password


def token_of(call: Call) -> str:
    """The token in a call's metadata; empty if there is none."""
    token = call.metadata.get("token") or call.metadata.get("authorization") or ""
    return token[7:] if token[:7].lower() == "bearer " else token
