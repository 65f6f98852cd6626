"""Turns the texts of server flags into values.

A text that is not valid ends the process with one line that names the flag.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from holdfast.cli.errors import fail
from holdfast.durations import seconds

if TYPE_CHECKING:
    from holdfast.api.versions import Versions
    from holdfast.member.compactor import Retention


def founders(name: str, urls: tuple[str, ...], listed: str, mode: str) -> dict[str, str]:
    """The founding members: those of --initial-cluster, or this member alone; none if an operator founds it."""
    if mode == "managed":
        return {}
    cluster = initial_cluster(listed or f"{name}={urls[0]}")
    if mode == "static" and cluster.get(name) not in urls:
        fail(
            f"--initial-cluster names no member {name!r} at {urls[0]}; it has to list this member, with one of "
            "its --initial-advertise-peer-urls"
        )
    return cluster


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


def initial_cluster(text: str) -> dict[str, str]:
    cluster: dict[str, str] = {}
    for part in text.split(","):
        name, found, url = part.strip().partition("=")
        if not found or not name:
            fail(f"--initial-cluster: {part!r} is not NAME=URL")
        if name in cluster:
            fail(f"--initial-cluster names {name!r} twice")
        cluster[name] = parse_urls(url)[0]
    return cluster


def raft_times(heartbeat_ms: int, election_ms: int) -> tuple[int, int]:
    """(heartbeat interval, election timeout) in nanoseconds."""
    if not 0 < heartbeat_ms * 5 <= election_ms <= 50_000:
        fail("--election-timeout must be at least five --heartbeat-intervals and at most 50000 ms")
    return heartbeat_ms * 1_000_000, election_ms * 1_000_000


def tls_version(text: str) -> ssl.TLSVersion:
    from holdfast.tls import VERSIONS

    minimum = VERSIONS.get(text)
    if minimum is None:
        fail(f"--tls-min-version {text!r} is not one of {', '.join(VERSIONS)}")
    return minimum


def parse_mode(bootstrap: str, state: str) -> str:
    if bootstrap not in ("static", "managed"):
        fail(f"--bootstrap {bootstrap!r} is not static or managed")
    if state not in ("new", "existing"):
        fail(f"--initial-cluster-state {state!r} is not new or existing")
    return "existing" if bootstrap == "static" and state == "existing" else bootstrap


def words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def duration(flag: str, text: str) -> float:
    """Parse a number of seconds, or a duration in Go's notation. Returns seconds."""
    try:
        value = float(text) if text.replace(".", "", 1).isdigit() else seconds(text)
    except ValueError as error:
        fail(f"{flag}: {error}")
    if value <= 0:
        fail(f"{flag} {text!r} must be greater than 0")
    return value


def retention(mode: str, text: str) -> Retention:
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


def versions(text: str) -> Versions:
    """Check --etcd-version: clients parse each of its parts as a number."""
    from holdfast.api.versions import Versions

    if not text:
        return Versions()
    parts = text.split(".")
    if len(parts) != 3 or not all(part.isdigit() for part in parts):
        fail(f"--etcd-version {text!r} is not three numbers, as in {Versions().server}")
    cluster = f"{parts[0]}.{parts[1]}.0"
    return Versions(text, cluster, cluster)


def extensive(metrics: str) -> bool:
    if metrics not in ("basic", "extensive"):
        fail(f"--metrics {metrics!r} is neither basic nor extensive")
    return metrics == "extensive"
