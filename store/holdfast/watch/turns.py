"""Decides which of the watchers that are behind are served next.

Clients take turns, and so do the streams of a client and the watchers of a stream: a client with a thousand watchers of
the past does not make another client's watcher wait for all of them.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from itertools import islice

from holdfast.watch.watcher import Watcher


@dataclass(slots=True)
class Stream:
    """A watch stream with its watchers."""

    id: int
    client: Hashable
    watchers: dict[int, Watcher] = field(default_factory=dict)
    behind: dict[int, Watcher] = field(default_factory=dict)  # those that are behind; the next to serve first
    blocked: bool = False
    next_id: int = 0
    ahead: dict[int, None] = field(default_factory=dict)  # watchers that began at a future revision


class Turns:
    """The streams that can be sent more, and have watchers that are behind."""

    def __init__(self) -> None:
        self._clients: dict[Hashable, dict[int, Stream]] = {}  # at each level, the next to serve first

    def __bool__(self) -> bool:
        return bool(self._clients)

    def update(self, stream: Stream) -> None:
        """Call this after `stream.behind` or `stream.blocked` has changed."""
        if stream.behind and not stream.blocked:
            self._clients.setdefault(stream.client, {}).setdefault(stream.id, stream)
        else:
            self.remove(stream)

    def remove(self, stream: Stream) -> None:
        streams = self._clients.get(stream.client)
        if streams is not None and streams.pop(stream.id, None) is not None and not streams:
            del self._clients[stream.client]

    def window(self, most: int) -> list[tuple[Stream, Watcher]]:
        """About `most` watchers that could be served in this turn: each client has an equal share of them, and so has
        each stream of a client."""
        found: list[tuple[Stream, Watcher]] = []
        for streams in islice(self._clients.values(), most):
            share = -(-most // len(self._clients))
            each = -(-share // len(streams))
            for stream in islice(streams.values(), share):
                found += [(stream, watcher) for watcher in islice(stream.behind.values(), each)]
        return found

    def served(self, stream: Stream, watcher: Watcher) -> None:
        """This watcher had its turn: it goes behind the others, and so do its stream and its client."""
        if watcher.id in stream.behind:
            stream.behind[watcher.id] = stream.behind.pop(watcher.id)
        streams = self._clients.get(stream.client)
        if streams is not None and stream.id in streams:
            streams[stream.id] = streams.pop(stream.id)
            self._clients[stream.client] = self._clients.pop(stream.client)
