"""`holdfast put|get|del|txn|watch`: keys at the command line."""

from __future__ import annotations

import sys
from typing import Annotated, Any

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

Prefix = Annotated[bool, typer.Option("--prefix", help="All keys that begin with KEY.")]


def put(
    key: str,
    value: Annotated[str, typer.Argument(help="The value; - reads it from standard input.")],
    lease: Annotated[str, typer.Option(help="Attach the key to this lease (hexadecimal).")] = "0",
    endpoints: Endpoints = LOCAL,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 10.0,
    output: Output = "table",
) -> None:
    """Write a key."""
    check_output(output)
    data = sys.stdin.buffer.read() if value == "-" else value.encode()
    try:
        lease_id = int(lease, 16)
    except ValueError:
        fail(f"--lease {lease!r} is not a hexadecimal id", 2)

    async def work(hf: client.Client) -> None:
        result = await hf.put(key, data, lease=lease_id)
        if output == "json":
            as_json({"revision": result.revision})
        else:
            print("OK" if output == "simple" else f"OK at revision {result.revision}")

    run(endpoints, tls_dir, user, timeout, work)


def get(
    key: str,
    prefix: Prefix = False,
    rev: Annotated[int, typer.Option(help="As of this revision.")] = 0,
    limit: Annotated[int, typer.Option(help="At most so many keys.")] = 0,
    keys_only: Annotated[bool, typer.Option(help="Without the values.")] = False,
    serializable: Annotated[
        bool, typer.Option("--serializable", help="What the asked server has, even if it is old or cut off.")
    ] = False,
    endpoints: Endpoints = LOCAL,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 10.0,
    output: Output = "table",
) -> None:
    """Read a key, or all that begin with it. Exit code 1 if a single key is not there."""
    check_output(output)
    found: list[int] = []

    async def work(hf: client.Client) -> None:
        result = await hf.range(
            key, prefix=prefix, revision=rev, limit=limit, keys_only=keys_only, serializable=serializable
        )
        found.append(len(result.kvs))
        if output == "json":
            kvs = [_json(kv) for kv in result.kvs]
            as_json({"revision": result.revision, "count": result.count, "more": result.more, "kvs": kvs})
        elif output == "simple":
            for kv in result.kvs:
                print(text(kv.key))
                if not keys_only:
                    print(text(kv.value))
        elif result.kvs:
            columns = ["KEY", "REVISION", "VERSION"] if keys_only else ["KEY", "REVISION", "VERSION", "VALUE"]
            table(columns, [_row(kv, keys_only) for kv in result.kvs])
            if result.more:
                print(f"… {result.count - len(result.kvs)} more")

    run(endpoints, tls_dir, user, timeout, work)
    if not prefix and not found[0]:
        fail(f"{key} is not there")


def _json(kv: client.KeyValue) -> dict[str, object]:
    return {
        "key": text(kv.key),
        "value": text(kv.value),
        "create_revision": kv.create_revision,
        "mod_revision": kv.mod_revision,
        "version": kv.version,
        "lease": f"{kv.lease:x}" if kv.lease else "",
    }


def _row(kv: client.KeyValue, keys_only: bool) -> list[object]:
    row: list[object] = [text(kv.key), kv.mod_revision, kv.version]
    return row if keys_only else [*row, text(kv.value)]


def delete(
    key: str,
    prefix: Prefix = False,
    endpoints: Endpoints = LOCAL,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 10.0,
    output: Output = "table",
) -> None:
    """Delete a key, or all that begin with it."""
    check_output(output)

    async def work(hf: client.Client) -> None:
        result = await hf.delete(key, prefix=prefix)
        if output == "json":
            as_json({"revision": result.revision, "deleted": result.deleted})
        elif output == "simple":
            print(result.deleted)
        else:
            print(f"{result.deleted} deleted, at revision {result.revision}")

    run(endpoints, tls_dir, user, timeout, work)


