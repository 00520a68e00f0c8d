import asyncio
import os
import random
import shutil
import threading
import time

import pytest
from printing import Printer

from botd.contract.errors import BotdError
from botd.storage import stream, watch
from botd.storage.follow import Follower
from botd.storage.grep import Filter
from botd.storage.loglines import LINE_MAX
from botd.storage.logs import LogLine, Query, read

LIMIT_S = 30  # of a test that has gone wrong; nothing waits for it otherwise


def run(main):
    async def limited():
        async with asyncio.timeout(LIMIT_S):
            return await main()

    return asyncio.run(limited())


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "a" / "b"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def printer(folder):
    printers = []

    def make(**options):
        printers.append(Printer(folder, **options))
        return printers[-1]

    yield make
    for one in printers:
        one.close()


@pytest.fixture(params=["inotify", "polling"])
def told(request, monkeypatch):
    if request.param == "polling":
        monkeypatch.setattr(watch, "_open_inotify", lambda: None)
    return request.param


async def gather(follower, number):
    """The next lines, `number` of them."""
    lines = []
    while len(lines) < number:
        more = await follower.read()
        assert more is not None
        lines += [entry.line for entry in more]
    return [line.text for line in lines]


async def lines_of(follower):
    """What one read gives; None at the end."""
    read = await follower.read()
    return None if read is None else [entry.line for entry in read]


def test_lines_come_as_they_are_printed(folder, printer, told):
    out, err = printer(), printer(name="err")
    out.print(b"before\n")

    async def main():
        follower = Follower("a/b", str(folder))
        waiting = asyncio.create_task(lines_of(follower))
        await asyncio.sleep(0)
        out.print(b"one\ntwo\nthr")
        first = await waiting
        waiting = asyncio.create_task(lines_of(follower))
        await asyncio.sleep(0)
        err.print(b"other\n")
        second = await waiting
        out.print(b"ee\n")
        third = await lines_of(follower)
        follower.close()
        return first, second, third

    first, second, third = run(main)
    assert [(line.id, line.stream, line.text) for line in first] == [
        ("a/b", "stdout", "one"),
        ("a/b", "stdout", "two"),
    ]
    assert [(line.stream, line.text) for line in second] == [("stderr", "other")]
    assert [line.text for line in third] == ["three"]
    assert abs(first[0].at - time.time()) < 60


def test_a_bot_that_has_printed_nothing_yet(folder, printer, told):
    async def main():
        follower = Follower("a/b", str(folder), {})
        waiting = asyncio.create_task(lines_of(follower))
        await asyncio.sleep(0)
        printer().print(b"hello\n")
        lines = await waiting
        follower.close()
        return [line.text for line in lines]

    assert run(main) == ["hello"]


def test_it_goes_on_exactly_where_the_tail_ended(folder, printer):
    out = printer(max_bytes=100, keep=50)
    out.print(b"".join(b"%d\n" % i for i in range(50)) + b"begun ")
    tail = read({"a/b": str(folder)}, Query(lines=5, partial=False))
    # Rotated several times before the follower begins.
    out.print(b"ended\n" + b"".join(b"%d\n" % i for i in range(50, 200)))

    async def main():
        follower = Follower("a/b", str(folder), tail.positions["a/b"])
        lines = await gather(follower, 151)
        follower.close()
        return lines

    assert [line.text for line in tail.lines] == [str(i) for i in range(45, 50)]
    assert run(main) == ["begun ended", *(str(i) for i in range(50, 200))]


@pytest.mark.parametrize("keep", [1, 3, 1000])
def test_no_line_is_lost_or_doubled_over_rotations(folder, printer, told, keep):
    out = printer(max_bytes=2000, keep=keep)
    chance = random.Random(keep)
    expected = [f"{i} " + "x" * chance.randrange(100) for i in range(1500)]

    async def main():
        follower = Follower("a/b", str(folder), {})
        lines = []
        for i in range(0, len(expected), 10):
            out.print("".join(line + "\n" for line in expected[i : i + 10]).encode())
            lines += await gather(follower, 10)
        follower.close()
        return lines, follower.missed

    assert run(main) == (expected, 0)


