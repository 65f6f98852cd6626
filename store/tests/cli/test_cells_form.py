"""The text form of transactions between cells: what it means, that it is read back, and what is said of mistakes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from holdfast.cells import Message
from holdfast.cli.cells_form import lines_of, message, transaction
from holdfast.client.txn import Compare, Key, Op, Ops
from hypothesis import given
from hypothesis import strategies as st

CELLS = ("eu", "us")


def test_a_transaction_has_parts_by_cell() -> None:
    parts = transaction(
        """
        # moves a key
        at eu
        if /stock = 1   # while it is there
        delete /stock
        at us
        if /stock absent
        put '/the stock' "a 'b' # c"
        at eu
        if /open exists
        put /empty ''
        """,
        CELLS,
    )
    assert list(parts) == ["eu", "us"]
    assert parts["eu"].compares == [Key("/stock").value == "1", Key("/open").version > 0]
    assert parts["eu"].writes == [Ops.delete("/stock"), Ops.put("/empty", "")]
    assert parts["us"].compares == [Key("/stock").version == 0]
    assert parts["us"].writes == [Ops.put("/the stock", "a 'b' # c")]


def test_a_hash_inside_a_word_is_no_comment() -> None:
    assert message("put /color a#b").writes == [Ops.put("/color", "a#b")]
    assert message("put /color '#fff'#").writes == [Ops.put("/color", "#fff#")]
    assert message("put /color \\#fff # white").writes == [Ops.put("/color", "#fff")]


# Words of any bytes, as a shell hands them over; a line ends at \n.
_BYTES = st.binary(max_size=8).map(lambda data: data.replace(b"\n", b" "))
_KEYS = _BYTES.filter(lambda key: key != b"" and not key.startswith(b"/cells/"))


@st.composite
def compares(draw: st.DrawFn) -> Compare:
    key = Key(draw(_KEYS))
    made: Compare = draw(st.sampled_from([key.value == draw(_BYTES), key.version == 0, key.version > 0]))
    return made


def _writes(key: bytes) -> st.SearchStrategy[Op]:
    return st.one_of(st.just(Ops.delete(key)), _BYTES.map(lambda value: Ops.put(key, value)))


@given(
    st.lists(compares(), max_size=4),
    st.lists(_KEYS, min_size=1, max_size=4, unique=True).flatmap(lambda keys: st.tuples(*map(_writes, keys))),
)
def test_a_message_can_be_read_back(compared: list[Compare], written: tuple[Op, ...]) -> None:
    sent = Message(list(written), compared)
    lines = lines_of(sent)
    assert message("\n".join(lines)) == sent
    parts = transaction("\n".join(["at eu", *lines]), CELLS)
    assert (parts["eu"].writes, parts["eu"].compares) == (sent.writes, sent.compares)


def in_cells(text: str) -> object:
    return transaction(text, CELLS)


def mistake(read: Callable[[str], object], text: str) -> str:
    """What is said of it; empty: nothing."""
    try:
        read(text)
    except ValueError as error:
        return str(error)
    return ""


@given(st.text(alphabet="atifpu delk/=#'\"\\\n\t", max_size=60))
def test_any_text_is_read_or_refused_with_a_line(text: str) -> None:
    for read in (message, in_cells):
        said = mistake(read, text)
        assert not said or said.startswith(("line ", "there is no line", "the message writes nothing"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no line"),
        ("put /a 1", "line 1: say first in which cell"),
        ("\n# x\nat ap", "line 3: ap is no cell; there are eu, us"),
        ("at", "line 1: write at CELL"),
        ("at eu\nput /a", "line 2: 'put /a' cannot be read"),
        ("at eu\nput /a b c", "line 2: 'put /a b c' cannot be read"),
        ("at eu\nif /a < 1", "line 2: 'if /a < 1' cannot be read"),
        ("at eu\nput /a 'b", "line 2: No closing quotation"),
        ("at eu\nput '' x", "line 2: b'' cannot be written"),
        ("at eu\nif '' absent", "line 2: the key is empty"),
        ("at eu\nput /cells/self x", "line 2: b'/cells/self' cannot be written"),
        ("at eu\nput /a 1\nat us\nput /a 1\nat eu\ndelete /a", "line 6: the key /a is written twice"),
    ],
)
def test_what_is_wrong_in_a_transaction_is_said(text: str, said: str) -> None:
    assert mistake(in_cells, text).startswith(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("if /a exists", "the message writes nothing"),
        ("at eu\nput /a 1", "line 1: a message has no `at`"),
        ("put /a 1\ndelete /a", "line 2: the key /a is written twice"),
        ("put /a 1\n'", "line 2: No closing quotation"),
    ],
)
def test_what_is_wrong_in_a_message_is_said(text: str, said: str) -> None:
    assert mistake(message, text).startswith(said)


def test_a_compare_that_the_form_has_no_words_for_is_a_comment() -> None:
    (line, _) = lines_of(Message([Ops.put("/a", "1")], [Key("/b").mod_revision > 7]))
    assert line.startswith("# another compare of /b: ")
    assert "mod_revision: 7" in line