def txn(
    if_: Annotated[
        list[str] | None,
        typer.Option(
            "--if", help="FIELD(KEY) OP VALUE; FIELD is value, version, mod, create or lease; OP is = != < >."
        ),
    ] = None,
    then: Annotated[list[str] | None, typer.Option("--then", help="put KEY VALUE, get KEY or del KEY.")] = None,
    else_: Annotated[list[str] | None, typer.Option("--else", help="The same, if a compare does not hold.")] = None,
    endpoints: Endpoints = LOCAL,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 10.0,
    output: Output = "table",
) -> None:
    """Several operations at once, if all compares hold.

    holdfast txn --if 'version(/lock) = 0' --then 'put /lock me' --else 'get /lock'
    """
    check_output(output)
    try:
        compares = [_compare(words) for words in if_ or []]
        then_ops = [_op(words) for words in then or []]
        else_ops = [_op(words) for words in else_ or []]
    except ValueError as error:
        fail(str(error), 2)

    async def work(hf: client.Client) -> None:
        result = await hf.txn().if_(*compares).then(*then_ops).else_(*else_ops).commit()
        if output == "json":
            responses = [[_json(kv) for kv in r] if isinstance(r, list) else r for r in result.responses]
            as_json({"succeeded": result.succeeded, "revision": result.revision, "responses": responses})
            return
        print("SUCCESS" if result.succeeded else "FAILURE")
        for response in result.responses:
            for kv in response if isinstance(response, list) else ():
                print(text(kv.key), text(kv.value), sep="\n")

    run(endpoints, tls_dir, user, timeout, work)


_FIELDS = {
    "value": "value",
    "version": "version",
    "mod": "mod_revision",
    "create": "create_revision",
    "lease": "lease",
}


def _compare(words: str) -> rpc_pb2.Compare:
    head, _, rest = words.strip().partition(")")
    field, found, key = head.partition("(")
    parts = rest.split(None, 1)
    if not found or field not in _FIELDS or len(parts) != 2 or parts[0] not in ("=", "!=", "<", ">"):
        raise ValueError(f"{words!r} is not a compare: write for example 'version(/a) = 0'")
    value: int | str = parts[1].strip('"') if field == "value" else _number(parts[1], words)
    side: Any = getattr(client.Client.key(key.strip('"')), _FIELDS[field])
    compares = {"=": side.__eq__, "!=": side.__ne__, "<": side.__lt__, ">": side.__gt__}
    compare: rpc_pb2.Compare = compares[parts[0]](value)
    return compare


def _number(word: str, words: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise ValueError(f"{words!r}: {word!r} is not a number") from None


def _op(words: str) -> rpc_pb2.RequestOp:
    verb, _, rest = words.strip().partition(" ")
    parts = rest.split(" ", 1) if verb == "put" else [rest]
    if verb == "put" and len(parts) == 2:
        return client.Client.op.put(parts[0], parts[1])
    if verb == "get" and rest:
        return client.Client.op.get(rest)
    if verb == "del" and rest:
        return client.Client.op.delete(rest)
    raise ValueError(f"{words!r} is not an operation: write 'put KEY VALUE', 'get KEY' or 'del KEY'")


def watch(
    key: str,
    prefix: Prefix = False,
    rev: Annotated[int, typer.Option(help="From this revision on; 0 = from now.")] = 0,
    endpoints: Endpoints = LOCAL,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 10.0,
    output: Output = "table",
) -> None:
    """Print changes as they come, until Ctrl-C."""
    check_output(output)

    async def work(hf: client.Client) -> None:
        async for event in hf.watch(key, prefix=prefix, start_revision=rev):
            kv = event.kv
            if output == "json":
                as_json({"type": event.type, **_json(kv)})
            elif output == "simple":
                print(event.type.upper(), text(kv.key), *([text(kv.value)] if event.type == "put" else []), sep="\n")
            else:
                print(f"{kv.mod_revision:>8}  {event.type:<6}  {text(kv.key)}  {text(kv.value)}".rstrip())
            sys.stdout.flush()

    run(endpoints, tls_dir, user, timeout, work)
