"""A call that has to wait is queried once, whatever the result of what it waits for."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.api.router import Router
from holdfast.front.calls import Call, Peer, Unary


async def test_a_held_call_is_served_after_one_wait() -> None:
    served: list[bytes] = []
    waiting: list[Callable[[], None]] = []

    def hold(call: Call, go_on: Callable[[], None]) -> bool:
        waiting.append(go_on)
        return True  # as long as it is asked

    router = Router(hold=hold)
    router.unary("/s/M", lambda call, body: served.append(body))
    router.on_event(Unary(Call(1, "/s/M", Peer("there"), {}, None), b"body"))
    assert served == []
    waiting.pop()()
    assert served == [b"body"]
    assert not waiting
