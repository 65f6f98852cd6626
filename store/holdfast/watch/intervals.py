"""Finds the ranges that contain a key without examining every range.

A treap, ordered by the starts of the ranges; each node stores how far the ranges below it reach. A lookup takes time in
proportion to the ranges found and the depth. The priorities are hashes, and Python's hashes of bytes are unpredictable,
so that a client cannot choose ranges that make the tree deep.
"""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.keyrange import Range

Ref = tuple[int, int]
_End = tuple[bool, bytes]  # an end in sortable form: (True, b"") for None, which is after all others


class _Node:
    __slots__ = ("end", "left", "order", "priority", "reach", "refs", "right", "start")

    def __init__(self, start: bytes, end: _End) -> None:
        self.start = start
        self.end = self.reach = end
        self.order = (start, end)
        self.priority = hash(self.order)
        self.refs: dict[Ref, None] = {}
        self.left: _Node | None = None
        self.right: _Node | None = None

    def update(self) -> _Node:
        """Recompute `reach` after the children changed. Returns self."""
        self.reach = self.end
        for child in (self.left, self.right):
            if child is not None and child.reach > self.reach:
                self.reach = child.reach
        return self


class Intervals:
    """Watchers by range."""

    def __init__(self) -> None:
        self._root: _Node | None = None
        self._nodes: dict[Range, _Node] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def add(self, ref: Ref, start: bytes, end: bytes | None) -> None:
        node = self._nodes.get((start, end))
        if node is None:
            node = self._nodes[start, end] = _Node(start, (end is None, end or b""))
            before, after = _split(self._root, node.order)
            self._root = _merge(_merge(before, node), after)
        node.refs[ref] = None

    def discard(self, ref: Ref, start: bytes, end: bytes | None) -> None:
        node = self._nodes.get((start, end))
        if node is None:
            return
        node.refs.pop(ref, None)
        if not node.refs:
            del self._nodes[start, end]
            self._root = _without(self._root, node)

    def of(self, key: bytes) -> Iterator[Ref]:
        """Watchers of ranges that contain this key."""
        at = (False, key)
        stack = [self._root]
        while stack:
            node = stack.pop()
            if node is None or node.reach <= at:
                continue
            stack.append(node.left)
            if node.start <= key:
                stack.append(node.right)
                if at < node.end:
                    yield from node.refs


def _split(node: _Node | None, order: tuple[bytes, _End]) -> tuple[_Node | None, _Node | None]:
    """Split a tree into the ranges before `order`, and the others."""
    if node is None:
        return None, None
    if node.order < order:
        between, after = _split(node.right, order)
        node.right = between
        return node.update(), after
    before, between = _split(node.left, order)
    node.left = between
    return before, node.update()


def _merge(before: _Node | None, after: _Node | None) -> _Node | None:
    if before is None or after is None:
        return before or after
    if before.priority > after.priority:
        before.right = _merge(before.right, after)
        return before.update()
    after.left = _merge(before, after.left)
    return after.update()


def _without(node: _Node | None, gone: _Node) -> _Node | None:
    if node is None or node is gone:
        return _merge(gone.left, gone.right)
    if gone.order < node.order:
        node.left = _without(node.left, gone)
    else:
        node.right = _without(node.right, gone)
    return node.update()
