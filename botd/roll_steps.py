"""One step of a roll: the specifications that it changes, and the transaction that has all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from botd.catalogue import Catalogue
from botd.contract.errors import BotdError
from botd.core import gate as gates
from botd.core.bot import ChangedBot
from botd.core.fleet import Fleet
from botd.core.gate import Mark
from botd.core.roll import Decision, Move, Note, PutInForce, Return, short
from botd.core.templates import Facts
from botd.engine import Clock
from botd.state import rolls as records
from botd.state import templates
from botd.state.batch import Batch
from botd.state.store import StoredEvent

Marks = Mapping[str, Mark]


@dataclass(slots=True)
class Step:
    """A decision, ready to be recorded. `marks` None: no bot is moved; `refused`: bots that cannot be, and why."""

    decision: Decision
    changes: list[ChangedBot] = field(default_factory=list)
    marks: dict[str, Mark] | None = None
    refused: dict[str, str] = field(default_factory=dict)
    taken: int = 0
    """How many of those that wait it takes."""


class Steps:
    """`choose_port`: as `Services.choose_port`."""

    def __init__(
        self, fleet: Fleet, clock: Clock, catalogue: Catalogue, choose_port: Callable[[set[int]], int]
    ) -> None:
        self._fleet = fleet
        self._clock = clock
        self._catalogue = catalogue
        self._choose_port = choose_port

    def plan(self, decision: Decision, waiting: Iterable[str], batches: Mapping[int, Marks]) -> Step:
        """What is to be written for a decision; nothing is changed yet. `batches`: those that were moved before."""
        step, roll = Step(decision), decision.roll
        for effect in decision.effects:
            match effect:
                case Move(number, count):
                    ids = tuple(islice(waiting, count))
                    step.taken = len(ids)
                    words = f"roll {roll.id}, batch {number} of {roll.batches}"
                    self._respecify(step, ((bot_id, roll.target) for bot_id in ids), words)
                case Return(number):
                    # Whoever got another release meanwhile has it from somebody else, and keeps it.
                    ours = (
                        (bot_id, mark.former)
                        for bot_id, mark in batches.get(number, {}).items()
                        if (bot := self._fleet.get(bot_id)) is not None and bot.spec.release == roll.target
                    )
                    self._respecify(step, ours, f"roll {roll.id} is taken back")
        return step

    def _respecify(self, step: Step, pairs: Iterable[tuple[str, str]], words: str) -> None:
        """Each of these bots with its release, as far as that can be made."""
        step.marks = {}
        template, returning = step.decision.roll.template, step.decision.roll.phase == "returning"
        ports: set[int] = set()
        facts: dict[str, Facts] = {}
        for bot_id, release in pairs:
            bot = self._fleet.get(bot_id)
            if bot is None or bot.spec.template != template:
                continue
            try:
                if release not in facts:
                    facts[release] = self._catalogue.facts(template, release)
                spec = self._catalogue.moved(bot.spec, facts[release])
                port = (bot.port or self._choose_port(ports)) if spec.wants_port else None
            except BotdError as error:
                step.refused[bot_id] = error.message
                continue
            former = bot.spec.release or ""
            text = f"release {short(former)} -> {short(release)}: {words}"
            step.marks[bot_id] = gates.mark(release if returning else former, bot.state)
            step.changes.append(ChangedBot(spec, None, port, bot.source, text))

    def write(self, batch: Batch, step: Step) -> Sequence[StoredEvent]:
        """Everything but the specifications, into their transaction; the lines of history in it."""
        wall, roll = self._clock.wall(), step.decision.roll
        records.save(batch, roll, wall)
        if step.marks is not None:
            records.save_batch(batch, roll, roll.number, step.marks, wall)
        told = []
        for effect in step.decision.effects:
            if isinstance(effect, Note):
                seq = batch.add_event(None, wall, "roll", effect.text)
                told.append(StoredEvent(seq, None, wall, "roll", effect.text, None))
            elif isinstance(effect, PutInForce):
                stored = self._catalogue.find(roll.template)
                if stored is not None and stored.release != effect.release:
                    after = stored._replace(release=effect.release, previous=stored.release, updated_at=wall)
                    templates.put(batch, after)
        return told
