"""The options that say which cells there are, and what `holdfast cells` refuses before it connects."""

from __future__ import annotations

from pathlib import Path

import pytest
from holdfast.cli.cells_reach import Place, parse_places
from holdfast.cli.main import command_line
from holdfast.client import Tls
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

EU, US = "--cell=eu=127.0.0.1:1", "--cell=us=127.0.0.1:2"
NAMES = st.text(min_size=1).filter(lambda name: not any(c in "=/" or c.isspace() for c in name))


@given(st.dictionaries(NAMES, st.lists(st.integers(1, 65535), min_size=1, max_size=3), min_size=1))
def test_each_cell_has_its_servers(ports: dict[str, list[int]]) -> None:
    where = {name: ",".join(f"h:{port}" for port in its) for name, its in ports.items()}
    found = parse_places([f"{name}={servers}" for name, servers in where.items()], [], None)
    assert found == {name: Place(servers) for name, servers in where.items()}
    assert list(found) == list(where)


def test_certificates_are_those_of_the_cell_or_of_all() -> None:
    found = parse_places(["eu=h:1", "us=h:2"], ["us=/other=s"], Path("/all"))
    assert found["eu"].tls == Tls(Path("/all/ca.crt"))
    assert found["us"].tls == Tls(Path("/other=s/ca.crt"))


def command(*words: str, env: dict[str, str] | None = None, text: str = "", code: int = 2) -> str:
    ran = CliRunner().invoke(command_line("cells"), ["cells", *words], env=env, input=text)
    assert ran.exit_code == code, ran.output
    assert "Traceback" not in ran.output
    return str(ran.output)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["status"], "no cell is given"),
        (["status", "--cell=eu"], "--cell 'eu' is not NAME=HOST:PORT"),
        (["status", "--cell==h:1"], "is not NAME=HOST:PORT"),
        (["status", "--cell=e/u=h:1"], "no slash"),
        (["status", "--cell=eu=h"], "--cell eu: 'h' is not HOST:PORT"),
        (["status", "--cell=eu=http://h:1", "--tls-dir=/x"], "--cell eu: certificates are given"),
        (["status", EU, EU], "--cell names eu twice"),
        (["status", EU, "--cell-tls=us=/x"], "--cell-tls us: there is no such cell; there are eu"),
        (["status", EU, "--cell-tls=eu"], "--cell-tls 'eu' is not NAME=DIR"),
        (["status", EU, "-o", "xml"], "'xml' is not table, json or simple"),
        (["register", "set", "r", "v", EU, "--if-absent", "--if=x"], "exclude each other"),
        (["queue", "lag", "eu", "ap", EU, US], "ap is no cell; there are eu, us"),
        (["queue", "send", "ap", "us", EU, US], "ap is no cell; there are eu, us"),
    ],
)
def test_wrong_usage_is_said(words: list[str], said: str) -> None:
    assert said in command(*words)


def test_cells_may_come_from_the_environment() -> None:
    both = {"HOLDFAST_CELLS": "eu=h:1,h:2 eu=h:3"}
    assert "names eu twice" in command("status", env=both)
    assert "ap is no cell; there are eu" in command("queue", "lag", "ap", "eu", EU, env=both), "the option goes first"


def test_a_wrong_text_is_said_with_its_line(tmp_path: Path) -> None:
    assert "error: line 2: 'put /a' cannot be read" in command("txn", EU, text="at eu\nput /a\n")
    file = tmp_path / "text"
    file.write_text("at ap\n")
    assert f"error: {file}: line 1: ap is no cell" in command("txn", str(file), EU)
    assert "error: line 1: a message has no `at`" in command("queue", "send", "eu", "us", EU, US, text="at eu\n")
    assert "/nowhere" in command("txn", "/nowhere", EU, code=1)


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (["init", "--timeout=0.2"], "no endpoint answered in time", 3),
        (["register", "get", "r", "--timeout=0.2"], "no cell can be asked", 3),
        (["register", "get", "a/b"], "no name of a register", 1),
        (["queue", "lag", "eu", "eu"], "from one cell to another one", 1),
        (["queue", "lag", "eu", "us", "--timeout=0.2"], "eu: no answer within 0.2 s", 3),
        (["register", "get", "r", "--tls-dir=/nowhere"], "/nowhere", 1),
        (["change", "eu", "ap"], "ap is no cell", 2),
        (["readmit", "ap"], "ap is no cell", 2),
    ],
)
def test_what_fails_is_one_line(words: list[str], said: str, code: int) -> None:
    output = command(*words, EU, US, code=code)
    assert said in output
    assert output.startswith("error: ")
    assert output.count("\n") == 1
