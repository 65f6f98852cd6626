"""The pages /livez and /readyz of a replica, with named checks as at a member.

It is ready once it has data. That data of some prefixes is not here yet does not count: a Service would send nobody to
it, and it is there to serve what it has, also while it is cut off. Who wants to know asks the page `/readyz/prefixes`,
and how old the data may be, by `max-staleness`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from holdfast.api.pages import Page, Query, Say, say_checks, stuck
from holdfast.durations import seconds
from holdfast.edge.core import ReplicaCore

MAX_STALENESS = "max-staleness"
_FOR_PROBES = ("verbose", "exclude")

Check = Callable[[], str]  # the problem; empty if there is none


class Ready:
    """`turned_at`: when the loop last turned. `staleness_ms` returns the bound of the data; None: unknown."""

    def __init__(
        self, core: ReplicaCore, turned_at: Callable[[], float], staleness_ms: Callable[[], int | None]
    ) -> None:
        self._core = core
        self._turned_at = turned_at
        self._staleness_ms = staleness_ms

    def pages(self) -> dict[str, Page]:
        live: dict[str, Check] = {"loop": lambda: stuck(self._turned_at())}
        ready: dict[str, Check] = {"data": self._data}
        pages: dict[str, Page] = {}
        for kind, checks, asks in (("livez", live, False), ("readyz", ready, True)):
            pages[f"/{kind}"] = self._page(kind, checks, asks=asks)
            for name, check in checks.items():
                pages[f"/{kind}/{name}"] = self._page(kind, {name: check}, asks=asks)
        pages["/readyz/prefixes"] = self._page("readyz", {"prefixes": self._prefixes}, asks=True)
        return pages

    def _page(self, kind: str, checks: Mapping[str, Check], *, asks: bool) -> Page:
        """`asks`: the query may say how old the data may be."""
        known = (*_FOR_PROBES, MAX_STALENESS) if asks else _FOR_PROBES

        def page(query: Query, say: Say) -> None:
            unknown = next((name for name in query if name not in known), None)
            if unknown is not None:
                say(400, f"there is no parameter {unknown[:40]!r}: write {', '.join(known)}\n")
                return
            wanted = dict(checks)
            if query.get(MAX_STALENESS, [""])[0]:
                try:
                    wanted["staleness"] = self._not_older(query[MAX_STALENESS][0])
                except ValueError as error:
                    say(400, f"{MAX_STALENESS}: {error}\n")
                    return
            excluded = query.get("exclude", ())
            found = {name: check() for name, check in wanted.items() if name not in excluded}
            say_checks(kind, found, say, verbose="verbose" in query)

        return page

    def _data(self) -> str:
        return "" if self._core.complete else "no data yet"

    def _prefixes(self) -> str:
        lacking = [low for low, _ in self._core.missing]
        shown = ", ".join(low.decode("utf-8", "replace") for low in lacking)
        return f"no data yet of keys from {shown}" if lacking else ""

    def _not_older(self, asked: str) -> Check:
        """Raises ValueError."""
        most = seconds(asked)

        def check() -> str:
            staleness = self._staleness_ms()
            if staleness is not None and staleness <= most * 1000:
                return ""
            known = "unknown" if staleness is None else f"{staleness / 1000:.3f}s"
            return f"the data may be older than {asked}: {known}"

        return check
