"""The error of a call says what a server gave as its reason, and comes early if no server will do it."""

from __future__ import annotations

import grpc
from holdfast.client.failures import CUT_OFF_SECONDS, Failures
from holdfast.status import NO_LEADER, REPLICA_DISCONNECTED, REPLICA_EMPTY, REPLICA_TOO_OLD, Known, Refusal

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
CUT_OFF = REPLICA_DISCONNECTED.fill(name="berlin-1", prefixes="/stores/")
SAID = "replica berlin-1 is disconnected from its cluster: only serializable reads and watches of /stores/ are answered"


def refused(failures: Failures, refusal: Refusal, known: Known, now: float, where: str = "a:1") -> None:
    failures.refused(where, UNAVAILABLE, refusal.message, known, now)


def test_the_only_replica_is_given_up_when_it_stays_cut_off() -> None:
    failures = Failures(patience=CUT_OFF_SECONDS)
    refused(failures, CUT_OFF, REPLICA_DISCONNECTED, 10.0)
    assert failures.cut_off(1, 10.0) is None, "it may go over to another upstream"
    refused(failures, CUT_OFF, REPLICA_DISCONNECTED, 10.0 + CUT_OFF_SECONDS)
    error = failures.cut_off(1, 10.0 + CUT_OFF_SECONDS)
    assert error is not None
    assert str(error).startswith(SAID)
    assert error.known == REPLICA_DISCONNECTED


def test_a_read_that_says_how_old_its_answer_may_be_fails_at_once() -> None:
    failures = Failures(patience=0.0)
    refused(failures, REPLICA_TOO_OLD.fill(name="b", has="may be 3s behind", wanted="2s"), REPLICA_TOO_OLD, 1.0)
    assert failures.cut_off(2, 1.0) is None, "the other one may be fresh enough"
    refused(failures, CUT_OFF, REPLICA_DISCONNECTED, 1.0)
    assert failures.cut_off(2, 1.0) is not None


def test_who_may_answer_soon_is_waited_for() -> None:
    failures = Failures(patience=0.0)
    for other in (NO_LEADER, REPLICA_EMPTY):
        refused(failures, CUT_OFF, REPLICA_DISCONNECTED, 1.0)
        text = other if isinstance(other, Refusal) else other.fill(name="b")
        refused(failures, text, other, 1.0)
        assert failures.cut_off(2, 100.0) is None
    refused(failures, CUT_OFF, REPLICA_DISCONNECTED, 1.0)
    failures.note("cannot connect to b:1: connection refused: is it running?")
    assert failures.cut_off(2, 100.0) is None


def test_the_error_has_the_words_of_the_last_server_that_said_something() -> None:
    failures = Failures(patience=CUT_OFF_SECONDS)
    assert str(failures.too_late(3, "a:1 is silent")) == "no endpoint answered in time: a:1 is silent"
    failures.note("cannot connect to b:1: connection refused: is it running?")
    assert "answered in time: cannot connect to b:1" in str(failures.too_late(3, "a:1 is silent"))
    refused(failures, NO_LEADER, NO_LEADER, 1.0)
    late = failures.too_late(3, "")
    assert str(late) == "not done within 3 s: a:1 answered: no leader"
    assert late.known == NO_LEADER
    failures.refused("a:1", grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", None, 3.0)
    assert str(failures.too_late(3, "")) == "not done within 3 s: a:1 answered: no leader"
    failures.note("cannot connect to b:1: connection refused: is it running?")
    failures.note("cannot connect to c:1: no answer within 0.1 s", late=True)
    assert str(failures.too_late(3, "")).endswith(
        "a:1 answered: no leader; " + "cannot connect to b:1: connection refused: is it running?"
    )
