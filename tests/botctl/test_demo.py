"""The demo, played for real, and interrupted; and its parts by themselves."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from botctl.demo import play as playing
from botctl.demo import processes
from botctl.demo.indent import Indented
from botctl.demo.play import Interrupted, Signals, play
from botctl.demo.show import Show
from botctl.demo.steps import Step, most_down
from botctl.demo.steps_failures import backoffs
from botctl.demo.world import World
from botctl.render.terminal import Terminal
from botd.contract.errors import BotdError

# --- the whole of it, as its user sees it ------------------------------------------------------------


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `botctl demo` without a terminal, in the environment of somebody who has a fleet of their own."""
    started = []

    def start(*words: str) -> subprocess.Popen[str]:
        environ = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "NO_COLOR")}
        mine = {"BOTD_HOME": str(tmp_path / "mine"), "BOTD_SOCKET": str(tmp_path / "mine.sock"), "COLUMNS": "80"}
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "botctl", "demo", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environ | mine,
        )
        started.append(child)
        return child

    yield start
    for child in started:
        if child.poll() is None:
            child.terminate()  # it tidies up after itself
        child.communicate(timeout=60)
    assert os.listdir(tmp_path) == [], "somebody's own fleet was touched"


def root_of(output: str) -> str:
    found = re.search(r"/tmp/botd-demo-\w+", output)
    assert found, output
    return found.group()


