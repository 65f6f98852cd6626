"""The simulated network: links that lose, repeat, delay, reorder, clog and break, each direction separately."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.member import codec
from holdfast.proto import raft_pb2
from holdfast.raft.messages import Message

from holdfast_lab.sim.mix import MS, SECOND, Mix
from holdfast_lab.sim.world import World


class Network:
    """Carries messages between members. `deliver` is called for each that arrives."""

    def __init__(self, world: World, mix: Mix, deliver: Callable[[Message], None]) -> None:
        self._world = world
        self._mix = mix
        self._deliver = deliver
        self._chance = world.chance("network")
        self.cut: set[tuple[int, int]] = set()
        self._clogged: dict[tuple[int, int], list[Message]] = {}
        self._under_way: dict[tuple[int, int], int] = {}
        self._generation: dict[tuple[int, int], int] = {}  # incremented by a reset: what was in flight is lost
        self.calm = False

    def send(self, message: Message) -> None:
        link = (message.frm, message.to)
        if link in self.cut:
            return
        if link in self._clogged:
            if len(self._clogged[link]) < self._mix.queue:
                self._clogged[link].append(message)
            return
        mix, random = self._mix, self._chance.random
        if random() < 0.01:  # messages must survive encoding and decoding
            message = _over_the_wire(message)
        if self.calm:
            self._carry(link, message, mix.delay_ns)
            return
        under_way = self._under_way.get(link, 0)
        if random() < mix.drop or under_way >= mix.queue:
            if under_way >= mix.queue:
                self._world.sometimes("link queue overflowed")
            return
        delay = int(mix.delay_ns * (0.2 + random() * 1.6))
        if random() < mix.slow:
            delay += int(random() * 400 * MS)
        self._carry(link, message, delay)
        if mix.duplicate and random() < mix.duplicate:
            self._carry(link, message, delay + int(random() * 20 * MS))
        if mix.replay and random() < mix.replay:
            self._carry(link, message, delay + int(random() * 8 * SECOND))

    def _carry(self, link: tuple[int, int], message: Message, delay: int) -> None:
        self._under_way[link] = self._under_way.get(link, 0) + 1
        generation = self._generation.get(link, 0)
        self._world.at(self._world.now + delay, self._arrive, link, message, generation)

    def _arrive(self, link: tuple[int, int], message: Message, generation: int) -> None:
        self._under_way[link] -= 1
        if generation == self._generation.get(link, 0) and link not in self.cut:
            self._deliver(message)

    # ---- trouble -------------------------------------------------------------------------------------------

    def break_link(self, link: tuple[int, int]) -> None:
        """The connection is reset: what is in flight is lost."""
        self._generation[link] = self._generation.get(link, 0) + 1
        self._clogged.pop(link, None)

    def clog(self, link: tuple[int, int]) -> None:
        self._clogged.setdefault(link, [])

    def unclog(self, link: tuple[int, int]) -> None:
        for message in self._clogged.pop(link, ()):
            self._carry(link, message, int(self._mix.delay_ns * (0.2 + self._chance.random() * 20)))

    def heal(self) -> None:
        self.cut.clear()
        for link in list(self._clogged):
            self.unclog(link)


def _over_the_wire(message: Message) -> Message:
    wire = codec.encode(message).SerializeToString()
    decoded = codec.decode(raft_pb2.PeerMessage.FromString(wire), message.to, message.frm)
    assert decoded is not None
    return decoded
