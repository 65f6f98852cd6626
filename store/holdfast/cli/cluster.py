"""`holdfast status|member|lease`: commands on the cluster, its members and leases."""

from __future__ import annotations

from typing import Annotated

import typer

from holdfast import client
from holdfast.cli.errors import fail
from holdfast.cli.session import (
    LOCAL,
    Endpoints,
    Output,
    Timeout,
    TlsDir,
    User,
    as_json,
    check_output,
    run,
    table,
    text,
)
from holdfast.proto import rpc_pb2

member = typer.Typer(help="List and change the members of the cluster.", no_args_is_help=True)
lease = typer.Typer(help="Grant, inspect and revoke leases.", no_args_is_help=True)


def status(
    endpoints: Endpoints = LOCAL,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 5.0,
    output: Output = "table",
) -> None:
    """Show identity and progress of each endpoint. Exit code 1 if one does not answer."""
    check_output(output)
    down: list[str] = []

    async def work(hf: client.Client) -> None:
        found: list[dict[str, object]] = []
        for endpoint in hf.connection.endpoints:
            try:
                found.append(await _describe(hf, endpoint))
            except client.Unavailable:
                down.append(endpoint)
                found.append({"endpoint": endpoint, "state": "UNREACHABLE"})
        if output == "json":
            as_json(found)
            return
        columns = ["ENDPOINT", "NAME", "STATE", "LEADER", "REVISION", "TERM", "INDEX", "STALENESS"]
        table(columns, [[row.get(c.lower(), "") for c in columns] for row in found])

    run(endpoints, tls_dir, user, timeout, work)
    if down:
        fail(f"no answer from {', '.join(down)}")


async def _describe(hf: client.Client, endpoint: str) -> dict[str, object]:
    node = await hf.describe(endpoint)
    states = {0: "EMPTY", 1: "FORMED", 2: "MEMBER", 3: "REMOVED", 4: "REPLICA"}
    row: dict[str, object] = {
        "endpoint": endpoint,
        "name": node.name,
        "state": states.get(node.state, "?"),
        "id": f"{node.member_id or node.volume_id:x}",
        "cluster": f"{node.cluster_id:x}",
        "leader": "yes" if node.leader and node.leader == node.member_id else "",
        "revision": node.revision,
        "term": node.term,
        "index": node.applied_index,
        "version": node.version,
        "cluster_version": node.cluster_version,
        "replicas": {r.replica: r.watermark for r in node.replicas if not r.offline_since},
    }
    if node.state == node.REPLICA:
        known = f"≤ {node.staleness_ms / 1000:.1f} s" if node.HasField("staleness_ms") else "unknown"
        row["staleness"] = known if node.connected else f"{known} (disconnected)"
    return row


@member.command("list")
def member_list(
    endpoints: Endpoints = LOCAL,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 10.0,
    output: Output = "table",
) -> None:
    """List the members of the cluster."""
    check_output(output)

    async def work(hf: client.Client) -> None:
        members = await hf.members()
        if output == "json":
            as_json([_member(m) for m in members])
        elif output == "simple":
            for m in members:
                state = "started" if m.name else "unstarted"
                urls = f"{','.join(m.peerURLs)}, {','.join(m.clientURLs)}"
                print(f"{m.ID:x}, {state}, {m.name}, {urls}, {str(m.isLearner).lower()}")
        else:
            columns = ["ID", "NAME", "ROLE", "PEERS", "CLIENTS"]
            table(columns, [[v for k, v in _member(m).items()] for m in members])

    run(endpoints, tls_dir, user, timeout, work)


def _member(m: rpc_pb2.Member) -> dict[str, str]:
    role = "learner" if m.isLearner else "voter"
    return {
        "id": f"{m.ID:x}",
        "name": m.name or "(not started)",
        "role": role,
        "peer_urls": ",".join(m.peerURLs),
        "client_urls": ",".join(m.clientURLs),
    }


