"""`holdfast edge`: runs one edge replica, or shows all of them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from holdfast.cli.edge_export import export
from holdfast.cli.edge_report import report
from holdfast.cli.edge_status import status
from holdfast.cli.errors import fail
from holdfast.cli.logs import set_up_logging
from holdfast.cli.options import (
    CertFile,
    FlagsPrefix,
    KeyFile,
    ListenClientUrls,
    ListenMetricsUrls,
    LogLevel,
    TrustedCaFile,
)
from holdfast.cli.parsing import parse_urls
from holdfast.durations import seconds
from holdfast.garbage import collect_nothing_yet

if TYPE_CHECKING:
    from holdfast.edge.offline import Policy
    from holdfast.edge.site_keys import Site


class _Replica(TyperGroup):
    """A command after `edge` needs none of the options of a replica."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.resilient_parsing = bool(args) and args[0] in self.commands
        rest = super().parse_args(ctx, args)
        ctx.resilient_parsing = False
        return rest


edge = typer.Typer(cls=_Replica)
edge.command("status")(status)
edge.command("export")(export)
edge.command("report")(report)


@edge.callback(invoke_without_command=True)
def replica(
    context: typer.Context,
    endpoints: Annotated[str, typer.Option(help="Members to follow, and to forward to: HOST:PORT,HOST:PORT,…")],
    prefix: Annotated[
        list[str], typer.Option(help="Hold all keys that begin with this prefix. May be given several times.")
    ],
    parents: Annotated[
        str,
        typer.Option(
            help="Replicas to follow instead of --endpoints while they reach the cluster: HOST:PORT,… They need to "
            "have all prefixes of this one. Default: none."
        ),
    ] = "",
    name: Annotated[str, typer.Option(help="Name of this replica.")] = "replica",
    pool: Annotated[str, typer.Option(help="Name of the pool that this replica belongs to. Default: none.")] = "",
    data_dir: Annotated[Path, typer.Option(help="Data directory of this replica.")] = Path("replica.holdfast"),
    listen_client_urls: ListenClientUrls = "http://localhost:2379",
    listen_metrics_urls: ListenMetricsUrls = "",
    cert_file: CertFile = None,
    key_file: KeyFile = None,
    trusted_ca_file: TrustedCaFile = None,
    client_cert_auth: Annotated[
        bool,
        typer.Option(
            help="The common name of a client's certificate is its user, as at a member. --trusted-ca-file alone "
            "requires client certificates."
        ),
    ] = False,
    upstream_tls_dir: Annotated[
        Path | None,
        typer.Option(
            help="Directory with ca.crt, tls.crt and tls.key for TLS to --endpoints. Default: no TLS, or for https:// "
            "endpoints the CAs of the system."
        ),
    ] = None,
    anonymous_reads: Annotated[
        bool,
        typer.Option(help="Serve the prefixes to everyone who can connect, even if auth is on in the cluster."),
    ] = False,
    offline_tokens: Annotated[
        str,
        typer.Option(
            help="For how long a caller's token is honoured after a member has checked it, if the replica is cut off: "
            "30m, 24h, … Never beyond the token's own end."
        ),
    ] = "1h",
    offline: Annotated[
        list[str],
        typer.Option(
            help="What is served while the replica is cut off: PREFIX=serve (the default), PREFIX=require-online, or "
            "PREFIX=serve-until=24h. May be given several times; the longest prefix of a key decides."
        ),
    ] = [],  # noqa: B006 (typer copies it)
    verify_every: Annotated[
        str,
        typer.Option(
            help="How often all data is compared with that of the server that the replica follows: 24h, … 0s: never."
        ),
    ] = "24h",
    site: Annotated[
        str,
        typer.Option(
            help="Name of the site that this replica is of. Keys below /local/SITE/ are written at the site only, also "
            "while it is cut off, and reported to the cluster. Default: none."
        ),
    ] = "",
    site_writer: Annotated[
        str,
        typer.Option(
            help="The replica that writes the keys of the site: NAME=HOST:PORT, the same at all replicas of the site; "
            "the others follow it there."
        ),
    ] = "",
    flags_prefix: FlagsPrefix = "/flags/",
    log_level: LogLevel = "info",
) -> None:
    """Run an edge replica, which holds some prefixes of a cluster and serves them even while disconnected from it."""
    if context.invoked_subcommand is not None:
        if endpoints:
            fail(f"options of `edge {context.invoked_subcommand}` come after its name", 2)
        return
    collect_nothing_yet()
    try:
        from holdfast.client.connection import Tls
        from holdfast.client.endpoints import parse
        from holdfast.edge.server import EdgeConfig, EdgeServer
        from holdfast.process import StartError, run_until_signal, share_one_arena
        from holdfast.tls import TlsError, TlsFiles
    except ModuleNotFoundError as error:
        fail(f"{error.name} is not installed; a replica needs it: pip install 'holdfast[server]'")
    set_up_logging(log_level, name)
    overlap = next(((a, b) for a in prefix for b in prefix if a is not b and b.startswith(a)), None)
    if overlap is not None:
        fail(f"--prefix {overlap[0]!r} already covers {overlap[1]!r}; give one of them")
    if any(not p for p in prefix):
        fail("--prefix is empty; to hold everything, run a member or name the top prefixes")
    if not flags_prefix:
        fail("--flags-prefix is empty")
    if client_cert_auth and trusted_ca_file is None:
        fail("--client-cert-auth needs --trusted-ca-file, the CA to verify clients by")
    honoured, between = _seconds("--offline-tokens", offline_tokens), _seconds("--verify-every", verify_every)
    policies = _policies(offline, prefix)
    of_site = _site(site, site_writer, prefix)
    try:
        listed, upstream_tls = parse(endpoints, Tls.from_directory(upstream_tls_dir) if upstream_tls_dir else None)
    except ValueError as error:
        fail(f"--endpoints: {error}")
    try:
        above, _ = parse(parents, upstream_tls) if parents else ([], None)
    except ValueError as error:
        fail(f"--parents: {error}")
    try:
        config = EdgeConfig(
            name=name,
            data_dir=data_dir,
            prefixes=tuple(sorted(prefix)),
            endpoints=tuple(listed),
            parents=tuple(above),
            listen_client_urls=parse_urls(listen_client_urls),
            listen_metrics_urls=parse_urls(listen_metrics_urls) if listen_metrics_urls else (),
            pool=pool,
            server_tls=TlsFiles(cert_file, key_file, trusted_ca_file),
            upstream_tls=upstream_tls,
            anonymous_reads=anonymous_reads,
            trust_common_names=client_cert_auth,
            offline=policies,
            verify_seconds=between,
            offline_token_seconds=honoured,
            site=of_site,
            flags_prefix=flags_prefix,
        )

        async def main(stop: asyncio.Event) -> None:
            await EdgeServer(config).run(stop)

        share_one_arena()
        run_until_signal(main)
    except StartError as error:
        fail(str(error), error.code)
    except TlsError as error:
        fail(str(error))


