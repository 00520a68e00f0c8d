"""botd's client, against a real keeper that it starts itself."""

from __future__ import annotations

import asyncio
import os
import select
import signal

import pytest
from keeper_house import alive, until

from botd.keeper import wire
from botd.keeper.client import KeeperBusy, KeeperClient, KeeperError, KeeperLost
from botd.keeper.client.answers import Answers


class Botd:
    """A client with its messages in a queue."""

    def __init__(self, house) -> None:
        self.house = house
        self.messages: asyncio.Queue = asyncio.Queue()
        self.lost = asyncio.Event()
        self.batches: list[int] = []
        self.client = KeeperClient(house.home, on_messages=self.take, on_lost=self.lost.set)

    def take(self, messages) -> None:
        self.batches.append(len(messages))
        for message in messages:
            if message["op"] == "started":
                held = self.client.held[message["id"], message["gen"]]
                self.house.known[message["pid"]] = os.dup(held.pidfd)
                if message["cgroup"]:
                    self.house.cgroups.add(message["cgroup"])
            self.messages.put_nowait(message)

    async def expect(self, name: str) -> dict:
        while (message := await asyncio.wait_for(self.messages.get(), 20))["op"] != name:
            pass
        return message

    def start(self, life_id: str, gen: int, argv: list[str]) -> None:
        self.client.start(self.house.spec(life_id, gen, argv))


@pytest.fixture
def run(house):
    """`run(coroutine_function)` with a Botd; the keeper it started is gone afterwards."""

    def runner(body):
        async def main():
            botd = Botd(house)
            try:
                await body(botd)
            finally:
                pid = botd.client.hello.get("pid")
                botd.client.close()
                if pid and alive(pid):
                    os.kill(pid, signal.SIGKILL)
                    until(lambda: not alive(pid), "the keeper to be gone")

        asyncio.run(main())

    return runner


def test_a_whole_life(run):
    async def body(botd):
        assert await botd.client.connect_or_start() == []
        botd.start("u/bot", 1, ["sh", "-c", "exit 3"])
        assert (await botd.expect("started"))["id"] == "u/bot"
        assert (await botd.expect("exited"))["code"] == 3
        held = botd.client.held["u/bot", 1]
        assert None not in (held.pidfd, held.out, held.err)
        botd.client.ack("u/bot", 1)
        assert botd.client.held == {}
        assert held.pidfd is None
        assert (await botd.client.ping())["unacknowledged"] == 0
        await botd.client.quit()
        assert not botd.client.connected
        assert not botd.lost.is_set()

    run(body)


def test_the_keeper_is_nobodys_child_and_has_no_terminal(run):
    async def body(botd):
        await botd.client.connect_or_start()
        pid = botd.client.hello["pid"]
        assert os.getsid(pid) == pid or os.getsid(pid) != os.getsid(0)
        assert [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)] == ["/dev/null"] * 3
        assert os.readlink(f"/proc/{pid}/cwd") == "/"

    run(body)


def test_reconnect_after_the_keeper_was_killed(run):
    async def body(botd):
        await botd.client.connect_or_start()
        for n in range(10):
            botd.start(f"u/bot{n}", 1, ["sh", "-c", "exit 6"] if n == 0 else ["sleep", "1000"])
        for _ in range(10):
            await botd.expect("running")
        first = botd.client.hello["pid"]
        os.kill(first, signal.SIGKILL)
        await asyncio.wait_for(botd.lost.wait(), 20)
        with pytest.raises(KeeperLost):
            botd.client.stop("u/bot1", 1, signal.SIGTERM, 1)
        states = await botd.client.reconnect()
        assert botd.client.hello["pid"] != first
        assert {s["id"] for s in states} == {f"u/bot{n}" for n in range(10)}
        for n in range(1, 10):
            botd.client.stop(f"u/bot{n}", 1, signal.SIGTERM, 20)
        ends = {}
        while len(ends) < 9:
            ended = await botd.expect("exited")
            if ended["id"] != "u/bot0":
                ends[ended["id"]] = ended["signal"] if ended["exact"] else signal.SIGTERM
        assert set(ends.values()) == {signal.SIGTERM}

    run(body)


