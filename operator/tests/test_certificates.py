"""Which certificates a cluster has, what they open, and when they are issued again."""

from __future__ import annotations

import base64
import ssl
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID
from holdfast.cert_names import CertNames
from holdfast.tls import LOOK_SECONDS, client_context, server_context
from holdfast_operator.model.cluster import ClusterSpec
from holdfast_operator.resources import authority, certificates
from holdfast_operator.resources.certificates import LIFETIME, Wanted, due
from holdfast_operator.resources.common import Object
from pydantic import ValidationError

from . import earlier
from .handshakes import mounted, shake, strict_client, strict_server

SHOP = {
    "apiVersion": "holdfast.dev/v1alpha1",
    "kind": "HoldfastCluster",
    "metadata": {"name": "shop", "namespace": "default", "uid": "u1"},
}
NOW = datetime.now(UTC).replace(microsecond=0)
CA = authority.make("shop", NOW)
# Whom the peer port of a voter accepts, by the flags --peer-cert-allowed-uri and, for the sake of voters that 0.1.0
# made, --peer-cert-allowed-hostname.
PEERS = CertNames(uris=("holdfast://shop/peer",))
PEERS_AND_EARLIER = CertNames(hostnames=("shop-voter-0.shop-peers.default.svc",), uris=PEERS.uris)
EXTRA = ["shop.example.com", "*.edges.example.com", "192.0.2.7", "2001:db8::7"]
# Names of voters: whoever has one of them passes --peer-cert-allowed-hostname.
VOTERS = ["shop-voter-0.shop-peers.default.svc", "*.shop-peers.default.svc", "shop-peers.default", "a.shop-peers"]


def spec(*extra: str) -> ClusterSpec:
    return ClusterSpec.model_validate({"version": "0.2.0", "tls": {"extraSANs": list(extra)}})


def wanted(*extra: str) -> dict[str, Wanted]:
    """By Secret. The pool berlin has two replicas, the pool paris none yet."""
    replicas = {"berlin-0a": ["berlin-replica"], "berlin-0b": ["berlin-replica"]}
    found = certificates.wanted(SHOP, spec(*extra), replicas, ["berlin-replica", "paris-replica"])
    return {one.secret: one for one in found}


def made(one: Wanted, now: datetime = NOW) -> Object:
    return authority.secret(SHOP, one, CA, now)


def certificate(secret: Object) -> x509.Certificate:
    return x509.load_pem_x509_certificate(base64.b64decode(secret["data"]["tls.crt"]))


def test_each_role_and_each_replica_has_a_secret_of_its_own() -> None:
    assert {name: one.uri for name, one in wanted().items()} == {
        "shop-peer-tls": "holdfast://shop/peer",
        "shop-server-tls": "holdfast://shop/server",
        "shop-client-tls": "holdfast://shop/client",
        "shop-operator-tls": "holdfast://shop/operator",
        "berlin-0a-tls": "holdfast://shop/edge",
        "berlin-0b-tls": "holdfast://shop/edge",
    }
    keys = {made(one)["data"]["tls.key"] for one in wanted().values()}
    assert len(keys) == len(wanted())


@pytest.mark.parametrize("name", sorted(wanted()))
def test_what_is_issued_is_in_force_until_two_thirds_of_its_lifetime_are_over(name: str) -> None:
    one = wanted(*EXTRA)[name]
    secret = made(one)
    assert due(None, one, CA.certificate, NOW) == "there is none yet"
    assert due(secret, one, CA.certificate, NOW) == ""
    begin = NOW - certificates.EARLY
    renewal = begin + (LIFETIME + certificates.EARLY) * 2 / 3
    assert due(secret, one, CA.certificate, renewal - timedelta(seconds=1)) == ""
    assert "two thirds" in due(secret, one, CA.certificate, renewal)
    assert "expired" in due(secret, one, CA.certificate, NOW + LIFETIME)
    assert due(secret, one, CA.certificate, begin) == ""  # a clock that was an hour ahead when it was issued
    assert "set back" in due(secret, one, CA.certificate, begin - timedelta(seconds=1))
    renewed = made(one, renewal)
    assert due(renewed, one, CA.certificate, renewal) == ""
    assert renewed["data"]["tls.key"] != secret["data"]["tls.key"]
    assert {**renewed, "data": 0} == {**secret, "data": 0}
    assert renewed["data"]["ca.crt"] == secret["data"]["ca.crt"]


