"""From a specification as it travels to a bot: a plain program, or one whose template fills in the rest."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from botd.contract.errors import BotdError, invalid
from botd.contract.manifest import DEFAULTS, check_spec
from botd.contract.vocabulary import Exit
from botd.core.bot import NewBot, Spec
from botd.core.templates import Facts, own_of
from botd.server.call import Call


@dataclass(frozen=True, slots=True)
class Given:
    """One specification, checked and complete. `secrets` with their values; `enabled`: wanted running."""

    spec: Spec
    secrets: Mapping[str, str]
    enabled: bool


class Reader:
    """Reads the specifications of one call; a release is looked up once for all of its bots.

    `expected`: templates that are about to be added, so that what would be made of them can be told before.
    """

    def __init__(self, call: Call, expected: Collection[str] = ()) -> None:
        self._services = call.services
        self._expected = expected
        self._facts: dict[tuple[str, str | None], Facts] = {}

    def read(self, wire: Mapping[str, Any], path: str = "", *, exit: int = Exit.USAGE) -> Given:
        """Raises BotdError: invalid, with the field below `path`; not_found for an unknown template.

        A bot that is there keeps the release it has: only a roll moves it.
        """
        template: str | None = wire.get("template")
        secrets, enabled = wire.get("secrets", {}), wire.get("enabled", DEFAULTS["enabled"])
        if template is None:
            complete = {**DEFAULTS, **wire}
            complete.setdefault("directory", self._services.paths.bot_data(wire["id"]))
            check_spec(complete, path, exit=exit)
            return Given(Spec.from_wire(complete), secrets, enabled)
        if "directory" in wire:
            raise invalid(
                f"{path}.directory" if path else "directory",
                "a bot with a template has a working folder of its own, made from the template",
                hint="leave it out; what is to be kept belongs into $BOT_DATA",
                exit=exit,
            )
        present = self._services.fleet.get(wire["id"])
        kept = present.spec.release if present is not None and present.spec.template == template else None
        spec = self._services.catalogue.spec(wire["id"], own_of(wire), self._of(template, kept), secrets)
        return Given(spec, secrets, enabled)

    def _of(self, template: str, release: str | None) -> Facts:
        known = self._facts.get((template, release))
        if known is None:
            try:
                known = self._services.catalogue.facts(template, release)
            except BotdError as error:
                if error.kind != "not_found" or template not in self._expected:
                    raise
                known = Facts(template, "", "", {"command": ["?"]})
            self._facts[template, release] = known
        return known


def new_bot(call: Call, given: Given, source: str | None, ports: set[int]) -> NewBot:
    """`ports` are those that this call has given out already; a port of this bot joins them."""
    check_directory(call, given.spec)
    port = call.services.choose_port(ports) if given.spec.wants_port else None
    return NewBot(given.spec, given.secrets, port, source)


def check_directory(call: Call, spec: Spec) -> None:
    """Refuse a working folder that no life could begin in. A folder of the bot's own is made when it is needed."""
    if spec.release is None and spec.directory != call.services.paths.bot_data(spec.id):
        call.services.check_startable(spec.directory)