def _seconds(option: str, text: str) -> float:
    try:
        return seconds(text)
    except ValueError as error:
        fail(f"{option}: {error}")


def _site(name: str, writer: str, prefixes: list[str]) -> Site | None:
    """--site and --site-writer."""
    from holdfast.client.endpoints import parse
    from holdfast.edge.site_keys import ALL_SITES, Site

    if bool(name) != bool(writer):
        fail("--site and --site-writer belong together: the name of the site, and which replica writes its keys")
    if not name:
        return None
    local = ALL_SITES.decode()
    for prefix in prefixes:
        if prefix.startswith(local) or local.startswith(prefix):
            fail(f"--prefix {prefix!r} has keys below {local}, which with --site are keys of the site")
    replica, found, address = writer.partition("=")
    try:
        (address,), _ = parse(address, None)
        if not found or not replica:
            raise ValueError("give NAME=HOST:PORT")
    except ValueError as error:
        fail(f"--site-writer {writer!r}: {error}")
    try:
        return Site(name, replica, address)
    except ValueError as error:
        fail(f"--site: {error}")


def _policies(texts: list[str], prefixes: list[str]) -> tuple[Policy, ...]:
    """--offline."""
    from holdfast.edge.offline import parse_policy

    try:
        parsed = tuple(map(parse_policy, texts))
    except ValueError as error:
        fail(f"--offline: {error}")
    for policy in parsed:
        if not policy.prefix.startswith(tuple(prefixes)):
            fail(f"--offline: {policy.prefix} is not below a --prefix")
    return parsed