def test_the_next_keeper_hears_of_what_is_held_before_anything_else(run):
    """A word about a life in the middle of the greeting would make it look for its lives by itself."""

    async def body(botd):
        await botd.client.connect_or_start()
        botd.start("u/bot", 1, ["sh", "-c", "sleep 0.05; echo last; exit 6"])
        await botd.expect("running")
        pidfd = os.dup(botd.client.held["u/bot", 1].pidfd)
        os.kill(botd.client.hello["pid"], signal.SIGKILL)
        await asyncio.wait_for(botd.lost.wait(), 20)
        await asyncio.to_thread(select.select, [pidfd], [], [], 20)
        os.close(pidfd)
        botd.client.hello = {}
        greeting = asyncio.ensure_future(botd.client.reconnect())
        while not botd.client.hello:  # noqa: ASYNC110 - the very turn of the loop is what matters
            await asyncio.sleep(0)
        with pytest.raises(KeeperLost):
            botd.start("u/other", 1, ["sleep", "1000"])
        [state] = await greeting
        final = state["final"] if not state["live"] else await botd.expect("exited")
        if botd.client.hello["features"]["pidfd_info_exit"]:
            assert (final["code"], final["exact"]) == (6, True)
        assert botd.house.log("u/bot") == b"last\n"
        botd.start("u/other", 1, ["sleep", "1000"])
        assert (await botd.expect("running"))["id"] == "u/other"

    run(body)


def test_a_keeper_that_dies_with_its_last_word_is_none(run, house):
    """The answer and the end of the connection arrive in one turn of the loop: that is a loss, not a greeting."""

    async def body(botd):
        os.makedirs(house.path("run"), exist_ok=True)
        door = wire.listener(botd.client.path)
        loop = asyncio.get_running_loop()

        def serve() -> None:
            os.unlink(botd.client.path)
            peer, buffer = wire.accept(door), bytearray(wire.PACKET_LIMIT)

            def answer() -> None:
                asked = wire.receive(peer, buffer)
                if asked[0]["op"] == "hello":
                    wire.send(peer, {"op": "hello", "pid": -1})
                elif asked[0]["op"] == "sync":
                    wire.send(peer, {"op": "synced"})
                    loop.remove_reader(peer.fileno())
                    peer.close()

            loop.add_reader(peer.fileno(), answer)
            loop.remove_reader(door.fileno())
            door.close()

        loop.add_reader(door.fileno(), serve)
        assert await botd.client.connect_or_start() == []
        assert botd.client.connected
        assert botd.client.hello["pid"] > 0  # a real one, started when the first was gone
        assert not botd.lost.is_set()

    run(body)


def test_a_second_client_gets_everything(run, house):
    async def body(botd):
        await botd.client.connect_or_start()
        botd.start("u/bot", 1, ["sleep", "1000"])
        await botd.expect("running")
        other = Botd(house)
        (state,) = await other.client.connect_or_start()
        assert state["live"] and state["running"]
        assert other.client.held["u/bot", 1].pidfd is not None
        await asyncio.wait_for(botd.lost.wait(), 20)
        with pytest.raises(KeeperBusy) as busy:
            await other.client.quit()
        assert busy.value.args == (1,)
        other.client.stop("u/bot", 1, signal.SIGKILL, 0)
        await other.expect("exited")
        other.client.close()

    run(body)


def test_a_question_that_could_not_be_sent_is_asked_again():
    """The connection may end between two questions of a greeting; the next greeting asks anew."""

    async def main():
        answers = Answers()

        def lost():
            raise KeeperLost("gone")

        with pytest.raises(KeeperLost):
            await answers.ask("synced", lost)
        asked = []
        waiting = asyncio.ensure_future(answers.ask("synced", lambda: asked.append(1)))
        await asyncio.sleep(0)
        assert asked
        answers.settle("synced", {"op": "synced"})
        assert await waiting == {"op": "synced"}

    asyncio.run(main())


def test_two_at_once_share_one_keeper(run, house):
    async def body(botd):
        other = Botd(house)
        await asyncio.gather(botd.client.connect_or_start(), other.client.connect_or_start())
        assert botd.client.hello["pid"] == other.client.hello["pid"]
        other.client.close()

    run(body)


def test_a_burst_arrives_in_batches_and_a_slow_keeper_blocks_nothing(run):
    async def body(botd):
        await botd.client.connect_or_start()
        pid = botd.client.hello["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            # More than the socket takes: the rest waits in the client, and nothing here blocks.
            for n in range(2000):
                botd.client.signal(f"u/none{n}", 1, signal.SIGHUP)
        finally:
            os.kill(pid, signal.SIGCONT)
        for _ in range(900):
            assert (await botd.expect("error"))["about"] == "signal"
        assert max(botd.batches) > 1

    run(body)


def test_a_keeper_that_cannot_start_says_why(house):
    async def body():
        os.mkdir(house.path("run"))
        os.symlink("/nowhere", house.path("run/keeper.lock"))
        client = KeeperClient(house.home, on_messages=lambda _m: None, on_lost=lambda: None)
        with pytest.raises(KeeperError, match="cannot start"):
            await client.connect_or_start()

    asyncio.run(body())


def test_a_path_too_long_for_a_socket(tmp_path):
    async def body():
        client = KeeperClient(tmp_path / ("x" * 120), on_messages=lambda _m: None, on_lost=lambda: None)
        with pytest.raises(KeeperError, match="too long"):
            await client.connect_or_start()

    asyncio.run(body())
