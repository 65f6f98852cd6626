"""Tokens: simple ones that live while they are used, and signed ones that say who and as of when themselves."""

from __future__ import annotations

from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from holdfast.api import identity
from holdfast.api.identity import BadTokenOptions, SimpleTokens, parse_tokens
from holdfast.auth.store import AuthStore, Principal
from holdfast.kv.store import MemoryStore, Pending


@pytest.fixture
def auth() -> AuthStore:
    return AuthStore(Pending(MemoryStore()))


def test_a_simple_token_lives_while_it_is_used(auth: AuthStore, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(identity.time, "monotonic", lambda: now)
    tokens = SimpleTokens(300.0)
    auth.tokens["t.5"] = "ann"
    assert tokens.index("t.5") == 5
    assert tokens.identify("t.5", auth) == Principal("ann", auth.revision)
    for _ in range(5):
        now += 200
        assert tokens.identify("t.5", auth) is not None
    now += 301
    assert tokens.identify("t.5", auth) is None
    assert not auth.tokens
    assert tokens.identify("nobody.1", auth) is None
    assert tokens.index("x.99999999999999999999999") == 0


def test_tokens_that_nobody_uses_are_forgotten(auth: AuthStore, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(identity.time, "monotonic", lambda: now)
    tokens = SimpleTokens(300.0)
    auth.tokens.update({f"t.{n}": "ann" for n in range(100)})
    for _ in range(10):
        now += 61
        tokens.identify("other", auth)
    assert not auth.tokens


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
    token = tokens.issue("ann", 7)
    assert token is not None
    assert tokens.identify(token, auth) == Principal("ann", 7)
    assert tokens.identify(token[:-4] + "AAAA", auth) is None
    only_public = parse_tokens(f"jwt,sign-method=RS256,pub-key={public}", 300)
    assert only_public.identify(token, auth) == Principal("ann", 7)
    late = jwt.encode({"username": "ann", "revision": 7, "exp": 1}, private.read_bytes(), algorithm="RS256")
    assert tokens.identify(late, auth) is None
    for claims in ({"username": "ann", "revision": 7}, {"username": 5, "revision": 7, "exp": 1 << 40}):
        assert tokens.identify(jwt.encode(claims, private.read_bytes(), algorithm="RS256"), auth) is None
    # Signed with the public key taken for a shared secret: the old trick.
    forged = jwt.encode({"username": "root", "revision": 7, "exp": 1 << 40}, "x" * 64, algorithm="HS256")
    assert tokens.identify(forged, auth) is None


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