def _data(**fields: str | None) -> Callable[[Object], Object]:
    """The Secret with some fields changed; None removes one."""

    def change(secret: Object) -> Object:
        names = {"crt": "tls.crt", "key": "tls.key", "ca": "ca.crt"}
        data = {**secret["data"], **{names[short]: value for short, value in fields.items()}}
        return {**secret, "data": {name: value for name, value in data.items() if value is not None}}

    return change


def _b64(value: bytes) -> str:
    return base64.b64encode(value).decode()


OTHER_CA = authority.make("shop", NOW)  # the same name, another key
SERVER = wanted()["shop-server-tls"]
OTHER_KEY = made(SERVER)["data"]["tls.key"]
FOREIGN = authority.secret(SHOP, SERVER, OTHER_CA, NOW)["data"]["tls.crt"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda secret: {**secret, "data": None}, "tls.crt is missing"),
        (_data(crt=None), "tls.crt is missing"),
        (_data(key=None), "tls.key is missing"),
        (_data(ca=None), "ca.crt is missing"),
        (_data(crt="=?="), "tls.crt is not base64"),
        (_data(key="é"), "tls.key is not base64"),
        (_data(crt=_b64(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----")), "not a certificate"),
        (_data(crt=""), "tls.crt is not a certificate"),
        (_data(key=_b64(b"secret")), "tls.key is not an unencrypted private key"),
        (_data(ca=""), "ca.crt is not a certificate"),
        (_data(key=OTHER_KEY), "tls.key is not the key of tls.crt"),
        (lambda _: authority.secret(SHOP, SERVER, OTHER_CA, NOW), "the CA of the cluster has not signed it"),
        (_data(ca=_b64(OTHER_CA.pem)), "ca.crt is not the CA of the cluster"),
        (_data(ca=_b64(CA.pem + OTHER_CA.pem)), "ca.crt is not the CA of the cluster"),
    ],
)
def test_what_cannot_be_used_is_issued_again(change: Callable[[Object], Object], why: str) -> None:
    assert why in due(change(made(SERVER)), SERVER, CA.certificate, NOW)


def test_a_key_that_needs_a_password_is_replaced() -> None:
    encrypted = _b64(
        CA.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"word"),
        )
    )
    assert "unencrypted" in due(_data(key=encrypted)(made(SERVER)), SERVER, CA.certificate, NOW)


@pytest.mark.parametrize(
    ("before", "why"),
    [
        (replace(SERVER, role="edge"), "its role is holdfast://shop/edge instead of holdfast://shop/server"),
        (replace(SERVER, cluster="other"), "its role is holdfast://other/server"),
        (replace(SERVER, common_name="shop edge"), "it is that of shop edge instead of shop server"),
        (replace(SERVER, usages=certificates.CLIENT), "it is for other uses"),
        (replace(SERVER, dns_names=SERVER.dns_names[1:]), f"it is not valid for {SERVER.dns_names[0]}"),
        (replace(SERVER, dns_names=(*SERVER.dns_names, "*.default.svc")), "it is also valid for *.default.svc"),
        (replace(SERVER, ip_addresses=SERVER.ip_addresses[1:]), "it is not valid for 127.0.0.1"),
        (replace(SERVER, ip_addresses=(*SERVER.ip_addresses, ip_address("10.0.0.1"))), "also valid for 10.0.0.1"),
    ],
)
def test_what_says_something_else_is_issued_again(before: Wanted, why: str) -> None:
    assert why in due(made(before), SERVER, CA.certificate, NOW)