def test_what_comes_between_the_look_at_the_file_and_its_rotation(folder, printer, monkeypatch):
    out = printer(max_bytes=100, keep=5)

    async def main():
        follower = Follower("a/b", str(folder), {})
        out.print(b"one\n")
        lines = await gather(follower, 1)
        really, raced = stream.inode_of, []

        def inode_of(*arguments):
            if not raced:
                raced.append(True)
                out.print(b"two\n")
                out.print(b"x" * 100 + b"\n")
                out.print(b"four\n")
            return really(*arguments)

        monkeypatch.setattr(stream, "inode_of", inode_of)
        lines += await gather(follower, 3)
        follower.close()
        return lines

    assert run(main) == ["one", "two", "x" * 100, "four"]


def test_a_printer_that_never_pauses_while_it_is_followed(folder, printer, told):
    out = printer(max_bytes=20_000, keep=10_000)
    expected = [f"{i} " + "x" * (i % 90) for i in range(20_000)]
    go = threading.Event()

    def flood():
        go.wait()
        for i in range(0, len(expected), 25):
            out.print("".join(line + "\n" for line in expected[i : i + 25]).encode())

    thread = threading.Thread(target=flood)
    thread.start()

    async def main():
        follower = Follower("a/b", str(folder), {})
        go.set()
        lines = await gather(follower, len(expected))
        follower.close()
        return lines, follower.missed

    try:
        assert run(main) == (expected, 0)
    finally:
        thread.join()


def test_without_rotated_files_the_current_one_is_followed(folder, printer):
    out = printer(max_bytes=100, keep=0)

    async def main():
        follower = Follower("a/b", str(folder), {})
        lines = []
        for i in range(300):
            out.print(b"%d\n" % i)
            lines += await gather(follower, 1)
        follower.close()
        return lines, follower.missed

    assert run(main) == ([str(i) for i in range(300)], 0)


def test_a_slow_reader_is_taken_forward_and_told_what_it_missed(folder, printer, monkeypatch):
    monkeypatch.setattr(stream, "LAG_MAX", 4000)
    monkeypatch.setattr(stream, "LAG_KEPT", 1000)
    out = printer(max_bytes=10_000, keep=1000)

    async def main():
        follower = Follower("a/b", str(folder), {})
        out.print(b"".join(b"line %06d\n" % i for i in range(5000)))
        lines = []
        while not lines or lines[-1] != "line 004999":
            lines += await gather(follower, 1)
        follower.close()
        return lines, follower.missed

    lines, missed = run(main)
    assert 0 < len(lines) < 2000
    assert missed + len(lines) == 5000
    assert lines == sorted(lines)


def test_a_reader_whose_files_are_gone_goes_on_and_is_told(folder, printer):
    out = printer(max_bytes=100, keep=2)
    out.print(b"first\n")

    async def main():
        follower = Follower("a/b", str(folder), {})
        first = await gather(follower, 1)
        for i in range(1000):
            out.print(b"%d\n" % i)
        lines = []
        while not lines or lines[-1] != "999":
            lines += await gather(follower, 1)
        follower.close()
        return first + lines, follower.more

    lines, more = run(main)
    assert lines[0] == "first"
    assert more
    # Whatever is there goes on without a gap to the last one; the rest of the first file came too.
    rest = [int(line) for line in lines[1:]]
    gap = next(i for i in range(1, len(rest)) if rest[i] != rest[i - 1] + 1)
    assert rest == [*range(gap), *range(rest[gap], 1000)]


def test_a_flood_of_empty_lines_comes_in_pieces(folder, printer):
    out = printer()

    async def main():
        follower = Follower("a/b", str(folder), {})
        out.print(b"\n" * 50_000)
        number = 0
        while number < 50_000:
            lines = await follower.read()
            assert len(lines) <= stream.LINES_MAX
            number += len(lines)
        follower.close()
        return number

    assert run(main) == 50_000


