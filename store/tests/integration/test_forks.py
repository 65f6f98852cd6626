"""Clients in processes that are forked: real forks in a process of its own, with a real server. Nothing ever hangs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap

from holdfast import client
from holdfast_lab.processes import LocalCluster

BEGIN = """
import asyncio, multiprocessing, os, signal, sys, threading, time, traceback
from holdfast import client
from holdfast.client.forks import Forked
signal.alarm(90)  # ends it, should it hang
endpoint = sys.argv[1]

def child(work, *more):
    '''Runs `work` in a forked process, which ends as any Python program. Returns its exit code.'''
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        work(*more)
        sys.exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if code >= 0 else signal.Signals(-code).name

def child_of_a_loop(work, *more):
    '''The same while a loop runs: nothing of that loop is to run in the child.'''
    def ended():
        try:
            work(*more)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    return child(ended)

def refused(work):
    try:
        work()
    except Forked as error:
        print(error)
    else:
        raise SystemExit("no error")
"""


def run(server: LocalCluster, script: str) -> str:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", BEGIN + textwrap.dedent(script)]
    found = subprocess.run([*command, server.endpoints[0]], capture_output=True, text=True, timeout=100, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    assert not found.stderr, "nothing is said of tasks or loops of the other process"
    return found.stdout


def test_a_blocking_client_works_on_both_sides_and_the_child_takes_nothing_with_it(server: LocalCluster) -> None:
    run(
        server,
        """
        hf = client.connect_blocking(endpoint, session_ttl=2)
        hf.put("/f/x", "1")
        lease = hf.lease(2)
        hf.put("/f/leased", "x", lease=lease)
        cache, config = hf.cache("/f/"), hf.config("/f/x", int)
        watch = hf.watch("/f/watched")
        watching = threading.Thread(target=lambda: [next(watch), next(watch)])
        watching.start()

        def work():
            assert (cache["/f/x"].value, config.value) == (b"1", 1), "as it was, before any answer"
            refused(lambda: next(changes))
            refused(lambda: hf.revoke(lease))
            hf.put("/f/x", "2")
            cache.current()
            assert cache["/f/x"].value == b"2"
            while config.value != 2:
                time.sleep(0.01)
            hf.put("/f/watched", "by the child")
            assert child(again) == 0, "the child of a child"
            hf.close()

        def again():
            assert hf.get("/f/x").value == b"2"

        def session():
            return hf.asyncio._session._lease.id

        changes, before = cache.changes(), session()
        for _ in range(3):
            hf.put("/f/x", "1")
            cache.current()
            while config.value != 1:
                time.sleep(0.01)
            assert child(work) == 0
            cache.current()
            assert cache["/f/x"].value == b"2", "the parent goes on"
        watching.join(30)
        assert not watching.is_alive(), "a watch that waited during the forks"
        begin = time.monotonic()
        while time.monotonic() - begin < 4:  # twice the TTL
            assert lease.alive
            assert hf.get("/f/leased") is not None
            time.sleep(0.1)
        hf.put("/f/x", "3")
        assert session() == before, "the child ended only its own"
        hf.close()
        """,
    )


def test_threads_at_work_while_the_process_forks_again_and_again(server: LocalCluster) -> None:
    run(
        server,
        """
        hf = client.connect_blocking(endpoint)
        hf.delete("/t/", prefix=True)
        done, written, errors = threading.Event(), [0, 0], []

        def write(n):
            try:
                while not done.is_set():
                    hf.put(f"/t/{n}", str(written[n] + 1))
                    written[n] += 1
                    assert int(hf.get(f"/t/{n}").value) == written[n]
            except BaseException as error:
                errors.append(error)

        writers = [threading.Thread(target=write, args=(n,)) for n in range(2)]
        for writer in writers:
            writer.start()
        for _ in range(20):
            before = list(written)
            code = child(lambda: hf.get("/t/0"))
            assert code == 0, code
            while not errors and any(now <= then for now, then in zip(written, before)):
                time.sleep(0.001)
        done.set()
        for writer in writers:
            writer.join()
        assert not errors, errors
        for n in range(2):
            assert int(hf.get(f"/t/{n}").value) == written[n], "each write took effect once"
            assert hf.get(f"/t/{n}").version == written[n]
        """,
    )


def test_multiprocessing(server: LocalCluster) -> None:
    run(
        server,
        """
        hf, other = client.connect_blocking(endpoint), client.connect_blocking(endpoint)
        hf.put("/m/x", "1")
        other.put("/m/x", "1")
        def work(n):
            other.put(f"/m/{n}", str(n))
            return hf.get("/m/x").value
        with multiprocessing.get_context("fork").Pool(3) as pool:
            assert pool.map(work, range(12)) == [b"1"] * 12
        assert hf.range("/m/", prefix=True, keys_only=True).count == 13
        """,
    )


def test_a_client_that_is_closed_stays_closed(server: LocalCluster) -> None:
    run(
        server,
        """
        with client.connect_blocking(endpoint) as hf:
            hf.put("/c/x", "1")
        def work():
            try:
                hf.get("/c/x")
            except client.Unavailable as error:
                assert "closed" in str(error)
            else:
                raise SystemExit("no error")
            with client.connect_blocking(endpoint) as fresh:
                assert fresh.get("/c/x").value == b"1"
        assert child(work) == 0
        """,
    )


def test_an_asyncio_client_says_that_it_cannot_be_used(server: LocalCluster) -> None:
    said = run(
        server,
        """
        async def main():
            async with client.connect(endpoint) as hf:
                await hf.put("/a/x", "1")
                async with await hf.cache("/a/") as cache:
                    assert child_of_a_loop(work, hf) == 0
                    await hf.put("/a/x", "2")
                    await cache.current()
                    assert cache["/a/x"].value == b"2"
            assert child_of_a_loop(unused, hf) == 0

        def work(hf):
            refused(lambda: client.connect_blocking(endpoint))
            refused(lambda: in_a_thread(client.connect(endpoint)))
            refused(lambda: in_a_thread(hf))

        def unused(hf):
            with client.connect_blocking(endpoint) as fresh:
                assert fresh.get("/a/x").value == b"2"
            refused(lambda: in_a_thread(hf))

        def in_a_thread(hf):
            '''The loop of this thread looks as if it ran, in the child, too.'''
            errors = []
            def there():
                try:
                    asyncio.run(hf.get("/a/x"))
                except BaseException as error:
                    errors.append(error)
            thread = threading.Thread(target=there)
            thread.start()
            thread.join()
            raise errors[0]

        asyncio.run(main())
        """,
    )
    assert said.count("close asyncio clients before a fork") == 2
    assert said.count("make it after the fork") == 2


async def test_what_waits_on_a_channel_that_is_closed_here_goes_on_elsewhere(server: LocalCluster) -> None:
    """A channel is closed under a watch when a call finds it broken, or when its name has other addresses."""
    async with client.connect(server.endpoints, timeout=0.2) as hf, await hf.lease(2) as lease:
        await hf.put("/d/x", "0")
        await hf.put("/d/leased", "x", lease=lease)
        changes = hf.watch("/d/x", start_revision=1)
        await anext(changes)
        async with await hf.cache("/d/") as cache:
            for n in range(1, 4):
                for address in hf.metrics():
                    await hf.connection.drop(address)
                await asyncio.sleep(1.0)  # longer than calls on it are given to end
                await hf.put("/d/x", str(n))
                assert (await asyncio.wait_for(anext(changes), 20)).kv.value == str(n).encode()
                await cache.current(20)
                assert cache["/d/x"].value == str(n).encode()
            assert lease.alive
            assert await hf.get("/d/leased") is not None