def test_an_extra_name_is_issued_and_withdrawn() -> None:
    for name, bare in wanted().items():
        more = wanted(*EXTRA)[name]
        if bare.role in ("server", "edge"):
            assert "it is not valid for" in due(made(bare), more, CA.certificate, NOW)
            assert "it is also valid for" in due(made(more), bare, CA.certificate, NOW)
            assert {"shop.example.com", "*.edges.example.com"} <= set(more.dns_names)
            assert {ip_address("192.0.2.7"), ip_address("2001:db8::7")} <= set(more.ip_addresses)
        else:
            assert more == bare


def test_the_order_in_which_names_are_given_is_no_difference() -> None:
    one, other = wanted(*EXTRA), wanted(*reversed(EXTRA), *EXTRA[:1])
    assert one == other


def test_a_new_pool_leaves_the_certificates_of_other_replicas_alone() -> None:
    before = wanted()["berlin-0a-tls"]
    replicas = {"berlin-0a": ["berlin-replica"], "rome-0": ["rome-replica"]}
    after = certificates.wanted(SHOP, spec(), replicas, ["berlin-replica", "rome-replica"])
    assert before in after


def test_a_replica_of_a_pool_with_relays_has_the_name_of_their_service_too() -> None:
    (plain,), (relay,) = (
        [one for one in certificates.wanted(SHOP, spec(), {"berlin-0a": of_pool}, []) if one.role == "edge"]
        for of_pool in (["berlin-replica"], ["berlin-replica", "berlin-relay"])
    )
    assert set(relay.dns_names) - set(plain.dns_names) == {
        f"berlin-relay{domain}" for domain in ("", ".default", ".default.svc", ".default.svc.cluster.local")
    }
    assert due(made(plain), relay, CA.certificate, NOW).startswith("it is not valid for berlin-relay")


# ---- who gets in, and under which names --------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("name", sorted(wanted()))
def test_the_peer_port_takes_voters_and_nobody_else(name: str, version: ssl.TLSVersion, tmp_path: Path) -> None:
    """Even where somebody gives edge replicas the names of voters."""
    all_wanted = wanted(*EXTRA, *VOTERS)
    voter = replace(mounted(made(all_wanted["shop-peer-tls"]), tmp_path / "voter"), minimum=version)
    caller = mounted(made(all_wanted[name]), tmp_path / "caller")
    client = client_context(caller, PEERS).context()
    client.maximum_version = version
    seen, shown = shake(server_context(voter), client, "shop-voter-2.shop-peers.default.svc")
    role = all_wanted[name].role
    assert (PEERS.refusal(seen.getpeercert()) == "") is (role == "peer")
    # Only voters hold the server's certificate; those that 0.1.0 made show it to one another.
    assert (PEERS_AND_EARLIER.refusal(seen.getpeercert()) == "") is (role in ("peer", "server"))
    assert PEERS.refusal(shown.getpeercert()) == ""


@pytest.mark.parametrize("name", ["shop-server-tls", "shop-peer-tls", "berlin-0a-tls"])
def test_strict_clients_reach_servers_by_each_of_their_names(name: str, tmp_path: Path) -> None:
    one = wanted(*EXTRA)[name]
    server = strict_server(mounted(made(one), tmp_path / "server"))
    role = "peer" if one.role == "peer" else "client"
    client = strict_client(mounted(made(wanted()[f"shop-{role}-tls"]), tmp_path / "client"))
    for host in [*one.dns_names, *map(str, one.ip_addresses)]:
        shake(server, client, host.replace("*", "shop-voter-6"))


