"""`holdfast put|get|del|txn|watch`: commands on keys."""

from __future__ import annotations

import base64
import logging
import os
import re
import shlex
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
from holdfast.durations import seconds
from holdfast.proto import rpc_pb2
from holdfast.status import REPLICA_DISCONNECTED, REPLICA_TOO_OLD

Prefix = Annotated[bool, typer.Option("--prefix", help="Apply to all keys that begin with KEY.")]


def put(
    key: str,
    value: Annotated[str, typer.Argument(help="The value; - reads it from standard input.")],
    lease: Annotated[str, typer.Option(help="Id of the lease to attach the key to, hexadecimal; 0: none.")] = "0",
    endpoints: Endpoints = LOCAL,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 10.0,
    output: Output = "table",
) -> None:
    """Write the value of a key."""
    check_output(output)
    data = sys.stdin.buffer.read() if value == "-" else os.fsencode(value)
    try:
        lease_id = int(lease, 16)
    except ValueError:
        fail(f"--lease {lease!r} is not a hexadecimal id", 2)

    async def work(hf: client.Client) -> None:
        result = await hf.put(os.fsencode(key), data, lease=lease_id)
        if output == "json":
            as_json({"revision": result.revision})
        else:
            print("OK" if output == "simple" else f"OK at revision {result.revision}")

    run(endpoints, tls_dir, user, timeout, work)


def get(
    key: str,
    prefix: Prefix = False,
    rev: Annotated[int, typer.Option(help="Read the state as of this revision; 0: the newest.")] = 0,
    limit: Annotated[int, typer.Option(help="Maximum number of keys; 0: no limit.")] = 0,
    keys_only: Annotated[bool, typer.Option(help="Show keys without values.")] = False,
    serializable: Annotated[
        bool, typer.Option("--serializable", help="Read what the server has, even if it is stale or disconnected.")
    ] = False,
    max_staleness: Annotated[
        str, typer.Option(help="Read what is at most so old: 2, 2s or 500ms. An edge replica may answer it.")
    ] = "",
    endpoints: Endpoints = LOCAL,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 10.0,
    output: Output = "table",
) -> None:
    """Read a key, or all keys with a prefix. Exit code 1 if a single key does not exist."""
    check_output(output)
    oldest = _staleness(max_staleness)
    if oldest is not None and serializable:
        fail("--max-staleness and --serializable exclude each other: --serializable reads whatever the server has", 2)
    found: list[int] = []

    async def work(hf: client.Client) -> None:
        try:
            result = await hf.range(
                os.fsencode(key),
                prefix=prefix,
                revision=rev,
                limit=limit,
                keys_only=keys_only,
                serializable=serializable,
                max_staleness=oldest,
            )
        except client.Unavailable as error:
            if error.known not in (REPLICA_DISCONNECTED, REPLICA_TOO_OLD):
                raise
            raise client.Unavailable(f"{error}; --serializable reads what it has", error.known) from None
        found.append(len(result.kvs))
        if output == "json":
            kvs = [_json(kv) for kv in result.kvs]
            read = {"revision": result.revision, "count": result.count, "more": result.more}
            as_json({**read, **_freshness(result.freshness), "kvs": kvs})
        elif output == "simple":
            for kv in result.kvs:
                _print_raw(kv.key, *([] if keys_only else [kv.value]))
        elif result.kvs:
            columns = ["KEY", "REVISION", "VERSION"] if keys_only else ["KEY", "REVISION", "VERSION", "VALUE"]
            table(columns, [_row(kv, keys_only) for kv in result.kvs])
            if result.more:
                print(f"… {result.count - len(result.kvs)} more")

    run(endpoints, tls_dir, user, timeout, work)
    if not prefix and not found[0]:
        fail(f"{text(os.fsencode(key))} is not there")


def _staleness(text: str) -> float | None:
    """Seconds; None if it was not given."""
    try:
        if not text:
            return None
        return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else seconds(text)
    except ValueError as error:
        fail(f"--max-staleness: {error}", 2)


def _freshness(told: client.Freshness | None) -> dict[str, object]:
    """As JSON; nothing if the server does not say it."""
    if told is None:
        return {}
    return {"read": told.read, "position": str(told.position), "bound_seconds": told.bound}


def _json(kv: client.KeyValue) -> dict[str, object]:
    """As JSON, with keys and values in base64 as in etcdctl: they are bytes, and need not be text."""
    return {
        "key": base64.b64encode(kv.key).decode(),
        "value": base64.b64encode(kv.value).decode(),
        "create_revision": kv.create_revision,
        "mod_revision": kv.mod_revision,
        "version": kv.version,
        "lease": f"{kv.lease:x}" if kv.lease else "",
    }


