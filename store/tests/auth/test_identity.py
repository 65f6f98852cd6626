"""Tokens: simple ones that live while they are used, and signed ones that say who and as of when themselves."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from holdfast.api.tokens import BadTokenOptions, SimpleTokens, parse_tokens
from holdfast.auth.store import NOBODY, AuthStore, Principal
from holdfast.kv.store import MemoryStore, Pending
from holdfast.proto import raft_pb2, rpc_pb2
from holdfast.status import RequestError

from ..certificates import Authority


@pytest.fixture
def auth() -> AuthStore:
    return AuthStore(Pending(MemoryStore()))


def test_a_simple_token_lives_while_it_is_used(auth: AuthStore, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    tokens = SimpleTokens(300.0)
    auth.tokens["t.5"] = "ann"
    assert tokens.ahead("t.5", auth, 4)
    assert not tokens.ahead("t.5", auth, 5)
    assert tokens.identify("t.5", auth) == Principal("ann", auth.revision)
    for _ in range(5):
        now += 200
        assert tokens.identify("t.5", auth) is not None
    now += 301
    assert tokens.identify("t.5", auth) is None
    assert not auth.tokens
    assert tokens.identify("nobody.1", auth) is None
    for far in ("x.99999999999999999999999", "x.999999999999", "x.²", "x.", "x", ""):
        assert not tokens.ahead(far, auth, 5)


def test_tokens_that_nobody_uses_are_forgotten(auth: AuthStore, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    tokens = SimpleTokens(300.0)
    auth.tokens.update({f"t.{n}": "ann" for n in range(100)})
    for _ in range(5):
        assert auth.tokens
        tokens.sweep(auth)
        now += tokens.sweep_seconds
    assert tokens.identify("t.1", auth) is not None, "it was just not too old"
    now += 1
    assert tokens.identify("t.2", auth) is None, "though it was never used"
    tokens.sweep(auth)
    assert set(auth.tokens) == {"t.1"}


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    key = rsa.generate_private_key(65537, 2048)
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


def test_a_signed_token_says_who_and_as_of_when(auth: AuthStore, keys: tuple[Path, Path]) -> None:
    private, public = keys
    tokens = parse_tokens(f"jwt,sign-method=RS256,priv-key={private},pub-key={public},ttl=5m", 300)
    auth.revision = 7
    token = tokens.issue("ann", 7)
    assert token is not None
    assert tokens.identify(token, auth) == Principal("ann", 7)
    assert tokens.identify(token[:-4] + "AAAA", auth) is None
    only_public = parse_tokens(f"jwt,sign-method=RS256,pub-key={public}", 300)
    assert only_public.identify(token, auth) == Principal("ann", 7)
    late = jwt.encode({"username": "ann", "revision": 7, "exp": 1}, private.read_bytes(), algorithm="RS256")
    assert tokens.identify(late, auth) is None
    assert not tokens.ahead(token, auth, 0)
    for claims in (
        {"username": 5, "revision": 7, "exp": 1 << 40},
        {"username": "", "revision": 7},
        {"username": "ann", "revision": 1 << 70},
        {"username": "ann", "revision": -1},
        {"username": "ann", "revision": True},
        {"username": "ann", "revision": 7.5},
        {"username": "ann", "revision": "7"},
        {"username": "ann", "revision": 7, "nbf": 1 << 40},
        {"username": "ann", "revision": 7, "exp": 1e400},
        {"username": "ann", "revision": 7, "exp": "soon"},
        {"username": "ann"},
    ):
        assert tokens.identify(_signed(dict(claims), private), auth) is None, claims
    # Signed with the public key taken for a shared secret: the old trick.
    forged = jwt.encode({"username": "root", "revision": 7, "exp": 1 << 40}, "x" * 64, algorithm="HS256")
    assert tokens.identify(forged, auth) is None


def _signed(claims: dict[str, object], private: Path) -> str:
    """By hand, so that anything can be claimed."""
    parts = [{"alg": "RS256", "typ": "JWT"}, claims]
    text = b".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=") for p in parts)
    algorithm = jwt.get_algorithm_by_name("RS256")
    signature = algorithm.sign(text, algorithm.prepare_key(private.read_bytes()))
    return (text + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


def test_tokens_of_others_are_taken_as_etcd_takes_them(auth: AuthStore, keys: tuple[Path, Path]) -> None:
    private, public = keys
    tokens = parse_tokens(f"jwt,sign-method=RS256,pub-key={public}", 300)
    auth.revision = 7
    for more in (
        {},
        {"aud": "somebody"},
        {"aud": ["a", "b"], "iss": "them", "sub": 5, "jti": 6},
        {"iat": 1 << 40},
        {"revision": 7.0},
    ):
        token = _signed({"username": "ann", "revision": 7, **more}, private)
        assert tokens.identify(token, auth) == Principal("ann", 7), more


def test_a_revision_of_the_future_is_waited_for_and_not_believed(auth: AuthStore, keys: tuple[Path, Path]) -> None:
    private, _ = keys
    tokens = parse_tokens(f"jwt,sign-method=RS256,priv-key={private}", 300)
    token = tokens.issue("ann", auth.revision + 1)
    assert token is not None
    assert tokens.ahead(token, auth, 0)
    assert tokens.identify(token, auth) is None
    assert not tokens.ahead(token[:-4] + "AAAA", auth, 0)
    auth.revision += 1
    assert not tokens.ahead(token, auth, 0)
    assert tokens.identify(token, auth) == Principal("ann", auth.revision)


def test_a_token_of_before_the_password_changed_is_void(auth: AuthStore, keys: tuple[Path, Path]) -> None:
    private, _ = keys
    tokens = parse_tokens(f"jwt,sign-method=RS256,priv-key={private}", 300)
    for user in ("root", "ann"):
        add = rpc_pb2.AuthUserAddRequest(name=user, hashedPassword="eA==")
        auth.apply(raft_pb2.AuthChange(user_add=add), NOBODY, 1, 2)
    grant = rpc_pb2.AuthUserGrantRoleRequest(user="root", role="root")
    auth.apply(raft_pb2.AuthChange(user_grant_role=grant), NOBODY, 2, 2)
    auth.apply(raft_pb2.AuthChange(enable=rpc_pb2.AuthEnableRequest()), NOBODY, 3, 2)
    before = Principal("root", auth.revision)
    old = {user: tokens.issue(user, auth.revision) for user in ("root", "ann")}
    change = rpc_pb2.AuthUserChangePasswordRequest(name="root", hashedPassword="eQ==")
    auth.apply(raft_pb2.AuthChange(user_change_password=change), before, 4, 2)
    assert tokens.identify(old["root"] or "", auth) is None
    assert tokens.identify(old["ann"] or "", auth) is not None
    assert tokens.identify(tokens.issue("root", auth.revision) or "", auth) is not None
    # Nor does what was proposed by such a token change users any more when it is applied.
    delete = raft_pb2.AuthChange(user_delete=rpc_pb2.AuthUserDeleteRequest(name="ann"))
    with pytest.raises(RequestError, match="revision of auth store is old"):
        auth.apply(delete, before, 5, 2)
    now = Principal("root", auth.revision)
    auth.apply(delete, now, 6, 2)
    # Another user of the name is another user.
    auth.apply(raft_pb2.AuthChange(user_add=rpc_pb2.AuthUserAddRequest(name="ann", hashedPassword="eA==")), now, 7, 2)
    assert tokens.identify(old["ann"] or "", auth) is None


def test_a_signature_is_looked_at_once_and_the_expiry_always(
    auth: AuthStore, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    private, _ = keys
    tokens = parse_tokens(f"jwt,sign-method=RS256,priv-key={private}", 300)
    token = tokens.issue("ann", auth.revision)
    assert token is not None
    looked: list[str] = []
    decode = jwt.decode
    monkeypatch.setattr(jwt, "decode", lambda *a, **o: (looked.append(a[0]), decode(*a, **o))[1])
    for _ in range(5):
        assert not tokens.ahead(token, auth, 0)
        assert tokens.identify(token, auth) == Principal("ann", auth.revision)
    assert looked == [token]
    late = time.time() + 301
    monkeypatch.setattr(time, "time", lambda: late)
    monkeypatch.setattr(jwt, "decode", lambda *a, **o: decode(*a, **o | {"leeway": -400}))
    assert tokens.identify(token, auth) is None


def test_a_certificate_is_a_public_key_too(auth: AuthStore, tmp_path: Path) -> None:
    authority = Authority("one")
    key, certificate = authority.client("tokens")
    (tmp_path / "key.pem").write_bytes(key)
    (tmp_path / "certificate.pem").write_bytes(certificate)
    made = parse_tokens(f"jwt,sign-method=ES256,priv-key={tmp_path}/key.pem", 300)
    read = parse_tokens(f"jwt,sign-method=ES256,pub-key={tmp_path}/certificate.pem", 300)
    assert read.identify(made.issue("ann", 1) or "", auth) == Principal("ann", 1)
    (tmp_path / "certificate.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with pytest.raises(BadTokenOptions, match="does not fit ES256"):
        parse_tokens(f"jwt,sign-method=ES256,pub-key={tmp_path}/certificate.pem", 300)


def test_a_secret_that_can_be_guessed_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    for method, least in (("HS256", 32), ("HS384", 48), ("HS512", 64)):
        for size in (0, 1, least - 1):
            secret.write_bytes(b"x" * size)
            with pytest.raises(BadTokenOptions, match=f"needs at least {least}"):
                parse_tokens(f"jwt,sign-method={method},priv-key={secret}", 300)
        secret.write_bytes(b"x" * least)
        parse_tokens(f"jwt,sign-method={method},priv-key={secret}", 300)


@pytest.mark.parametrize(
    "text",
    [
        "other",
        "simple,x=1",
        "jwt",
        "jwt,sign-method=NONE",
        "jwt,sign-method=RS256",
        "jwt,sign-method=RS256,priv-key=/none",
        "jwt,unknown=1",
        "jwt,sign-method=HS256,pub-key=/etc/hostname",
    ],
)
def test_what_cannot_be_used_is_said_so(text: str) -> None:
    with pytest.raises(BadTokenOptions, match="--auth-token"):
        parse_tokens(text, 300)
