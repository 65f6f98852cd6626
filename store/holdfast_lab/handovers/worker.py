"""One process that takes a lock again and again, and tells its parent: ENDPOINTS NAME TTL DELAY.

Each line on stdout says what, by which token, when (by the clock that all processes of a machine share), and until when
the session is certainly alive. A `use` waits for the answer of what the lock protects, on stdin.
"""

from __future__ import annotations

import asyncio
import sys
from random import Random

from holdfast import client, recipes
from holdfast.client.keepalive import now

LOCKS_PER_SESSION = 40


def say(what: str, token: recipes.Token, session: recipes.Session) -> None:
    print(f"{what} {token.epoch} {token.revision} {now():.6f} {session.safe_until:.6f}", flush=True)


async def use(lock: recipes.Lock, token: recipes.Token, session: recipes.Session) -> bool:
    """Use what the lock protects, if the lock is held. False: it was refused."""
    if not lock.held:
        return False
    say("use", token, session)
    answer = await asyncio.to_thread(sys.stdin.readline)
    return str(answer).strip() == "ok"


async def work(endpoints: str, name: str, ttl: int, delay: int) -> None:
    chance = Random()
    async with client.connect(endpoints, timeout=5.0) as hf:
        while True:
            try:
                async with recipes.session(hf, ttl, lock_delay=delay) as session:
                    for _ in range(LOCKS_PER_SESSION):
                        lock = recipes.Lock(session, name)
                        await lock.acquire()
                        token = lock.token
                        say("hold", token, session)
                        for _ in range(chance.randrange(1, 3)):
                            if not await use(lock, token, session):
                                break
                            await asyncio.sleep(0.002 * chance.random())
                        say("release", token, session)
                        await lock.release()
            except client.ClientError as error:
                print(f"error {type(error).__name__} {error}".replace("\n", " "), flush=True)


def main() -> None:
    endpoints, name, ttl, delay = sys.argv[1:]
    asyncio.run(work(endpoints, name, int(ttl), int(delay)))


if __name__ == "__main__":
    main()
