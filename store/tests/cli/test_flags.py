"""What a command refuses before it does anything: one line names the flag, and nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from holdfast.cli.main import COMMANDS, Command, command_line
from typer.testing import CliRunner

from ..certificates import Authority

REFUSED, USAGE, UNAVAILABLE = 1, 2, 3


def refused(*words: str, code: int = REFUSED) -> str:
    result = CliRunner().invoke(command_line(), list(words))
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--listen-peer-urls=nonsense"], "nonsense"),
        (["--listen-client-urls=ftp://localhost:1"], "ftp://localhost:1"),
        (["--listen-client-urls=http://localhost"], "http://localhost"),
        (["--initial-cluster=m1"], "--initial-cluster"),
        (["--initial-cluster=other=http://localhost:2380"], "names no member"),
        (["--initial-cluster-state=old"], "old"),
        (["--bootstrap=magic"], "magic"),
        (["--election-timeout=100", "--heartbeat-interval=100"], "at least five --heartbeat-intervals"),
        (["--election-timeout=60000"], "at most 50000 ms"),
        (["--tls-min-version=SSL3"], "is not one of TLS1.2, TLS1.3"),
        (["--client-cert-auth"], "needs --trusted-ca-file"),
        (["--operator-cert-uri=holdfast://shop/operator"], "needs TLS"),
        (["--peer-client-cert-auth"], "needs --peer-trusted-ca-file"),
        (["--peer-cert-allowed-cn=a", "--peer-cert-allowed-hostname=b"], "exclude each other"),
        (["--listen-peer-urls=https://localhost:2380"], "with TLS between members all peer URLs are https"),
        (["--auth-token=magic"], "magic"),
        (["--auth-token=jwt"], "sign-method"),
        (["--etcd-version=3.x"], "is not three numbers"),
        (["--metrics=all"], "is neither basic nor extensive"),
        (["--auto-compaction-mode=daily", "--auto-compaction-retention=1h"], "daily"),
        (["--auto-compaction-retention=soon"], "soon"),
        (["--grpc-keepalive-interval=soon"], "--grpc-keepalive-interval"),
        (["--warning-unary-request-duration=-"], "--warning-unary-request-duration"),
        (["--log-level=loud"], "loud"),
        (["--log-format=xml"], "xml"),
    ],
)
def test_serve_says_which_flag_is_wrong(tmp_path: Path, flags: list[str], said: str) -> None:
    place = tmp_path / "data"
    assert said in refused("serve", f"--data-dir={place}", *flags)
    assert not place.exists()


@pytest.mark.parametrize(
    "flag",
    ["--max-txn-ops=0", "--max-learners=-1", "--distributed-tracing-sampling-rate=2000000", "--election-timeout=x"],
)
def test_a_number_out_of_its_range_is_wrong_usage(flag: str) -> None:
    assert flag.split("=", maxsplit=1)[0] in refused("serve", flag, code=USAGE)


def test_files_that_are_missing_are_named(tmp_path: Path) -> None:
    place = tmp_path / "data"
    files = [f"--cert-file={tmp_path / 'none.crt'}", f"--key-file={tmp_path / 'none.key'}"]
    assert "none.crt" in refused("serve", f"--data-dir={place}", "--listen-client-urls=https://localhost:0", *files)


def test_one_ca_for_clients_and_members_is_refused_with_the_ways_out(tmp_path: Path) -> None:
    Authority("both").write_server(tmp_path)
    own = [f"--{kind}cert-file={tmp_path / 'tls.crt'}" for kind in ("", "peer-")]
    keys = [f"--{kind}key-file={tmp_path / 'tls.key'}" for kind in ("", "peer-")]
    cas = [f"--{kind}trusted-ca-file={tmp_path / 'ca.crt'}" for kind in ("", "peer-")]
    urls = ["--listen-client-urls=https://localhost:0", "--listen-peer-urls=https://localhost:0"]
    said = refused("serve", f"--data-dir={tmp_path / 'd'}", *urls, *own, *keys, *cas)
    for way in ("--peer-cert-allowed-cn", "--peer-cert-allowed-uri", "--peer-accept-any-certificate"):
        assert way in said


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["get", "k", "--endpoints=nonsense"], REFUSED, "nonsense"),
        (["get", "k", "--tls-dir=/nowhere"], REFUSED, "/nowhere"),
        (["put", "k"], USAGE, "Missing argument"),
        (["nothing"], USAGE, "No such command"),
        (["edge", "--endpoints=127.0.0.1:1"], USAGE, "Missing option '--prefix'"),
        (["edge", "--endpoints=127.0.0.1:1", "--prefix="], REFUSED, "--prefix is empty"),
        (["edge", "--endpoints=127.0.0.1:1", "--prefix=/", "state"], USAGE, "No such command 'state'"),
        (["edge", "--endpoints=127.0.0.1:1", "--prefix=/", "status"], USAGE, "come after its name"),
        (["edge", "status", "--endpoints=nonsense"], REFUSED, "nonsense"),
        (["edge", "status", "--endpoints=127.0.0.1:1", "-o", "xml"], USAGE, "'xml' is not table, json or simple"),
        (["edge", "status", "--endpoints=127.0.0.1:1"], UNAVAILABLE, "no server answered. Asked: 127.0.0.1:1"),
        (["doctor", "--data-dir=/nowhere"], REFUSED, "/nowhere"),
        (["snapshot", "status", "/nowhere"], REFUSED, "/nowhere"),
    ],
)
def test_the_other_commands(words: list[str], code: int, said: str) -> None:
    assert said in refused(*words, code=code)


def test_every_command_and_flag_has_help() -> None:
    result = CliRunner().invoke(command_line(), ["--help"])
    assert result.exit_code == 0
    for command in ("put", "get", "del", "txn", "watch", "status", "member", "lease", "snapshot", "serve", "edge"):
        assert command in result.output
        assert CliRunner().invoke(command_line(), [command, "--help"]).exit_code == 0
    said = CliRunner().invoke(command_line(), ["edge", "--help"]).output
    assert "--anonymous-reads" in said
    assert "status" in said


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: str(command.name))
def test_a_command_is_the_same_alone(command: Command) -> None:
    """Only the command that is called is imported; its help is that which it has beside the others."""
    alone, all_ = (
        CliRunner().invoke(command_line(wanted), [command.name, "--help"], prog_name="holdfast").output
        for wanted in (command.name, "")
    )
    assert alone == all_
    assert "Usage: holdfast " + command.name in alone
