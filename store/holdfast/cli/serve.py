"""`holdfast serve`: runs one member, with etcd's flags."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

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
from holdfast.cli.parsing import (
    duration,
    extensive,
    founders,
    parse_mode,
    parse_urls,
    raft_times,
    retention,
    tls_version,
    versions,
    words,
)
from holdfast.garbage import collect_nothing_yet


def serve(
    name: Annotated[str, typer.Option(help="Name of this member.")] = "default",
    data_dir: Annotated[Path, typer.Option(help="Data directory of this member; each member needs its own.")] = Path(
        "default.holdfast"
    ),
    listen_client_urls: ListenClientUrls = "http://localhost:2379",
    listen_peer_urls: Annotated[
        str, typer.Option(help="Addresses to listen on for other members: URL,URL,…")
    ] = "http://localhost:2380",
    listen_client_http_urls: Annotated[
        str, typer.Option(help="Additional addresses for clients, such as a port for plain HTTP only. Default: none.")
    ] = "",
    listen_metrics_urls: ListenMetricsUrls = "",
    advertise_client_urls: Annotated[
        str, typer.Option(help="URLs at which clients reach this member. Default: --listen-client-urls.")
    ] = "",
    initial_advertise_peer_urls: Annotated[
        str, typer.Option(help="URLs at which other members reach this member. Default: --listen-peer-urls.")
    ] = "",
    initial_cluster: Annotated[
        str, typer.Option(help="All founding members: NAME=URL,NAME=URL,… Default: this member alone.")
    ] = "",
    initial_cluster_state: Annotated[
        str, typer.Option(help="new: found a new cluster; existing: join a cluster after `member add`.")
    ] = "new",
    initial_cluster_token: Annotated[
        str, typer.Option(help="Distinguishes clusters that are founded with the same names and URLs.")
    ] = "holdfast-cluster",
    bootstrap: Annotated[
        str, typer.Option(help="static: found or join by --initial-cluster. managed: wait for an operator.")
    ] = "static",
    heartbeat_interval: Annotated[int, typer.Option(help="Milliseconds between heartbeats of the leader.")] = 100,
    election_timeout: Annotated[
        int,
        typer.Option(
            help="Milliseconds without a leader before an election: at least five heartbeat intervals, at most 50000."
        ),
    ] = 1000,
    priority: Annotated[
        int, typer.Option(min=0, help="Members of higher priority are preferred as leader. Lower it on a poor link.")
    ] = 0,
    lease_reads: Annotated[
        bool,
        typer.Option(
            help="Serve linearizable reads by a leader lease instead of asking a quorum each time. Only safe while the "
            "rates of any two members' clocks differ by at most --max-clock-drift. Set it on all members."
        ),
    ] = False,
    max_clock_drift: Annotated[
        int, typer.Option(min=0, max=100, help="Percent by which the rates of two members' clocks may differ.")
    ] = 10,
    max_learners: Annotated[
        int, typer.Option(min=0, help="Maximum number of learners in the cluster at the same time.")
    ] = 1,
    watch_progress_notify_interval: Annotated[
        str, typer.Option(help="Interval of progress notifications to idle watches: a duration such as 5s or 10m.")
    ] = "10m",
    quota_backend_bytes: Annotated[
        int,
        typer.Option(help="Limit of the data in bytes; at the limit writes are refused. 0: 2 GiB; negative: no limit."),
    ] = 0,
    # A message between members is limited to 64 MiB, and has to hold a request and its overhead.
    max_request_bytes: Annotated[
        int, typer.Option(min=1024, max=60 << 20, help="Maximum size of a request in bytes.")
    ] = 1_572_864,
    max_txn_ops: Annotated[int, typer.Option(min=1, help="Maximum number of operations in a transaction.")] = 128,
    max_concurrent_streams: Annotated[
        int,
        typer.Option(
            min=1, max=(1 << 31) - 1, help="Maximum number of open calls per connection; values above 10000 mean 10000."
        ),
    ] = 1 << 20,
    grpc_keepalive_interval: Annotated[
        str, typer.Option(help="Ping a connection that has been idle for this duration, such as 30s or 2h.")
    ] = "2h",
    grpc_keepalive_timeout: Annotated[
        str, typer.Option(help="Close the connection if a keepalive ping is not answered in this time, such as 20s.")
    ] = "20s",
    etcd_version: Annotated[
        str,
        typer.Option(
            help="etcd version to report in Status and /version; clients choose features by it. Default: that of the "
            "etcd API that is implemented."
        ),
    ] = "",
    auto_compaction_mode: Annotated[
        str, typer.Option(help="periodic: keep the history of a duration. revision: keep a number of revisions.")
    ] = "periodic",
    auto_compaction_retention: Annotated[
        str,
        typer.Option(
            help="History to keep: in mode periodic a number of hours or a duration such as 30m, in mode revision a "
            "number of revisions. 0: keep all."
        ),
    ] = "0",
    auth_token: Annotated[
        str,
        typer.Option(
            help="Kind of authentication tokens: simple, or "
            "jwt,sign-method=RS256,pub-key=FILE,priv-key=FILE,ttl=5m (JSON Web Tokens)."
        ),
    ] = "simple",
    auth_token_ttl: Annotated[
        int, typer.Option(min=1, help="Seconds after which a simple token expires if it is not used.")
    ] = 300,
    bcrypt_cost: Annotated[
        int, typer.Option(min=4, max=31, help="Cost of hashing passwords: bcrypt does 2 to this power rounds.")
    ] = 10,
    cert_file: CertFile = None,
    key_file: KeyFile = None,
    trusted_ca_file: TrustedCaFile = None,
    client_cert_auth: Annotated[
        bool, typer.Option(help="Use the common name of a client's certificate as its user if it sends no token.")
    ] = False,
    operator_cert_uri: Annotated[
        str,
        typer.Option(
            help="URI of the operator's client certificate, such as holdfast://CLUSTER/operator. While auth is on, its "
            "owner may change members and keys as root."
        ),
    ] = "",
    tls_min_version: Annotated[str, typer.Option(help="Minimum TLS version: TLS1.2 or TLS1.3.")] = "TLS1.2",
    peer_cert_file: Annotated[Path | None, typer.Option(help="Certificate (PEM) to present to other members.")] = None,
    peer_key_file: Annotated[Path | None, typer.Option(help="Private key (PEM) of --peer-cert-file.")] = None,
    peer_trusted_ca_file: Annotated[Path | None, typer.Option(help="CA (PEM) of the members' certificates.")] = None,
    cors: Annotated[
        str,
        typer.Option(
            help="Origins of web pages that may use this server: ORIGIN,ORIGIN,… such as https://ui.example; *: any."
        ),
    ] = "*",
    host_whitelist: Annotated[
        str, typer.Option(help="Host names accepted in HTTP requests without TLS: HOST,HOST,… *: any.")
    ] = "*",
    peer_client_cert_auth: Annotated[
        bool, typer.Option(help="For compatibility with etcd: with TLS members always verify certificates.")
    ] = False,
    peer_cert_allowed_cn: Annotated[
        str, typer.Option(help="Accept peer certificates with one of these common names: NAME,NAME,… Default: any.")
    ] = "",
    peer_cert_allowed_hostname: Annotated[
        str, typer.Option(help="Accept peer certificates valid for one of these hosts: HOST,HOST,… Default: any.")
    ] = "",
    peer_cert_allowed_uri: Annotated[
        str,
        typer.Option(
            help="Accept peer certificates with one of these URIs: URI,URI,… such as holdfast://CLUSTER/peer. "
            "Default: any."
        ),
    ] = "",
    peer_accept_any_certificate: Annotated[
        bool,
        typer.Option(help="Accept any certificate of the peers' CA as that of a member, even if clients use this CA."),
    ] = False,
    flags_prefix: FlagsPrefix = "/flags/",
    log_level: LogLevel = "info",
    log_format: Annotated[
        str, typer.Option(help="console: human-readable lines. json: one JSON object per line.")
    ] = "console",
    warning_unary_request_duration: Annotated[
        str, typer.Option(help="Log requests that take longer than this duration, and where their time went.")
    ] = "300ms",
    metrics: Annotated[
        str, typer.Option(help="basic, or extensive: also histograms of the duration of calls by method.")
    ] = "basic",
    enable_pprof: Annotated[
        bool, typer.Option(help="Serve stacks, profiles and memory statistics at /debug, to everyone who can connect.")
    ] = False,
    enable_distributed_tracing: Annotated[
        bool, typer.Option(help="Send OpenTelemetry spans of requests; needs holdfast[tracing].")
    ] = False,
    distributed_tracing_address: Annotated[
        str, typer.Option(help="HOST:PORT of the OpenTelemetry collector (OTLP over gRPC).")
    ] = "localhost:4317",
    distributed_tracing_service_name: Annotated[str, typer.Option(help="Service name in the spans.")] = "etcd",
    distributed_tracing_sampling_rate: Annotated[
        int,
        typer.Option(min=0, max=1_000_000, help="Requests to sample, per million, of those that belong to no trace."),
    ] = 0,
) -> None:
    """Run one member of a cluster.

    Without options it founds a cluster of one member on localhost:2379.
    """
    collect_nothing_yet()
    try:
        from holdfast.api.access import Allowed
        from holdfast.api.base import Limits
        from holdfast.api.operator import Operator
        from holdfast.api.tokens import BadTokenOptions, parse_tokens
        from holdfast.cli import peers
        from holdfast.member.node import NodeConfig
        from holdfast.process import StartError, run_until_signal
        from holdfast.raft.types import Settings
        from holdfast.server import Server, ServerConfig
        from holdfast.tls import TlsError, TlsFiles, client_context, server_context
    except ModuleNotFoundError as error:
        fail(f"{error.name} is not installed; a server needs it: pip install 'holdfast[server]'")
    set_up_logging(log_level, name, log_format)
    peer_urls = parse_urls(initial_advertise_peer_urls or listen_peer_urls)
    mode = parse_mode(bootstrap, initial_cluster_state)
    cluster = founders(name, peer_urls, initial_cluster, mode)
    heartbeat_ns, election_ns = raft_times(heartbeat_interval, election_timeout)
    minimum = tls_version(tls_min_version)
    if not flags_prefix:
        fail("--flags-prefix is empty")
    if client_cert_auth and trusted_ca_file is None:
        fail("--client-cert-auth needs --trusted-ca-file, the CA to verify clients by")
    if operator_cert_uri and (trusted_ca_file is None or cert_file is None):
        fail("--operator-cert-uri needs TLS: --cert-file, --key-file, and --trusted-ca-file, the CA to verify it by")
    peer_tls = peers.files(peer_cert_file, peer_key_file, peer_trusted_ca_file, minimum, verify=peer_client_cert_auth)
    peer_names = peers.names(peer_cert_allowed_cn, peer_cert_allowed_hostname, peer_cert_allowed_uri)
    if not (peer_names.given or peer_accept_any_certificate):
        peers.check_who_is_a_peer(trusted_ca_file, peer_trusted_ca_file, mode)
    peers.check_schemes((*parse_urls(listen_peer_urls), *peer_urls, *cluster.values()), tls=peer_tls.given)
    try:
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
                    election_ns=election_ns,
                    heartbeat_ns=heartbeat_ns,
                    lease_reads=lease_reads,
                    max_clock_drift_percent=max_clock_drift,
                ),
                priority=priority,
                max_learners=max_learners,
                client_tls=client_context(peer_tls, peer_names) if peer_tls.given else None,
                server_tls=server_context(peer_tls) if peer_tls.given else None,
            ),
            listen_client_urls=parse_urls(listen_client_urls),
            listen_peer_urls=parse_urls(listen_peer_urls),
            listen_metrics_urls=parse_urls(listen_metrics_urls) if listen_metrics_urls else (),
            listen_client_http_urls=parse_urls(listen_client_http_urls) if listen_client_http_urls else (),
            client_tls=TlsFiles(cert_file, key_file, trusted_ca_file, minimum),
            trust_common_names=client_cert_auth,
            operator=Operator(operator_cert_uri),
            progress_seconds=duration("--watch-progress-notify-interval", watch_progress_notify_interval),
            limits=Limits(max_request_bytes, max_txn_ops, quota_backend_bytes or Limits().quota_bytes),
            max_streams=max_concurrent_streams,
            keepalive_seconds=duration("--grpc-keepalive-interval", grpc_keepalive_interval),
            keepalive_timeout_seconds=duration("--grpc-keepalive-timeout", grpc_keepalive_timeout),
            versions=versions(etcd_version),
            tokens=parse_tokens(auth_token, auth_token_ttl),
            bcrypt_cost=bcrypt_cost,
            retention=retention(auto_compaction_mode, auto_compaction_retention),
            tracing_address=distributed_tracing_address if enable_distributed_tracing else "",
            tracing_service=distributed_tracing_service_name,
            tracing_per_million=distributed_tracing_sampling_rate,
            extensive_metrics=extensive(metrics),
            debug_pages=enable_pprof,
            flags_prefix=flags_prefix,
            browsers=Allowed.of(words(cors), words(host_whitelist)),
            slow_request_seconds=duration("--warning-unary-request-duration", warning_unary_request_duration),
        )

        async def main(stop: asyncio.Event) -> None:
            await Server(config).run(stop)

        run_until_signal(main)
    except StartError as error:
        fail(str(error), error.code)
    except (BadTokenOptions, TlsError) as error:
        fail(str(error))
