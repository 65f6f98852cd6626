"""/debug: stacks, CPU profile and memory statistics of a running server.

Off unless --enable-pprof is given, as in etcd: the pages reveal internals, and a profile costs CPU. The paths are those
of Go's pprof where there is an equivalent; the output is plain text.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from types import FrameType

from holdfast.api.pages import Page, Query, Say, as_json, fixed

MAX_SECONDS = 60.0
SAMPLE_SECONDS = 0.005

_INDEX = """/debug/vars                        what this process is, as JSON
/debug/pprof/goroutine             what every thread and task is doing
/debug/pprof/profile?seconds=10    where the event loop's time goes: a line for each stack, how often it was seen
                                   (for flamegraph.pl, speedscope and the like)
/debug/pprof/heap                  how many objects there are of each type
"""


def pages(variables: Callable[[], Mapping[str, object]]) -> dict[str, Page]:
    """The pages by path. `variables`: further values for /debug/vars."""
    return {
        "/debug/pprof/": fixed(lambda: (200, _INDEX)),
        "/debug/vars": fixed(lambda: (200, as_json({"cmdline": sys.argv, **variables()}))),
        "/debug/pprof/goroutine": fixed(lambda: (200, _stacks())),
        "/debug/pprof/heap": fixed(lambda: (200, _objects())),
        "/debug/pprof/profile": _profile,
    }


def _stacks() -> str:
    parts = []
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        parts.append(f"thread {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}")
    for task in asyncio.all_tasks():
        stack = "".join("".join(traceback.format_stack(frame)) for frame in task.get_stack())
        parts.append(f"task {task.get_name()}, {task.get_coro().__qualname__}:\n{stack}")  # type: ignore[union-attr]
    return "\n".join(parts)


def _objects() -> str:
    """Counts of objects by type. Covers only what the garbage collector tracks: no numbers, strings or bytes."""
    found = Counter(f"{type(thing).__module__}.{type(thing).__qualname__}" for thing in gc.get_objects())
    return "".join(f"{count:>10}  {name}\n" for name, count in found.most_common(100))


def _profile(query: Query, say: Say) -> None:
    try:
        seconds = float(query.get("seconds", ["10"])[0])
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= MAX_SECONDS:
        say(400, f"seconds is a number above 0 and up to {MAX_SECONDS:g}\n")
        return
    loop = asyncio.get_running_loop()
    loop_thread = threading.get_ident()

    def done(seen: Counter[str]) -> None:
        say(200, "".join(f"{stack} {count}\n" for stack, count in seen.most_common()))

    def run() -> None:
        seen = _sample(loop_thread, seconds)
        loop.call_soon_threadsafe(partial(done, seen))

    threading.Thread(target=run, name="profile", daemon=True).start()


def _sample(thread: int, seconds: float) -> Counter[str]:
    """Sample the stacks of `thread` for `seconds`; how often each was seen. Frames are outermost first."""
    seen: Counter[str] = Counter()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(SAMPLE_SECONDS)
        frame: FrameType | None = sys._current_frames().get(thread)
        names = []
        while frame is not None:
            code = frame.f_code
            names.append(f"{frame.f_globals.get('__name__', '?')}.{code.co_qualname}:{frame.f_lineno}")
            frame = frame.f_back
        seen[";".join(reversed(names))] += 1
    return seen
