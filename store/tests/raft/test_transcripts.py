"""Golden transcripts: what a few members write and say, command by command, kept beside the commands.

A file holds commands, each after "> ", and under each what it led to. `HOLDFAST_REWRITE=1 pytest …` writes the answers
anew; the difference is to be read as carefully as code. Commands:

    cluster 1 2 3 learners=4 max_message_bytes=100     members (always the first)
    campaign 1 · propose 1 x · read 1 7 · transfer 1 2 · hint 2 1 · compact 1 5
    change 1 voters=1,2 learners=3                     propose this configuration
    sync 1 [2]            the oldest 2 writes (or all) of 1 reach the disk
    deliver [Append …] [from=1] [to=2] · drop …        mail of these kinds
    snapshot 1 3          1's state reaches 3 whole
    settle · time 200ms [1 2] · crash 1 · start 1 · cut 1 2 · heal · status
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from holdfast.raft.messages import Message
from holdfast.raft.types import DurableAppend, Settings

from .cluster import MS, Cluster

FILES = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


class Play(Cluster):
    """A cluster that says what happens in it."""

    def __init__(self, voters: list[int], learners: list[int], **settings: int) -> None:
        self.said: list[str] = []
        self._roles: dict[int, tuple[str, int]] = {}
        super().__init__(voters, learners, settings=Settings(**settings))  # type: ignore[arg-type]

    def turn(self, member: int) -> None:
        mail, writes = len(self.mail), len(self.writes[member])
        reads, lost, snapshots = dict(self.reads), len(self.reads_lost), len(self.snapshots)
        super().turn(member)
        raft = self.nodes[member]
        role = (raft.role.value, raft.term)
        if self._roles.get(member, ("follower", 1)) != role:
            self._roles[member] = role
            self.said.append(f"{member} is {role[0]} in term {role[1]}")
        self.said += [f"{member} writes {_write(w)}" for w in self.writes[member][writes:]]
        self.said += [_message(m) for m in self.mail[mail:]]
        self.said += [f"{member} may read {i} at {at}" for i, at in self.reads.items() if i not in reads]
        self.said += [f"{member} cannot answer read {i}" for i in self.reads_lost[lost:]]
        self.said += [f"{member} has to send {to} a snapshot" for _, to in self.snapshots[snapshots:]]


def _write(write: DurableAppend) -> str:
    parts = [f"#{write.seq}"]
    if write.hard_state is not None:
        parts.append(f"term={write.hard_state.term} vote={write.hard_state.vote} commit={write.hard_state.commit}")
    if write.base is not None:
        parts.append(f"from {write.base[0]}@{write.base[1]}")
    if write.truncate_from:
        parts.append(f"cut at {write.truncate_from}")
    parts += [_entry(e) for e in write.entries]
    return " ".join(parts)


def _entry(entry: object) -> str:
    data = entry.data.decode()  # type: ignore[attr-defined]
    conf = entry.conf  # type: ignore[attr-defined]
    text = f"{entry.index}@{entry.term}"  # type: ignore[attr-defined]
    if conf is not None:
        halves = "+".join(",".join(map(str, half)) for half in (conf.voters, conf.outgoing) if half)
        text += f"<{halves}{' learners ' + ','.join(map(str, conf.learners)) if conf.learners else ''}>"
    return text + (f":{data}" if data else "")


def _message(m: Message) -> str:
    fields = []
    for name in type(m).__slots__:
        value = getattr(m, name)
        if name in ("digest", "digest_index") or (name in ("hint_index", "hint_term", "level") and not value):
            continue
        if name == "entries":
            value = "[" + " ".join(_entry(e) for e in value) + "]"
        fields.append(f"{name}={value}")
    return f"{m.frm}->{m.to} {type(m).__name__} term={m.term} {' '.join(sorted(fields))}".rstrip()


def _numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",") if n]


def _wanted(arguments: list[str]) -> Callable[[Message], bool]:
    options = dict(a.split("=") for a in arguments if "=" in a)
    kinds = [a for a in arguments if "=" not in a]

    def wanted(m: Message) -> bool:
        return (
            (not kinds or type(m).__name__ in kinds)
            and m.frm == int(options.get("from", m.frm))
            and m.to == int(options.get("to", m.to))
        )

    return wanted


def _do(play: Play, name: str, arguments: list[str]) -> None:
    words = [a for a in arguments if "=" not in a]
    options = dict(a.split("=") for a in arguments if "=" in a)
    member = int(words[0]) if words and words[0].isdigit() else 0
    if name == "campaign":
        play.do(member, lambda raft: raft.campaign())
    elif name == "propose":
        play.propose(member, words[1].encode())
    elif name == "change":
        play.change(member, _numbers(options["voters"]), _numbers(options.get("learners", "")))
    elif name == "read":
        play.read(member, int(words[1]))
    elif name == "transfer":
        play.do(member, lambda raft: raft.transfer(int(words[1])))
    elif name == "hint":
        play.do(member, lambda raft: raft.suspect(int(words[1])))
    elif name == "compact":
        play.nodes[member].compact(int(words[1]))
    elif name == "sync":
        play.sync(member, int(words[1]) if len(words) > 1 else None)
    elif name == "deliver":
        play.deliver(_wanted(arguments))
    elif name == "drop":
        play.said += [f"lost: {_message(m)}" for m in play.drop(_wanted(arguments))]
    elif name == "snapshot":
        _send_snapshot(play, member, int(words[1]))
    elif name == "settle":
        play.settle()
    elif name == "time":
        play.pass_time(int(words[0].removesuffix("ms")) * MS, *(int(w) for w in words[1:]))
    elif name == "crash":
        play.crash(member)
    elif name == "start":
        play.start(member)
    elif name == "cut":
        one, other = (int(w) for w in words)
        play.cut |= {(one, other), (other, one)}
    elif name == "heal":
        play.heal()
    elif name == "status":
        play.said += [_status(play, m) for m in sorted(play.nodes)]
    else:
        raise AssertionError(f"no command {name!r}")


def _send_snapshot(play: Play, member: int, to: int) -> None:
    raft = play.nodes[member]
    index, term = raft.commit, raft.log.term(raft.commit)
    assert term is not None
    if play.nodes[to].offer_snapshot(index, member, raft.term):
        play.do(to, lambda r: r.restored(index, term, raft.conf, raft.conf_index, member))
    play.do(member, lambda r: r.snapshot_sent(to, True))


def _status(play: Play, member: int) -> str:
    raft = play.nodes[member]
    line = f"{member} {raft.role.value} term={raft.term} last={raft.log.last} commit={raft.commit} stable={raft.stable}"
    if raft.leading is not None:
        others = raft.leading.progress.items()
        line += "".join(f" {m}:{p.mode.value} {p.match}<{p.next}" for m, p in others if m != member)
    return line


def _play(text: str) -> str:
    """The transcript that the commands of `text` lead to."""
    out: list[str] = []
    play: Play | None = None
    for line in text.splitlines():
        if line.startswith("#"):
            out.append(line)
        elif line.startswith("> "):
            if out and not out[-1].startswith("#"):
                out.append("")
            out.append(line)
            name, *arguments = line[2:].split()
            if name == "cluster":
                options = dict(a.split("=") for a in arguments if "=" in a)
                learners = _numbers(options.pop("learners", ""))
                voters = [int(a) for a in arguments if a.isdigit()]
                play = Play(voters, learners, **{k: int(v) for k, v in options.items()})
                continue
            assert play is not None, "the first command is `cluster`"
            _do(play, name, arguments)
            out += play.said
            play.said = []
    return "\n".join(out) + "\n"


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_transcript(file: Path) -> None:
    kept = file.read_text()
    played = _play(kept)
    if os.environ.get("HOLDFAST_REWRITE"):
        file.write_text(played)
    assert played == kept