@pytest.mark.parametrize(
    ("name", "reached", "not_reached"),
    [
        (
            "shop-server-tls",
            [
                "shop-client",
                "shop-client.default.svc.cluster.local",
                "shop-peers.default",
                "shop-voter-0.shop-peers.default.svc",
                "shop-voter-0.shop-peers.default",
                "shop-voter-0.shop-peers.default.svc.cluster.local",
                # replicas that 0.1.0 made have this certificate
                "shop-edge.default.svc",
                "berlin-replica.default.svc",
                "paris-replica.default.svc.cluster.local",
                "localhost",
                "127.0.0.1",
                "::1",
            ],
            [
                "other.default.svc",
                "shop-client.other.svc",
                "a.b.shop-peers.default.svc",
                "127.0.0.2",
                "shop.example.com",
            ],
        ),
        (
            "shop-peer-tls",
            ["shop-voter-0.shop-peers.default.svc", "shop-voter-6.shop-peers.default.svc.cluster.local"],
            ["shop-client.default.svc", "localhost", "127.0.0.1"],
        ),
        (
            "berlin-0a-tls",
            ["shop-edge", "shop-edge.default.svc", "berlin-replica", "berlin-replica.default.svc", "localhost", "::1"],
            ["shop-client.default.svc", "shop-voter-0.shop-peers.default.svc", "paris-replica.default.svc"],
        ),
    ],
)
def test_servers_have_the_names_of_their_services(
    name: str, reached: list[str], not_reached: list[str], tmp_path: Path
) -> None:
    server = strict_server(mounted(made(wanted()[name]), tmp_path / "server"))
    client = strict_client(mounted(made(wanted()["shop-operator-tls"]), tmp_path / "client"))
    for host in reached:
        shake(server, client, host)
    for host in not_reached:
        with pytest.raises(ssl.SSLCertVerificationError, match=r"mismatch|not valid for"):
            shake(server, client, host)


@pytest.mark.parametrize("name", ["shop-client-tls", "shop-operator-tls"])
def test_the_certificates_of_clients_are_no_servers(name: str, tmp_path: Path) -> None:
    server = strict_server(mounted(made(wanted()[name]), tmp_path / "server"))
    client = strict_client(mounted(made(wanted()["shop-client-tls"]), tmp_path / "client"))
    client.check_hostname = False
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        shake(server, client, "localhost")


@pytest.mark.parametrize("name", sorted(wanted()))
def test_a_verifier_with_another_clock_takes_it_within_its_lifetime_only(name: str) -> None:
    one = wanted()[name]
    shown = certificate(made(one))
    policy = verification.PolicyBuilder().store(verification.Store([CA.certificate]))

    def accepts(now: datetime) -> bool:
        try:
            policy.time(now).build_client_verifier().verify(shown, [])
            if ExtendedKeyUsageOID.SERVER_AUTH in one.usages:
                host = x509.DNSName(one.dns_names[-1].replace("*", "shop-voter-0"))
                policy.time(now).build_server_verifier(host).verify(shown, [])
        except verification.VerificationError:
            return False
        return True

    assert [accepts(NOW + timedelta(days=days)) for days in (-1, 0, 364, 366)] == [False, True, True, False]
    assert accepts(NOW - timedelta(minutes=59))


def test_a_renewed_certificate_needs_no_restart(tmp_path: Path) -> None:
    """A voter and its peers go on with the contexts that they started with."""
    one = wanted()["shop-peer-tls"]
    files = mounted(made(one), tmp_path)
    server, client = server_context(files), client_context(files, PEERS)
    renewed = made(one)
    mounted(renewed, tmp_path)
    time.sleep(LOOK_SECONDS + 0.1)
    seen, shown = shake(server, client.context(), "shop-voter-0.shop-peers.default.svc")
    for side in (seen, shown):
        der = side.getpeercert(binary_form=True)
        assert der is not None
        assert x509.load_der_x509_certificate(der) == certificate(renewed)


# ---- clusters that an earlier operator made ----------------------------------------------------------------------


def _earlier() -> tuple[authority.Authority, dict[str, Object]]:
    pem, key = earlier.make_ca("shop")
    ca = authority.load(SHOP, earlier.secret(SHOP, "shop-ca", pem, key, pem), [], datetime.now(UTC))
    assert ca is not None
    return ca, {secret["metadata"]["name"]: secret for secret in earlier.all_secrets(SHOP, pem, key)}


