"""The demo from its first to its last line: the steps, then, whatever has happened, the end of everything it made."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any

from botctl.demo import processes
from botctl.demo.show import Show
from botctl.demo.stage import Stage
from botctl.demo.steps import STEPS
from botctl.demo.world import World
from botctl.render.terminal import Terminal
from botd.contract.errors import BotdError
from botd.contract.vocabulary import Exit

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PAUSE_S = 2.2
_LEAVE_S = 5.0


class Interrupted(BaseException):
    """A signal asks for the end. No error, so nothing that handles errors takes it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Signals:
    """While entered, the first signal raises Interrupted and later ones nothing, nor any after `ignore`."""

    def __init__(self) -> None:
        self._deaf = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        for number in _SIGNALS:
            # What was ignored when we were started (nohup) stays ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._arrived)
        return self

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        if not self._deaf:
            self._deaf = True
            raise Interrupted(number)

    def ignore(self) -> None:
        self._deaf = True

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def play(terminal: Terminal, *, keep: bool, fast: bool, no_color: bool) -> int:
    """Play all of it on `terminal`. Returns the exit status; nothing that it made is left then."""
    if no_color:
        terminal.color = False
    stage = Stage(terminal, pause_s=0.0 if fast else _PAUSE_S)
    world = World(os.environ)
    show = Show(stage, world)
    number = 0
    with Signals() as signals:
        # Whenever a signal is heard, it is the last one: `remove` is reached, and runs to its end.
        try:
            try:
                _steps(show, keep=keep)
            finally:
                signals.ignore()
        except Interrupted as interrupted:
            number = interrupted.number
            _interrupted(stage, number)
        except BotdError as error:
            stage.claim(f"this step can be shown to its end: {error.message}", False)
        except OSError:
            stage.silence()  # most likely nobody reads any more; what it was is told by who called us
            raise
        finally:
            left = world.remove()
    return _last_words(show, left, number)


def _steps(show: Show, *, keep: bool) -> None:
    stage = show.stage
    stage.title("botctl demo", "Twelve Messenger bots of three users: started, killed, mended, cleaned up.")
    for i, step in enumerate(STEPS, 1):
        stage.headline(i, len(STEPS), step.title, step.why)
        step.play(show)
        stage.pause()
    if keep:
        _hold(show)
    show.run("daemon", "stop", "--bots", "--yes")
    stage.claim("every process of the fleet has ended", processes.wait_gone(show.world.home, _LEAVE_S))


def _hold(show: Show) -> None:
    """Until somebody has seen enough, which is not an interruption but the way to go on."""
    stage, world = show.stage, show.world
    stage.say()
    stage.say(f"The fleet in {world.root} is yours until you press Ctrl-C here. In another terminal:")
    stage.command(f"export BOTD_HOME={world.home}")
    stage.command("botctl list")
    stage.flush()
    try:
        signal.pause()
    except Interrupted:
        stage.restore()


def _interrupted(stage: Stage, number: int) -> None:
    if number == signal.SIGHUP:
        stage.silence()  # the terminal has gone
    stage.restore()
    stage.say()
    stage.say(f"Interrupted ({signal.Signals(number).name}): everything is taken down again.", style="yellow")


def _last_words(show: Show, left: tuple[int, int], number: int) -> int:
    stage = show.stage
    found, files = left
    wrong = [text for text, true in stage.claims if not true]
    good = not wrong and left == (0, 0)
    if not number:
        told = f"{len(stage.claims) - len(wrong)} of {len(stage.claims)} were true"
        rows = [*show.figures, ("claims", told), ("time", f"{stage.seconds:.0f} s")]
        stage.summary("What you have seen" if good else "Something was not as it should be", rows, good=good)
        for text in wrong:
            stage.last(f"not true: {text}", good=False)
    stage.last(f"{found} processes, {files} files left", good=left == (0, 0))
    stage.flush()
    if number:
        return 128 + number
    return Exit.OK if good else Exit.FAILED