def test_a_line_that_is_too_long_comes_cut_and_once(folder, printer):
    out = printer()

    async def main():
        follower = Follower("a/b", str(folder), {})
        out.print(b"x" * 300_000)
        first = await gather(follower, 1)
        out.print(b"y" * 300_000 + b"\nnext\n" + b"z" * (LINE_MAX + 5) + b"\nlast\n")
        lines = first + await gather(follower, 3)
        follower.close()
        return lines

    lines = run(main)
    assert lines[0] == "x" * LINE_MAX + " [cut]"
    assert lines[1] == "next"
    assert lines[2].startswith("z" * LINE_MAX + " [cut")
    assert lines[3:] == ["last"]


@pytest.mark.parametrize("how", ["renamed into the trash", "replaced"])
def test_it_ends_when_the_bot_is_removed(folder, printer, told, how):
    printer().print(b"x\n")

    async def main():
        follower = Follower("a/b", str(folder))
        waiting = asyncio.create_task(lines_of(follower))
        await asyncio.sleep(0)
        os.rename(folder, folder.parent / "trash")
        if how == "replaced":
            folder.mkdir()
        shutil.rmtree(folder.parent / "trash")
        assert await waiting is None
        follower.close()

    run(main)


def test_no_folder_is_an_error_that_says_so(tmp_path):
    async def main():
        with pytest.raises(BotdError) as refused:
            Follower("a/b", str(tmp_path / "none"))
        assert refused.value.kind == "not_found"

    run(main)


def test_many_followers_share_one_inotify_and_give_all_back(tmp_path, told):
    before = len(os.listdir("/proc/self/fd"))

    async def main():
        loops = len(os.listdir("/proc/self/fd"))
        followers = []
        for i in range(200):
            (tmp_path / str(i)).mkdir()
            followers.append(Follower(f"a/{i}", str(tmp_path / str(i)), {}))
        twice = Follower("a/7", str(tmp_path / "7"), {})
        assert len(os.listdir("/proc/self/fd")) - loops <= 202
        followers[7].close()
        waiting = asyncio.create_task(lines_of(twice))
        await asyncio.sleep(0)
        (tmp_path / "7" / "out.log").write_bytes(b"hello\n")
        assert (await waiting)[0].text == "hello"
        for follower in [*followers[:7], *followers[8:], twice]:
            follower.close()
        twice.close()
        assert len(os.listdir("/proc/self/fd")) == loops

    run(main)
    assert len(os.listdir("/proc/self/fd")) == before


# --- filtering ----------------------------------------------------------------------------------------------


def line(text):
    return LogLine("a/b", "stdout", 0.0, text, 1, 0)


def test_a_filter_keeps_what_matches_batch_after_batch():
    async def main():
        filter = await Filter.start("o|é")
        one = await filter.keep([line("one"), line("eins"), line("é\n\x00\u2028")])
        two = await filter.keep([line("x" * 300_000), line("x" * 300_000 + "o")])
        assert len(await filter.keep([line("o")] * 50_000)) == 50_000
        none = await filter.keep([])
        await filter.close()
        return [entry.text for entry in one], len(two), none

    assert run(main) == (["one", "é\n\x00\u2028"], 1, [])


def test_a_wrong_expression_is_refused_and_an_exploding_one_ends_only_itself(monkeypatch):
    from test_storage_logs import QUICKLY

    from botd.storage import grep

    monkeypatch.setattr(grep, "_COMMAND", (*grep._COMMAND[:-1], "-c", QUICKLY))

    async def main():
        with pytest.raises(BotdError) as refused:
            await Filter.start("(")
        assert refused.value.kind == "invalid"
        filter = await Filter.start("(a+)+$")
        assert await filter.keep([line("aaa")])
        with pytest.raises(BotdError) as ended:
            await filter.keep([line("a" * 2000 + "b")])
        assert ended.value.kind == "timeout"
        with pytest.raises(BotdError):
            await filter.keep([line("a")])
        await filter.close()
        assert filter._process.returncode is not None

    run(main)