@member.command("add")
def member_add(
    peer_urls: Annotated[str, typer.Argument(help="URLs at which other members will reach it: URL,URL,…")],
    learner: Annotated[
        bool, typer.Option(help="Add it as a learner, which does not vote; promote it once it has caught up.")
    ] = True,
    endpoints: Endpoints = LOCAL,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 10.0,
) -> None:
    """Add a member. Then start it with --initial-cluster-state existing and an empty data directory."""

    async def work(hf: client.Client) -> None:
        added = await hf.member_add(peer_urls.split(","), learner=learner)
        print(f"member {added:x} added{' as a learner' if learner else ''}")

    run(endpoints, tls_dir, user, timeout, work)


@member.command("promote")
def member_promote(
    member_id: Annotated[str, typer.Argument(help="Id of the learner, as shown by `member list`.")],
    endpoints: Endpoints = LOCAL,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 10.0,
) -> None:
    """Promote a learner that has caught up to a voting member."""

    async def work(hf: client.Client) -> None:
        await hf.member_promote(_member_id(member_id))
        print(f"member {member_id} votes")

    run(endpoints, tls_dir, user, timeout, work)


@member.command("remove")
def member_remove(
    member_id: Annotated[str, typer.Argument(help="Id of the member, as shown by `member list`.")],
    endpoints: Endpoints = LOCAL,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 10.0,
) -> None:
    """Remove a member permanently: its id is never used again."""

    async def work(hf: client.Client) -> None:
        await hf.member_remove(_member_id(member_id))
        print(f"member {member_id} removed")

    run(endpoints, tls_dir, user, timeout, work)


def _member_id(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        return fail(f"{text!r} is not the id of a member; `holdfast member list` shows the ids", 2)


@lease.command("grant")
def lease_grant(
    ttl: Annotated[int, typer.Argument(help="Time to live in seconds.")],
    endpoints: Endpoints = LOCAL,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 10.0,
) -> None:
    """Grant a lease that expires after TTL seconds unless it is kept alive."""

    async def work(hf: client.Client) -> None:
        granted = await hf.lease(ttl)
        await granted.release()
        print(f"lease {granted.id:016x} granted with TTL({granted.ttl}s)")

    run(endpoints, tls_dir, user, timeout, work)


@lease.command("revoke")
def lease_revoke(
    id: Annotated[str, typer.Argument(help="Id of the lease, hexadecimal.")],
    endpoints: Endpoints = LOCAL,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 10.0,
) -> None:
    """Revoke a lease now and delete the keys attached to it."""
    number = _lease_id(id)

    async def work(hf: client.Client) -> None:
        await hf.connection.call(
            "/etcdserverpb.Lease/LeaseRevoke",
            rpc_pb2.LeaseRevokeRequest(ID=number),
            rpc_pb2.LeaseRevokeResponse,
            idempotent=True,
        )
        print(f"lease {number:016x} revoked")

    run(endpoints, tls_dir, user, timeout, work)


@lease.command("ttl")
def lease_ttl(
    id: Annotated[str, typer.Argument(help="Id of the lease, hexadecimal.")],
    endpoints: Endpoints = LOCAL,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 10.0,
) -> None:
    """Show the remaining time to live of a lease, and the keys attached to it."""
    number = _lease_id(id)
    gone: list[bool] = []

    async def work(hf: client.Client) -> None:
        answer = await hf.connection.call(
            "/etcdserverpb.Lease/LeaseTimeToLive",
            rpc_pb2.LeaseTimeToLiveRequest(ID=number, keys=True),
            rpc_pb2.LeaseTimeToLiveResponse,
            idempotent=True,
        )
        gone.append(answer.TTL < 0)
        if answer.TTL >= 0:
            keys = ", ".join(text(key) for key in answer.keys) or "no keys"
            print(f"{answer.TTL} s of {answer.grantedTTL} s left; {keys}")

    run(endpoints, tls_dir, user, timeout, work)
    if gone[0]:
        fail(f"lease {number:016x} is not there: it expired or was revoked")


def _lease_id(word: str) -> int:
    try:
        return int(word, 16)
    except ValueError:
        fail(f"{word!r} is not a hexadecimal lease id", 2)