def test_earlier_certificates_are_issued_again_by_the_same_ca() -> None:
    ca, before = _earlier()
    now = datetime.now(UTC)
    reasons = {name: due(before.get(name), one, ca.certificate, now) for name, one in wanted().items()}
    assert reasons.pop("berlin-0a-tls") == reasons.pop("berlin-0b-tls") == "there is none yet"
    assert set(reasons) == {"shop-peer-tls", "shop-server-tls", "shop-client-tls", "shop-operator-tls"}
    assert all(reasons.values())
    assert "3650 days instead of 365" in reasons["shop-client-tls"]
    for one in wanted().values():
        assert due(authority.secret(SHOP, one, ca, now), one, ca.certificate, now) == ""


def test_members_before_and_after_the_renewal_accept_each_other(tmp_path: Path) -> None:
    ca, before = _earlier()
    after = {name: authority.secret(SHOP, one, ca, NOW) for name, one in wanted().items()}
    old, new = (mounted(s["shop-peer-tls"], tmp_path / when) for when, s in (("old", before), ("new", after)))
    # Voters made by 0.1.0 have one certificate, for clients and for peers.
    oldest = mounted(before["shop-server-tls"], tmp_path / "oldest")
    oldest_after = mounted(after["shop-server-tls"], tmp_path / "oldest-after")
    kinds = (old, new, oldest, oldest_after)
    for one in kinds:
        for other in kinds:
            client = client_context(one, PEERS_AND_EARLIER).context()
            seen, shown = shake(server_context(other), client, "shop-voter-1.shop-peers.default.svc")
            assert PEERS_AND_EARLIER.refusal(seen.getpeercert()) == PEERS_AND_EARLIER.refusal(shown.getpeercert()) == ""


def test_clients_and_edges_before_and_after_the_renewal_accept_each_other(tmp_path: Path) -> None:
    ca, before = _earlier()
    after = {name: authority.secret(SHOP, one, ca, NOW) for name, one in wanted().items()}
    before["berlin-0a-tls"] = before["shop-edge-tls"]
    files = {
        (when, name): mounted(secrets[name], tmp_path / when / name)
        for when, secrets in (("before", before), ("after", after))
        for name in ("shop-server-tls", "shop-client-tls", "shop-operator-tls", "berlin-0a-tls")
    }
    servers = [
        ("shop-server-tls", "shop-client.default.svc"),
        ("shop-server-tls", "berlin-replica.default.svc"),  # replicas made by 0.1.0
        ("berlin-0a-tls", "berlin-replica.default.svc"),
    ]
    for server, host in servers:
        for when in ("before", "after"):
            for client in files.values():
                shake(server_context(files[when, server]), client_context(client, CertNames()).context(), host)


# ---- tls.extraSANs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "shop.example.com",
        "*.example.com",
        "x-1.y",
        "192.0.2.7",
        "::2",
        "2001:DB8::7",
        "::ffff:192.0.2.7",
        "a" * 63,
    ],
)
def test_extra_names_are_dns_names_and_addresses(name: str) -> None:
    one = wanted(name)["shop-server-tls"]
    assert due(made(one), one, CA.certificate, NOW) == ""
    assert len(one.dns_names) + len(one.ip_addresses) == len(SERVER.dns_names) + len(SERVER.ip_addresses) + 1


NEITHER = [
    *("", "*", "*.com", "a.*.example.com", "-a", "a-", "a..b", "a.", "a b", "a\n", "ü.example", "Shop.example.com"),
    *("1.2.3", "300.1.1.1", "010.0.0.1", "10.0.0.0/8", ":", "1::2::3", "fe80::1%eth0"),
    *("holdfast://shop/peer", "a:80", "a" * 64, ".".join(["a" * 60] * 5)),
]


@pytest.mark.parametrize("name", NEITHER)
def test_what_is_neither_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=r"tls\.extraSANs\.0"):
        spec(name)


def test_at_most_32_extra_names() -> None:
    names: Any = [f"a{n}.example.com" for n in range(33)]
    spec(*names[:32])
    with pytest.raises(ValidationError, match=r"tls\.extraSANs"):
        spec(*names)
