"""`holdfast serve`: runs one member, with etcd's flags."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from holdfast.cli.errors import fail
from holdfast.durations import seconds
from holdfast.logs import JsonLines

if TYPE_CHECKING:
    from holdfast.api.base import Versions
    from holdfast.cert_names import CertNames
    from holdfast.member.compactor import Retention


def serve(
    name: Annotated[str, typer.Option(help="Name of this member.")] = "default",
    data_dir: Annotated[Path, typer.Option(help="Data directory of this member; each member needs its own.")] = Path(
        "default.holdfast"
    ),
    listen_client_urls: Annotated[
        str, typer.Option(help="Addresses to listen on for clients: URL,URL,…")
    ] = "http://localhost:2379",
    listen_peer_urls: Annotated[
        str, typer.Option(help="Addresses to listen on for other members: URL,URL,…")
    ] = "http://localhost:2380",
    listen_client_http_urls: Annotated[
        str, typer.Option(help="Additional addresses for clients, such as a port for plain HTTP only. Default: none.")
    ] = "",
    listen_metrics_urls: Annotated[
        str, typer.Option(help="Additional addresses for /livez, /readyz and /metrics without TLS. Default: none.")
    ] = "",
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
    cert_file: Annotated[
        Path | None, typer.Option(help="Certificate (PEM) to present to clients; needed for https URLs.")
    ] = None,
    key_file: Annotated[Path | None, typer.Option(help="Private key (PEM) of --cert-file.")] = None,
    trusted_ca_file: Annotated[
        Path | None, typer.Option(help="CA (PEM) of client certificates. If set, clients must present a certificate.")
    ] = None,
    client_cert_auth: Annotated[
        bool, typer.Option(help="Use the common name of a client's certificate as its user if it sends no token.")
    ] = False,
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
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
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
    try:
        from holdfast.api.access import Allowed
        from holdfast.api.base import Limits
        from holdfast.api.identity import BadTokenOptions, parse_tokens
        from holdfast.member.node import NodeConfig
        from holdfast.raft.types import Settings
        from holdfast.server import Server, ServerConfig, StartError, run_until_signal
        from holdfast.tls import VERSIONS, TlsError, TlsFiles, client_context, server_context
    except ModuleNotFoundError as error:
        fail(f"{error.name} is not installed; a server needs it: pip install 'holdfast[server]'")
    set_up_logging(log_level, name, log_format)
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
        minimum = VERSIONS.get(tls_min_version)
        if minimum is None:
            fail(f"--tls-min-version {tls_min_version!r} is not one of {', '.join(VERSIONS)}")
        if client_cert_auth and trusted_ca_file is None:
            fail("--client-cert-auth needs --trusted-ca-file, the CA to verify clients by")
        peer_tls = TlsFiles(peer_cert_file, peer_key_file, peer_trusted_ca_file, minimum)
        peer_names = _peer_names(peer_cert_allowed_cn, peer_cert_allowed_hostname, peer_cert_allowed_uri)
        if peer_client_cert_auth and peer_trusted_ca_file is None:
            fail("--peer-client-cert-auth needs --peer-trusted-ca-file, the CA to verify members by")
        if not (peer_names.given or peer_accept_any_certificate):
            _check_who_is_a_peer(trusted_ca_file, peer_trusted_ca_file, mode)
        for url in (*parse_urls(listen_peer_urls), *peer_urls, *cluster.values()):
            if url.startswith("https") is not peer_tls.given:
                fail(
                    f"{url}: with TLS between members all peer URLs are https, without none; "
                    "give --peer-cert-file, --peer-key-file and --peer-trusted-ca-file, or correct the URL"
                )
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
                client_tls=client_context(peer_tls, peer_names) if peer_tls.given else None,
                server_tls=server_context(peer_tls) if peer_tls.given else None,
            ),
            listen_client_urls=parse_urls(listen_client_urls),
            listen_peer_urls=parse_urls(listen_peer_urls),
            listen_metrics_urls=parse_urls(listen_metrics_urls) if listen_metrics_urls else (),
            listen_client_http_urls=parse_urls(listen_client_http_urls) if listen_client_http_urls else (),
            client_tls=TlsFiles(cert_file, key_file, trusted_ca_file, minimum),
            trust_common_names=client_cert_auth,
            progress_seconds=_duration("--watch-progress-notify-interval", watch_progress_notify_interval),
            limits=Limits(max_request_bytes, max_txn_ops, quota_backend_bytes or Limits().quota_bytes),
            max_streams=max_concurrent_streams,
            keepalive_seconds=_duration("--grpc-keepalive-interval", grpc_keepalive_interval),
            keepalive_timeout_seconds=_duration("--grpc-keepalive-timeout", grpc_keepalive_timeout),
            versions=_versions(etcd_version),
            tokens=parse_tokens(auth_token, auth_token_ttl),
            bcrypt_cost=bcrypt_cost,
            retention=_retention(auto_compaction_mode, auto_compaction_retention),
            tracing_address=distributed_tracing_address if enable_distributed_tracing else "",
            tracing_service=distributed_tracing_service_name,
            tracing_per_million=distributed_tracing_sampling_rate,
            extensive_metrics=_extensive(metrics),
            debug_pages=enable_pprof,
            browsers=Allowed.of(_words(cors), _words(host_whitelist)),
            slow_request_seconds=_duration("--warning-unary-request-duration", warning_unary_request_duration),
        )

        async def main(stop: asyncio.Event) -> None:
            await Server(config).run(stop)

        run_until_signal(main)
    except StartError as error:
        fail(str(error), error.code)
    except (BadTokenOptions, TlsError) as error:
        fail(str(error))


def _peer_names(common_names: str, hostnames: str, uris: str) -> CertNames:
    from holdfast.cert_names import CertNames

    if common_names and hostnames:
        fail("--peer-cert-allowed-cn and --peer-cert-allowed-hostname exclude each other; give one of them")
    lists = [
        tuple(name.strip() for name in text.split(",") if name.strip()) for text in (common_names, hostnames, uris)
    ]
    return CertNames(*lists)


def _check_who_is_a_peer(clients: Path | None, peers: Path | None, mode: str) -> None:
    """Refuse a CA that signs certificates of both clients and members: with it, every client could act as a member."""
    from holdfast.cert_names import share_a_ca

    try:
        shared = clients is not None and peers is not None and share_a_ca(clients, peers)
    except (OSError, ValueError) as error:
        fail(f"cannot read the CA files {clients} and {peers}: {error}")
    if not shared:
        return
    line = (
        f"--trusted-ca-file {clients} and --peer-trusted-ca-file {peers} have a CA in common: any client's certificate "
        "could join as a member and write everything; say what members' certificates are called by "
        "--peer-cert-allowed-cn, --peer-cert-allowed-hostname or --peer-cert-allowed-uri, or give members their own "
        "CA"
    )
    if mode == "managed":  # by an operator of an earlier version, which knows nothing of these flags
        logging.getLogger("holdfast.node").warning("%s", line)
    else:
        fail(f"{line}, or go on as before with --peer-accept-any-certificate")


def _versions(text: str) -> Versions:
    """Check --etcd-version: clients parse each of its parts as a number."""
    from holdfast.api.base import Versions

    if not text:
        return Versions()
    parts = text.split(".")
    if len(parts) != 3 or not all(part.isdigit() for part in parts):
        fail(f"--etcd-version {text!r} is not three numbers, as in {Versions().server}")
    cluster = f"{parts[0]}.{parts[1]}.0"
    return Versions(text, cluster, cluster)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _extensive(metrics: str) -> bool:
    if metrics not in ("basic", "extensive"):
        fail(f"--metrics {metrics!r} is neither basic nor extensive")
    return metrics == "extensive"


def _duration(flag: str, text: str) -> float:
    """Parse a number of seconds, or a duration in Go's notation. Returns seconds."""
    try:
        value = float(text) if text.replace(".", "", 1).isdigit() else seconds(text)
    except ValueError as error:
        fail(f"{flag}: {error}")
    if value <= 0:
        fail(f"{flag} {text!r} must be greater than 0")
    return value


