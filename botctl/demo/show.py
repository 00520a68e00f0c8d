"""What every step of the demo is given: the stage, the private fleet, and what earlier steps have found out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from botctl.demo.commands import Ran, botctl
from botctl.demo.facebook import Address, Facebook
from botctl.demo.fleet import Fleet
from botctl.demo.stage import Stage, shown
from botctl.demo.world import World
from botd.contract.errors import BotdError


@dataclass
class Show:
    stage: Stage
    world: World
    printed: list[str] = field(default_factory=list)
    """All that the commands have said so far."""
    memories: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Bot -> who has asked it to remember, and what."""
    recoveries: int = 0
    """How many bots have come back by now, by automatic restarts or after a repair: what botd must have counted."""
    attempts: int = 0
    figures: list[tuple[str, str]] = field(default_factory=list)
    """For the summary."""

    @property
    def fleet(self) -> Fleet:
        return self.world.fleet

    @property
    def facebook(self) -> Facebook:
        return self.world.facebook

    def run(self, *words: str, expect: int = 0) -> Ran:
        """Show a botctl command and what it prints.

        Raises BotdError when its exit status is not `expect`: what follows would only show the consequences.
        """
        self.stage.command(shown(words))
        output = self.stage.output()
        columns = self.stage.columns
        ran = botctl(
            list(words),
            env=self.world.environment(columns, color=self.stage.color),
            cwd=self.world.work,
            columns=columns,
            show=output.feed,
        )
        output.end()
        self.printed.append(ran.text)
        if ran.status != expect:
            raise BotdError("internal", f"botctl {words[0]} ended with {ran.status}, not with {expect}")
        if expect:
            self.stage.say(f"  (exit status {ran.status})", style="dim")
        return ran

    def address(self, bot: dict[str, Any]) -> Address:
        """Where this bot, as botd lists it, is to be talked to."""
        return Address(bot["port"], self.world.secret(bot["id"], "APP_SECRET"))


def ms(seconds: float) -> str:
    """Times of a table, all in one unit so that they can be compared."""
    return f"{seconds * 1000:,.0f} ms"
