"""`holdfast serve`: one member, with etcd's flags."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from holdfast.cli.errors import fail


def serve(
    name: Annotated[str, typer.Option(help="What this member is called.")] = "default",
    data_dir: Annotated[Path, typer.Option(help="Where it keeps its data. One directory, one member.")] = Path(
        "default.holdfast"
    ),
    listen_client_urls: Annotated[str, typer.Option(help="Where to serve clients.")] = "http://localhost:2379",
    listen_peer_urls: Annotated[str, typer.Option(help="Where to serve other members.")] = "http://localhost:2380",
    listen_metrics_urls: Annotated[str, typer.Option(help="Where to serve /livez, /readyz and /metrics.")] = "",
    advertise_client_urls: Annotated[str, typer.Option(help="Where clients reach this member.")] = "",
    initial_advertise_peer_urls: Annotated[str, typer.Option(help="Where other members reach this one.")] = "",
    initial_cluster: Annotated[str, typer.Option(help="All founders: NAME=URL,NAME=URL,…")] = "",
    initial_cluster_state: Annotated[
        str, typer.Option(help="new: found a cluster with the others; existing: take a place made by `member add`.")
    ] = "new",
    initial_cluster_token: Annotated[
        str, typer.Option(help="Tells apart clusters founded with the same names.")
    ] = "holdfast-cluster",
    bootstrap: Annotated[
        str, typer.Option(help="static: by --initial-cluster. managed: wait for an operator.")
    ] = "static",
    heartbeat_interval: Annotated[int, typer.Option(help="Milliseconds between a leader's heartbeats.")] = 100,
    election_timeout: Annotated[int, typer.Option(help="Milliseconds without a leader until an election.")] = 1000,
    priority: Annotated[
        int, typer.Option(min=0, help="Who should rather lead: the highest. Give a member at a poor link less.")
    ] = 0,
    lease_reads: Annotated[
        bool,
        typer.Option(
            help="Read by lease instead of asking a quorum each time. Only right while no two clocks differ in rate by "
            "more than --max-clock-drift; give it to all members."
        ),
    ] = False,
    max_clock_drift: Annotated[
        int, typer.Option(min=0, max=100, help="Percent by which the rates of two members' clocks may differ.")
    ] = 10,
    max_learners: Annotated[int, typer.Option(min=0, help="How many learners the cluster may have at once.")] = 1,
    watch_progress_notify_interval: Annotated[
        float, typer.Option(help="Seconds between progress notices of quiet watches.")
    ] = 600.0,
    cert_file: Annotated[Path | None, typer.Option(help="Certificate shown to clients.")] = None,
    key_file: Annotated[Path | None, typer.Option(help="Its key.")] = None,
    trusted_ca_file: Annotated[Path | None, typer.Option(help="CA of the clients' certificates.")] = None,
    client_cert_auth: Annotated[bool, typer.Option(help="Require clients to show a certificate.")] = False,
    peer_cert_file: Annotated[Path | None, typer.Option(help="Certificate shown to other members.")] = None,
    peer_key_file: Annotated[Path | None, typer.Option(help="Its key.")] = None,
    peer_trusted_ca_file: Annotated[Path | None, typer.Option(help="CA of the members' certificates.")] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Run one member of a cluster.

    Alone, with no flags, it founds a cluster of one on localhost:2379.
    """
    try:
        from holdfast.member.node import NodeConfig
        from holdfast.raft.types import Settings
        from holdfast.server import Server, ServerConfig, StartError, TlsFiles, run_until_signal
    except ModuleNotFoundError as error:
        fail(f"{error.name} is not installed; a server needs it: pip install 'holdfast[server]'")
    set_up_logging(log_level, name)
    peer_urls = parse_urls(initial_advertise_peer_urls or listen_peer_urls)
    mode = _mode(bootstrap, initial_cluster_state)
    cluster = _cluster(initial_cluster or f"{name}={peer_urls[0]}") if mode != "managed" else {}
    if mode == "static" and cluster.get(name) not in peer_urls:
        fail(
            f"--initial-cluster names no member {name!r} at {peer_urls[0]}; it has to list this member, with one of "
            "its --initial-advertise-peer-urls"
        )
    if not 0 < heartbeat_interval * 5 <= election_timeout <= 50_000:
        fail("--election-timeout must be at least five --heartbeat-intervals and at most 50000 ms")
    try:
        peer_tls = TlsFiles(peer_cert_file, peer_key_file, peer_trusted_ca_file, True).contexts()
        config = ServerConfig(
            data_dir=data_dir,
            node=NodeConfig(
                name=name,
                advertise_peer_urls=peer_urls,
                advertise_client_urls=parse_urls(advertise_client_urls or listen_client_urls),
                bootstrap=mode,
                initial_cluster=cluster,
                token=initial_cluster_token,
                settings=Settings(
                    election_ns=election_timeout * 1_000_000,
                    heartbeat_ns=heartbeat_interval * 1_000_000,
                    lease_reads=lease_reads,
                    max_clock_drift_percent=max_clock_drift,
                ),
                priority=priority,
                max_learners=max_learners,
                client_tls=peer_tls[0] if peer_tls else None,
                server_tls=peer_tls[1] if peer_tls else None,
            ),
            listen_client_urls=parse_urls(listen_client_urls),
            listen_peer_urls=parse_urls(listen_peer_urls),
            listen_metrics_urls=parse_urls(listen_metrics_urls) if listen_metrics_urls else (),
            client_tls=TlsFiles(cert_file, key_file, trusted_ca_file, client_cert_auth),
            progress_seconds=watch_progress_notify_interval,
        )

        async def main(stop: asyncio.Event) -> None:
            await Server(config).run(stop)

        run_until_signal(main)
    except StartError as error:
        fail(str(error))


def set_up_logging(level: str, name: str) -> None:
    number = getattr(logging, level.upper(), None)
    if not isinstance(number, int):
        fail(f"--log-level {level!r} is not one of debug, info, warning, error")
    logging.basicConfig(level=number, format=f"%(asctime)s %(levelname)-7s {name} %(message)s")
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def parse_urls(text: str) -> tuple[str, ...]:
    urls = tuple(url.strip().rstrip("/") for url in text.split(",") if url.strip())
    for url in urls:
        parts = urlsplit(url)
        try:
            good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port is not None
        except ValueError:
            good = False
        if not good or parts.path:
            fail(f"{url!r} is not a URL: give http(s)://HOST:PORT")
    if not urls:
        fail("a list of URLs is empty")
    return urls


def _cluster(text: str) -> dict[str, str]:
    cluster: dict[str, str] = {}
    for part in text.split(","):
        name, found, url = part.strip().partition("=")
        if not found or not name:
            fail(f"--initial-cluster: {part!r} is not NAME=URL")
        if name in cluster:
            fail(f"--initial-cluster names {name!r} twice")
        cluster[name] = parse_urls(url)[0]
    return cluster


def _mode(bootstrap: str, state: str) -> str:
    if bootstrap not in ("static", "managed"):
        fail(f"--bootstrap {bootstrap!r} is not static or managed")
    if state not in ("new", "existing"):
        fail(f"--initial-cluster-state {state!r} is not new or existing")
    return "existing" if bootstrap == "static" and state == "existing" else bootstrap