def _print_raw(*parts: bytes) -> None:
    """Print each part on a line, with its bytes unchanged."""
    sys.stdout.flush()
    sys.stdout.buffer.write(b"".join(part + b"\n" for part in parts))
    sys.stdout.buffer.flush()


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
    """Delete a key, or all keys with a prefix."""
    check_output(output)

    async def work(hf: client.Client) -> None:
        result = await hf.delete(os.fsencode(key), prefix=prefix)
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
            "--if",
            help="Compare: FIELD(KEY) OP VALUE. FIELD is value, version, mod, create or lease; OP is = != < >. May be "
            "given several times.",
        ),
    ] = None,
    then: Annotated[
        list[str] | None,
        typer.Option(
            "--then",
            help="Operation if all compares hold: put KEY VALUE, get KEY or del KEY, quoted as in a shell. May be "
            "given several times.",
        ),
    ] = None,
    else_: Annotated[
        list[str] | None, typer.Option("--else", help="Operation, as in --then, if a compare does not hold.")
    ] = None,
    endpoints: Endpoints = LOCAL,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 10.0,
    output: Output = "table",
) -> None:
    """Execute several operations atomically, chosen by whether all compares hold.

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
                _print_raw(kv.key, kv.value)

    run(endpoints, tls_dir, user, timeout, work)


_FIELDS = {
    "value": "value",
    "version": "version",
    "mod": "mod_revision",
    "create": "create_revision",
    "lease": "lease",
}


_COMPARE = re.compile(r"""\s*(\w+)\(\s*("(?:[^"\\]|\\.)*"|'[^']*'|[^)]*)\)\s*(!=|=|<|>)\s*(.*)""", re.DOTALL)


def _compare(line: str) -> rpc_pb2.Compare:
    match = _COMPARE.fullmatch(line)
    field, key, operator, side = match.groups() if match else ("", "", "", "")
    keys, values = _words(key, line), _words(side, line)
    if field not in _FIELDS or len(keys) != 1 or len(values) != 1:
        raise ValueError(f"{line!r} is not a compare: write for example 'version(/a) = 0'")
    value: int | bytes = values[0] if field == "value" else _number(values[0], line)
    compared: Any = getattr(client.Client.key(keys[0]), _FIELDS[field])
    compares = {"=": compared.__eq__, "!=": compared.__ne__, "<": compared.__lt__, ">": compared.__gt__}
    compare: rpc_pb2.Compare = compares[operator](value)
    return compare


def _words(text: str, line: str) -> list[bytes]:
    """Split and unquote `text` as a shell does. Raises ValueError."""
    try:
        return [os.fsencode(word) for word in shlex.split(text)]
    except ValueError as error:
        raise ValueError(f"{line!r}: {error}") from None


def _number(word: bytes, line: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise ValueError(f"{line!r}: {os.fsdecode(word)!r} is not a number") from None


def _op(line: str) -> rpc_pb2.RequestOp:
    match _words(line, line):
        case [b"put", key, value]:
            return client.Client.op.put(key, value)
        case [b"get", key]:
            return client.Client.op.get(key)
        case [b"del", key]:
            return client.Client.op.delete(key)
    raise ValueError(
        f"{line!r} is not an operation: write 'put KEY VALUE', 'get KEY' or 'del KEY', with quotes around spaces"
    )


def watch(
    key: str,
    prefix: Prefix = False,
    rev: Annotated[int, typer.Option(help="First revision to show; 0: only changes from now on.")] = 0,
    endpoints: Endpoints = LOCAL,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 10.0,
    output: Output = "table",
) -> None:
    """Print changes as they happen, until Ctrl-C. While no server serves them, the reason is on standard error."""
    check_output(output)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("holdfast.client").setLevel(logging.INFO)

    async def work(hf: client.Client) -> None:
        async for event in hf.watch(os.fsencode(key), prefix=prefix, start_revision=rev):
            kv = event.kv
            if output == "json":
                as_json({"type": event.type, **_json(kv)})
            elif output == "simple":
                _print_raw(event.type.upper().encode(), kv.key, *([kv.value] if event.type == "put" else []))
            else:
                print(f"{kv.mod_revision:>8}  {event.type:<6}  {text(kv.key)}  {text(kv.value)}".rstrip())
            sys.stdout.flush()

    run(endpoints, tls_dir, user, timeout, work)