def _retention(mode: str, text: str) -> Retention:
    """Parse etcd's two flags for automatic compaction. A bare number is hours or revisions, depending on the mode."""
    from holdfast.member.compactor import Retention

    if mode not in ("periodic", "revision"):
        fail(f"--auto-compaction-mode {mode!r} is not periodic or revision")
    if mode == "revision":
        if not text.isdigit():
            fail(f"--auto-compaction-retention {text!r} is not a number of revisions")
        return Retention(revisions=int(text))
    try:
        return Retention(seconds=int(text) * 3600.0 if text.isdigit() else seconds(text))
    except ValueError as error:
        fail(f"--auto-compaction-retention: {error}")


def set_up_logging(level: str, name: str, form: str = "console") -> None:
    number = getattr(logging, level.upper(), None)
    if not isinstance(number, int):
        fail(f"--log-level {level!r} is not one of debug, info, warning, error")
    if form not in ("console", "json"):
        fail(f"--log-format {form!r} is not console or json")
    logging.basicConfig(level=number, format=f"%(asctime)s %(levelname)-7s {name} %(message)s")
    if form == "json":
        for handler in logging.getLogger().handlers:
            handler.setFormatter(JsonLines(name))
    # At level debug libraries log all their data: hpack logs every header, including tokens.
    logging.getLogger().setLevel(max(number, logging.INFO))
    logging.getLogger("holdfast").setLevel(number)
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
