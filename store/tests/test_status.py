"""The receiver of a refusal recognises it, and no text of a refusal is written twice in the code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import holdfast
import pytest
from holdfast import status
from holdfast.status import (
    AUTH_OLD_REVISION,
    COMPACTED,
    LEASE_NOT_FOUND,
    OUTSIDE_PREFIXES,
    REPLICA_DISCONNECTED,
    REPLICA_EMPTY,
    Code,
    Known,
    Refusal,
    RefusalTemplate,
    known,
    known_reason,
    name_of,
)

PACKAGE = Path(holdfast.__file__).parent
CONSTANTS: dict[str, Known] = {name: value for name, value in vars(status).items() if isinstance(value, Known)}
FRAGMENT = 20  # characters of a text that nobody writes by chance


def filled(constant: Known) -> Refusal:
    if isinstance(constant, Refusal):
        return constant
    return constant.fill(
        key="/a {key} (b",
        name="shop-7",
        prefixes="/a/, /b/",
        writer="shop-0",
        address="[::1]:2379",
        site="shop",
        has="has revision 3",
        why="does not reach the cluster",
        prefix="/a/",
        wanted="5",
        user="'shop edge'",
        do="write",
    )


@pytest.mark.parametrize("name", CONSTANTS)
def test_each_constant_is_known_by_name_and_by_text(name: str) -> None:
    constant = CONSTANTS[name]
    code, message = filled(constant)
    assert known(code, message) is constant
    assert known(code, "the same in other words", name) is constant
    assert name_of(code, message) == name
    assert known(Code.OK, message) is None


def test_what_is_no_constant_is_not_known() -> None:
    assert known(Code.UNAVAILABLE, "etcdserver: something new") is None
    assert known(Code.UNAVAILABLE, "etcdserver: something new", "A_NAME_OF_LATER") is None
    assert name_of(Code.UNAVAILABLE, "") == ""
    assert not REPLICA_EMPTY.matches("holdfast: replica a is ill")
    assert not OUTSIDE_PREFIXES.matches("/a is outside this replica's prefixes")


def test_templates_are_told_apart() -> None:
    """Even if the fields are texts of other refusals."""
    message = REPLICA_DISCONNECTED.fill(name="has no data", prefixes="holdfast: replica ").message
    assert known(Code.UNAVAILABLE, message) is REPLICA_DISCONNECTED


def test_reasons_why_watches_end_are_known() -> None:
    assert known_reason(AUTH_OLD_REVISION.in_go_words()) is AUTH_OLD_REVISION
    assert known_reason(COMPACTED.message) is COMPACTED
    assert known_reason(filled(OUTSIDE_PREFIXES).message) is OUTSIDE_PREFIXES
    assert known_reason("") is None


def test_a_kept_refusal_equals_its_constant() -> None:
    assert Refusal(Code(int(LEASE_NOT_FOUND.code)), str(LEASE_NOT_FOUND.message)) == LEASE_NOT_FOUND


def _modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        where = str(path.relative_to(PACKAGE))
        if where != "status.py" and not where.startswith("proto/"):
            yield where, ast.parse(path.read_text())


def _docstrings(module: ast.Module) -> set[int]:
    """Ids of the nodes that are documentation."""
    return {
        id(node.body[0].value)
        for node in ast.walk(module)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }


def test_no_text_is_written_twice() -> None:
    texts = [c.template if isinstance(c, RefusalTemplate) else c.message for c in CONSTANTS.values()]
    for where, module in _modules():
        documentation = _docstrings(module)
        for node in ast.walk(module):
            if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or id(node) in documentation:
                continue
            words = node.value.strip()
            if len(words) >= FRAGMENT and " " in words:
                again = [text for text in texts if words in text or text in words]
                assert not again, f"{where}:{node.lineno}: {words!r} is part of {again}"


def test_what_the_client_tells_apart_is_what_servers_raise() -> None:
    used: dict[bool, set[str]] = {True: set(), False: set()}
    for where, module in _modules():
        names = {node.id for node in ast.walk(module) if isinstance(node, ast.Name)}
        used[where.startswith("client/")] |= names & CONSTANTS.keys()
    assert used[True]
    assert used[True] <= used[False]