def remains(root: str) -> list[str]:
    """Every process with the folder in its arguments or its environment; looked for without the demo's own code."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            told = b"".join(Path(f"/proc/{pid}/{file}").read_bytes() for file in ("cmdline", "environ"))
        except OSError:
            continue
        if root.encode() in told:
            found.append(f"{pid}: {told[:200]!r}")
    return found


def test_all_of_it(demo: Callable[..., subprocess.Popen[str]]) -> None:
    child = demo("--fast")
    output, _ = child.communicate(timeout=150)
    assert child.returncode == 0, output
    assert "NOT TRUE" not in output
    told = " ".join(output.split())
    for claim in (
        "12 of 12 bots of 3 users are running and healthy",
        "12 of 12 bots gave the right reply",
        "an event with a forged signature is refused by all of them",
        "each still knows what it was told before it was killed",
        "of 9 bots, 9 have the pid that they had",
        "how each bot ended meanwhile is known exactly",
        "each finished its work first and ended with code 0",
        "then it is failed, with the reason in words",
        "limit of 50 a user (resourceManagement.maxBotsPerUser)",
        "(exit status 6)",
        "10 restarts, 7 recoveries",
        "none of the secrets stands in anything that was printed",
        "every process of the fleet has ended",
    ):
        assert claim in told, claim
    true, count = re.findall(r"(\d+) of (\d+) were true", told)[0]
    assert true == count == str(len(re.findall(r"^[✔+] (?!folder|secrets|Graph|bots  |0 proc)", output, re.M)))
    assert "\x1b" not in output
    assert output.rstrip().endswith("0 processes, 0 files left")
    root = root_of(output)
    assert not os.path.lexists(root)
    assert remains(root) == []


@pytest.mark.parametrize(
    ("number", "at"),
    [(signal.SIGINT, "$ botctl apply"), (signal.SIGINT, "$ botctl wait"), (signal.SIGTERM, "while nobody watches")],
    ids=["while-starting", "while-recovering", "without-botd"],
)
def test_interrupted_in_the_middle(demo: Callable[..., subprocess.Popen[str]], number: int, at: str) -> None:
    child = demo("--fast")
    assert child.stdout is not None
    before = ""
    for line in child.stdout:
        before += line
        if at in line:
            break
    child.send_signal(number)
    after, _ = child.communicate(timeout=60)
    assert child.returncode == 128 + number, before + after
    assert "Interrupted (" in after
    assert after.rstrip().endswith("0 processes, 0 files left")
    root = root_of(before)
    assert not os.path.lexists(root)
    assert remains(root) == []


def test_a_reader_that_leaves(demo: Callable[..., subprocess.Popen[str]]) -> None:
    child = demo("--fast")
    assert child.stdout is not None
    before = ""
    while "$ botctl apply" not in before:
        before += child.stdout.readline()
    child.stdout.close()
    assert child.wait(60) == 141
    root = root_of(before)
    assert not os.path.lexists(root)
    assert remains(root) == []
    child.stdout = None


# --- claims ------------------------------------------------------------------------------------------


def played(monkeypatch: pytest.MonkeyPatch, *steps: Callable[[Show], None]) -> tuple[int, str]:
    """A demo of these steps alone, in this process; they need no botd."""
    monkeypatch.setattr(playing, "STEPS", [Step(step.__name__, "", step) for step in steps])
    out = io.StringIO()
    status = play(Terminal(out, {}), keep=False, fast=True, no_color=True)
    return status, out.getvalue()


def folder(show: Show) -> None:
    show.world.create()


def test_a_claim_that_is_not_true_fails_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(show: Show) -> None:
        show.stage.claim("two and two is five", 2 + 2 == 5)
        show.stage.claim("two and two is four", 2 + 2 == 4)

    status, output = played(monkeypatch, folder, wrong)
    assert status == 1
    assert "NOT TRUE: two and two is five" in output
    assert "2 of 3 were true" in output  # the third: every process has ended
    assert "not true: two and two is five" in output.split("were true")[1]


def test_a_command_that_ends_otherwise_than_expected_ends_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    def surprise(show: Show) -> None:
        show.run("daemon", "status", expect=7)
        show.run("daemon", "status")
        raise AssertionError("it went on")

    status, output = played(monkeypatch, folder, surprise)
    assert status == 1
    assert output.count("NOT TRUE") == 1
    assert "botctl daemon ended with 7, not with 0" in output


def test_a_step_that_cannot_be_shown_ends_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(show: Show) -> None:
        raise BotdError("timeout", "waited 30 s for nothing")

    def never(show: Show) -> None:
        raise AssertionError("the step after it was played")

    status, output = played(monkeypatch, folder, broken, never)
    assert status == 1
    assert "waited 30 s for nothing" in output
    assert not os.path.lexists(root_of(output + "/tmp/botd-demo-none"))


def test_an_unexpected_error_leaves_nothing_either(monkeypatch: pytest.MonkeyPatch) -> None:
    roots = []

    def broken(show: Show) -> None:
        roots.append(show.world.root)
        raise KeyError("health")

    with pytest.raises(KeyError):
        played(monkeypatch, folder, broken)
    assert roots[0]
    assert not os.path.lexists(roots[0])


def test_how_many_were_down_at_the_same_time() -> None:
    story = ["exited a", "started a", "exited b", "healthy a", "exited c", "exited d", "recovered b", "healthy c"]
    events = [dict(zip(("kind", "id"), line.split(), strict=True)) for line in story]
    assert most_down(events) == 3
    assert most_down([]) == 0


def test_waits_before_restarts_are_measured_between_events() -> None:
    story = [("started", 0.0), ("backoff", 1.0), ("started", 1.25), ("backoff", 2.0), ("started", 2.5), ("failed", 3.0)]
    assert backoffs([{"kind": kind, "at_s": at} for kind, at in story]) == [0.25, 0.5]


# --- the private fleet -------------------------------------------------------------------------------


@pytest.fixture
def world() -> Iterator[World]:
    made = World({"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "BOTD_HOME": "/mine", "BOTD_CONFIG": "/mine.json"})
    yield made
    assert made.remove() == (0, 0)
    assert not made.root or not os.path.lexists(made.root)
    assert made.remove() == (0, 0), "a second time does no harm"


def test_the_environment_of_commands_leads_to_no_other_fleet(world: World) -> None:
    world.create()
    environ = world.environment(80, color=False)
    assert environ["BOTD_HOME"] == world.home
    assert all(value.startswith(world.root) for name, value in environ.items() if name in ("HOME", "TMPDIR"))
    assert not {"BOTD_CONFIG", "BOTD_SOCKET", "BOTCTL_AUTOSTART", "XDG_STATE_HOME"} & environ.keys()
    assert environ["NO_COLOR"]
    assert environ["COLUMNS"] == "80"


def test_the_folder_is_nobody_elses_and_its_secrets_are_new(world: World) -> None:
    world.create()
    assert os.stat(world.root).st_mode & 0o777 == 0o700
    assert len(world.bots) == 12
    assert len(world.secrets) == len(set(world.secrets.values())) == 18
    manifest = tomllib.loads(Path(f"{world.work}/fleet.toml").read_text())
    assert manifest["defaults"]["env"]["GRAPH_API_BASE"] == world.facebook.url


@pytest.mark.parametrize(("says", "found"), [("v16.20.0", None), ("nonsense", None), ("v18.0.1", "18.0.1")])
def test_node_bots_are_python_ones_where_node_is_too_old(tmp_path: Path, says: str, found: str | None) -> None:
    node = tmp_path / "node"
    node.write_text(f"#!/bin/sh\necho {says}\n")
    node.chmod(0o755)
    world = World({"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    try:
        world.create()
        assert world.node == found
        runtimes = [world.runtime(bot_id) for bot_id in world.bots]
        assert runtimes.count("node") == (6 if found else 0)
        commands = {tuple(bot["command"]) for bot in tomllib.loads(Path(f"{world.work}/fleet.toml").read_text())["bot"]}
        assert (("node", "bot.js") in commands) == bool(found)
    finally:
        assert world.remove() == (0, 0)


# --- processes ---------------------------------------------------------------------------------------


@pytest.fixture
def process() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    started = []

    def start(**environ: str) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(["/bin/sleep", "60"], env=environ))
        return started[-1]

    yield start
    for child in started:
        child.kill()
        child.wait()


def test_what_belongs_to_the_fleet_is_found_and_nothing_else(process: Callable[..., subprocess.Popen[bytes]]) -> None:
    home = f"/tmp/botd-demo-test-{os.getpid()}/home"
    command, bot = process(BOTD_DEMO=home), process(BOT_DATA=f"{home}/bots/a/b/data")
    strangers = [
        process(BOTD_HOME=home),  # the shell of somebody who tries the fleet
        process(BOTD_DEMO=f"{home}2"),
        process(BOT_DATA=f"{home}2/bots/a/b/data"),
        process(OTHER=f"BOTD_DEMO={home}"),
    ]
    assert sorted(processes.find(home)) == sorted([command.pid, bot.pid])
    assert not processes.kill(strangers[0].pid, home)
    assert processes.end_all(home) == []
    assert command.wait() == bot.wait() == -signal.SIGKILL
    assert all(stranger.poll() is None for stranger in strangers)


def test_a_killed_process_is_dead_on_return(process: Callable[..., subprocess.Popen[bytes]]) -> None:
    home = f"/tmp/botd-demo-test-{os.getpid()}/home"
    child = process(BOTD_DEMO=home)
    assert processes.kill(child.pid, home, wait=True)
    assert child.poll() == -signal.SIGKILL
    assert not processes.kill(child.pid, home)


# --- signals -----------------------------------------------------------------------------------------


def test_only_the_first_signal_is_heard() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Signals() as signals:
        with pytest.raises(Interrupted) as caught:
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        signals.ignore()
        signal.raise_signal(signal.SIGHUP)
    assert caught.value.number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_no_signal_is_heard_while_tidying_up() -> None:
    with Signals() as signals:
        signals.ignore()
        signal.raise_signal(signal.SIGINT)


# --- output ------------------------------------------------------------------------------------------


def indented(*pieces: str, width: int | None = None) -> str:
    out: list[str] = []
    page = Indented(out.append, width)
    for piece in pieces:
        page.feed(piece)
    page.end()
    return "".join(out)


def test_output_is_set_in() -> None:
    assert indented("one\n\n\x1b[32mtwo\x1b[0m\nthree") == "  one\n\n\x1b[32m  two\x1b[0m\n  three\n"


def test_a_progress_bar_is_drawn_over_itself() -> None:
    assert indented("bar 1/2\r\x1b[2Kbar 2/2\r\x1b[2Kdone\n") == "  bar 1/2\r\x1b[2K  bar 2/2\r\x1b[2K  done\n"


def test_long_lines_break_between_words() -> None:
    assert indented("aaaa bbbb cccc dddd\neeee\n", width=13) == "  aaaa bbbb\n      cccc\n      dddd\n  eeee\n"
    # A word longer than the line is not lost, and not broken.
    assert indented("x" * 20 + " y\n", width=10) == "  " + "x" * 20 + "\n      y\n"


def test_pieces_may_be_cut_anywhere_between_words() -> None:
    text = "alpha beta\n  gamma\rdelta \x1b[1mepsilon\x1b[0m\n"
    whole = indented(text)
    for i in range(len(text)):
        # Inside an escape sequence there is no cut: a program writes it in one piece.
        if "\x1b" not in text[max(0, i - 4) : i]:
            assert indented(text[:i], text[i:]) == whole
