"""`holdfast edge status`: shows the tree of edge replicas, as the members of the cluster see it."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterable

from holdfast import client
from holdfast.cli.edge_tree import Entry, tree
from holdfast.cli.errors import fail
from holdfast.cli.session import (
    LOCAL,
    UNAVAILABLE,
    Endpoints,
    Output,
    Timeout,
    TlsDir,
    User,
    as_json,
    check_output,
    run,
    table,
)
from holdfast.proto import holdfast_pb2, rpc_pb2

_COLUMNS = ["NAME", "POOL", "STATE", "LAG", "BOUND", "FILTER"]
Nodes = list[holdfast_pb2.DescribeResponse]
Silent = list[tuple[str, client.ClientError]]  # who did not answer, and why


def status(
    endpoints: Endpoints = LOCAL,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 5.0,
    output: Output = "table",
) -> None:
    """Show which replica follows which server, how far behind it is, and since when it is offline.

    All members are asked, those too that --endpoints does not name. If an endpoint is a replica, those below it are
    shown. Exit code 3 if no server answers."""
    check_output(output)

    async def work(hf: client.Client) -> None:
        nodes, silent = await _ask(hf)
        for name, error in silent:
            print(f"warning: no answer from {printable(f'{name}: {error}')}", file=sys.stderr)
        if not nodes:
            for _, error in silent:
                if isinstance(error, client.Refused):
                    raise error
            fail(f"no server answered. Asked: {endpoints} (set --endpoints or HOLDFAST_ENDPOINTS)", UNAVAILABLE)
        entries, now = tree(nodes), time.time_ns() // 1_000_000
        if output == "json":
            as_json([as_object(entry, now) for entry in entries])
        else:
            sites = any(entry.site for entry in entries)
            rows = [[*cells(entry, now), *([site_cell(entry)] if entry.site else [])] for entry in entries]
            table([*_COLUMNS, *(["SITE"] if sites else [])], rows)

    run(endpoints, tls_dir, user, timeout, work)


async def _ask(hf: client.Client) -> tuple[Nodes, Silent]:
    """What the endpoints answer, and the members of their cluster that are not among them; and who does not answer."""
    nodes: Nodes = []
    silent: Silent = []
    members: dict[int, rpc_pb2.Member] = {}

    async def ask(endpoint: str) -> None:
        name = endpoint
        try:
            nodes.append(node := await hf.describe(endpoint))
            if node.state == node.MEMBER:
                name = f"{endpoint} on who the members are"
                members.update({m.ID: m for m in await _members(hf, endpoint)})
        except client.ClientError as error:
            silent.append((name, error))

    asked = hf.connection.endpoints
    await asyncio.gather(*(ask(endpoint) for endpoint in asked))
    known = {node.member_id for node in nodes}
    for member in members.values():
        if member.ID not in known and not any(address in asked for address in _addresses(member)):
            # One after the other: a client keeps connections to its own endpoints, and to one more.
            nodes += await _other(hf, member, silent)
    return nodes, silent


async def _members(hf: client.Client, endpoint: str) -> Iterable[rpc_pb2.Member]:
    """The members as this one knows them, also without a quorum."""
    request, answer = rpc_pb2.MemberListRequest(linearizable=False), rpc_pb2.MemberListResponse
    path = "/etcdserverpb.Cluster/MemberList"
    return (await hf.connection.call(path, request, answer, idempotent=True, endpoint=endpoint)).members


def _addresses(member: rpc_pb2.Member) -> list[str]:
    return [url.partition("://")[2].rstrip("/") for url in member.clientURLs]


async def _other(hf: client.Client, member: rpc_pb2.Member, silent: Silent) -> Nodes:
    """What a member answers that is none of the endpoints. It may advertise an address that is not its own from here,
    such as one of localhost."""
    why = client.ClientError("it has not started")
    for address in _addresses(member):
        try:
            node = await hf.describe(address)
            if node.member_id == member.ID:
                return [node]
            why = client.ClientError(f"another server answers at {address}, which it advertises")
        except client.ClientError as error:
            why = error
        except ValueError as error:  # no name that can be looked up
            why = client.ClientError(f"{address}: {error}")
    silent.append((member.name or f"{member.ID:x}", why))
    return []


def cells(entry: Entry, now_ms: int) -> list[str]:
    """The row of the table."""
    name = entry.branch + printable(entry.name)
    if entry.kind == "cluster":
        return [f"cluster {name}", "", f"revision {entry.watermark}"]
    if entry.kind == "elsewhere":
        return [name]
    state = entry.state
    if entry.offline_since:
        state += f" {duration((now_ms - entry.offline_since) // 1000)}"
    row = [name, printable(entry.pool), state, _lag(entry)]
    if entry.kind == "replica":
        row += [f"≤ {entry.bound_seconds} s" if entry.bound_seconds else "unknown"]
        row += [f"{entry.filter_version:08x}" if entry.filter_version else ""]
    return row


def site_cell(entry: Entry) -> str:
    """Whether a replica of a site has the site's keys as they are."""
    writer = printable(entry.site_writer)
    away = f": not following {writer}" if entry.site_follows is False else ""
    return f"{printable(entry.site)}{away}"


def _lag(entry: Entry) -> str:
    if not entry.watermark:
        return "loading" if entry.kind == "replica" else ""
    return f"epoch {entry.epoch}" if entry.lag is None else str(entry.lag)


def as_object(entry: Entry, now_ms: int) -> dict[str, object]:
    """The same for programs. What is not known is null."""
    return {
        "kind": entry.kind,
        "name": entry.name,
        "cluster": f"{entry.cluster:x}",
        "pool": entry.pool,
        "state": entry.state,
        "id": f"{entry.volume_id:x}" if entry.volume_id else None,
        "upstream": f"{entry.upstream:x}" if entry.upstream else None,
        "epoch": entry.epoch,
        "watermark": entry.watermark,
        "lag": entry.lag,
        "bound_seconds": entry.bound_seconds or None,
        "offline_since_ms": entry.offline_since or None,
        "offline_seconds": max(0, now_ms - entry.offline_since) // 1000 if entry.offline_since else None,
        "filter_version": f"{entry.filter_version:08x}" if entry.filter_version else None,
        "site": entry.site or None,
        "site_writer": entry.site_writer or None,
        "site_follows": entry.site_follows,
    }


def duration(seconds: int) -> str:
    """The two largest units of it. Clocks differ: what has not begun yet is nothing."""
    minutes, s = divmod(max(0, seconds), 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days}d {h}h"
    if hours:
        return f"{h}h {m}m"
    return f"{m}m {s}s" if minutes else f"{s}s"


def printable(text: str) -> str:
    """Names come from other programs: what would control a terminal is shown as an escape sequence."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
