"""Computes the configuration that results from a membership change, or refuses the change."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from holdfast.machine import Machine
from holdfast.proto import raft_pb2
from holdfast.raft.core import Raft
from holdfast.raft.quorum import ConfState
from holdfast.raft.status import RaftStatus
from holdfast.status import (
    BAD_URLS,
    CONF_MOVED,
    CONF_PENDING,
    LEARNER_NOT_READY,
    MEMBER_EXISTS,
    MEMBER_NOT_FOUND,
    NOT_ENOUGH_STARTED,
    NOT_LEARNER,
    NOT_VOTER,
    PEER_URL_EXISTS,
    TOO_MANY_LEARNERS,
    RequestError,
)

_Change = raft_pb2.MemberChange


def caught_up(raft: RaftStatus, member: int) -> bool:
    """As leader: whether `member` is close behind, with 90 % of the committed log and at most 1,000 entries missing."""
    progress = raft.progress(member)
    match = progress.match if progress else 0
    return match > 0 and match * 10 >= raft.commit * 9 and raft.commit - match <= 1000


def next_conf(raft: Raft, machine: Machine, change: _Change, max_learners: int) -> ConfState:
    """As leader: the configuration that results from `change` and the changes `together` with it.

    Raises RequestError if another change is under way, if the membership is not the one that the caller expects, if the
    change is invalid, or if the members that answered lately are no quorum during or after it (etcd's strict check).
    """
    if not raft.may_change_conf() or machine.applied_index < raft.conf_index:
        raise RequestError(CONF_PENDING)
    if change.expected_config_index and change.expected_config_index != raft.conf_index:
        raise RequestError(CONF_MOVED)
    conf = raft.conf
    planned = _Plan(raft, machine)
    for step in (change, *change.together):
        planned.add_step(step)
    if len(planned.learners) > max(max_learners, len(conf.learners)) and planned.added_learner:
        raise RequestError(TOO_MANY_LEARNERS)
    if not planned.voters:
        raise RequestError(NOT_ENOUGH_STARTED)
    if (planned.voters, planned.learners) == (set(conf.voters), set(conf.learners)):
        return conf  # only addresses change
    new = conf.changed(planned.voters, planned.learners)
    if new.voters != conf.voters and not new.quorum(lambda m: raft.hears(m) and m not in planned.added):
        raise RequestError(NOT_ENOUGH_STARTED)
    return new


class _Plan:
    """The voters and learners that result from the steps so far."""

    def __init__(self, raft: Raft, machine: Machine) -> None:
        self._raft = raft
        self._machine = machine
        self.voters = set(raft.conf.voters)
        self.learners = set(raft.conf.learners)
        self.added: set[int] = set()
        self.added_learner = False
        self._urls = {url for info in machine.members.values() for url in info.peer_urls}

    def add_step(self, step: _Change) -> None:
        member = step.member.id
        if step.kind in (_Change.ADD_LEARNER, _Change.ADD_VOTER):
            self._add(step)
            return
        if member not in self._machine.members or member in self.added:
            raise RequestError(MEMBER_NOT_FOUND)
        if step.kind == _Change.PROMOTE:
            if member not in self.learners:
                raise RequestError(NOT_LEARNER)
            if not caught_up(self._raft, member):
                raise RequestError(LEARNER_NOT_READY)
            self.learners.discard(member)
            self.voters.add(member)
        elif step.kind == _Change.DEMOTE:
            if member not in self.voters:
                raise RequestError(NOT_VOTER)
            self.voters.discard(member)
            self.learners.add(member)
        elif step.kind == _Change.REMOVE:
            self.voters.discard(member)
            self.learners.discard(member)
            self._urls -= set(self._machine.members[member].peer_urls)
        elif step.kind == _Change.UPDATE:
            self._urls -= set(self._machine.members[member].peer_urls)
            self._take_urls(step.member.peer_urls)

    def _add(self, step: _Change) -> None:
        member = step.member.id
        if member in self._machine.members or member in self._machine.removed or member in self.added or not member:
            raise RequestError(MEMBER_EXISTS)
        self._take_urls(step.member.peer_urls)
        self.added.add(member)
        if step.kind == _Change.ADD_VOTER:
            self.voters.add(member)
        else:
            self.learners.add(member)
            self.added_learner = True

    def _take_urls(self, urls: Collection[str]) -> None:
        check_urls(urls)
        if self._urls & set(urls):
            raise RequestError(PEER_URL_EXISTS)
        self._urls |= set(urls)


def is_url(url: str) -> bool:
    """Whether `url` is scheme, host and port, and nothing more."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and bool(parts.port)
    except ValueError:
        return False
    return good and not (parts.path or parts.query or parts.fragment)


def check_urls(urls: Collection[str]) -> None:
    """Check a member's peer URLs: at least one, all valid. Duplicates are accepted, as in etcd."""
    if not urls or not all(is_url(url) for url in urls):
        raise RequestError(BAD_URLS)
