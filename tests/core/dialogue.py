"""A conversation with the lifecycle of one bot: events in, effects out, time by hand."""

from dataclasses import replace

from botd.core.bot import BotState, Exit
from botd.core.effects import Acknowledge, Note, Remove, Spawn, Terminate
from botd.core.events import DeadlinePassed, Exited, Running, Spawned, StartRequested
from botd.core.lifecycle import Context, Rules, step
from botd.core.settings import RestartPolicy

POLICY = RestartPolicy(delay_s=1.0, max_delay_s=8.0, reset_after_s=60.0, max_attempts=3, settle_s=2.0)


class Dialogue:
    """`say` an event and get the effects, history apart in `notes`. `chance` 0: no jitter."""

    def __init__(self, policy=POLICY, rules=None, now=1000.0, probing=True):
        self.policy, self.rules, self.state, self.now = policy, rules or Rules(), BotState(), now
        self.chance = 0.0
        self.refusal = None
        self.probing = probing
        self.notes = []

    def say(self, event):
        context = Context(self.now, self.chance, self.policy, self.rules, self.refusal, self.probing)
        decision = step(self.state, event, context)
        self.state = decision.state
        self.notes += [(effect.kind, effect.text) for effect in decision.effects if isinstance(effect, Note)]
        return [effect for effect in decision.effects if not isinstance(effect, Note)]

    def last_note(self):
        return self.notes[-1]

    def pass_time(self, seconds=None):
        """To the deadline, or by some seconds; what it brings about."""
        self.now = self.state.deadline.at if seconds is None else self.now + seconds
        return self.say(DeadlinePassed(self.state.deadline)) if self.state.deadline else []

    # --- short forms of what is said over and over ---

    def come_up(self, request=None):
        effects = self.say(request or StartRequested())
        assert effects == [Spawn(self.state.generation)]
        return self.run()

    def run(self):
        """The keeper answers a spawn."""
        generation = self.state.generation
        assert self.say(Spawned(generation, 4000 + generation)) == []
        assert self.say(Running(generation)) == []
        return self

    def exit(self, code=1, signal=None, ran=0.5, generation=None):
        number = self.state.generation if generation is None else generation
        return self.say(Exited(number, Exit(None if signal else code, signal, at_wall=5.0, ran_s=ran)))

    def crash(self, **how):
        """Dies and waits for its next attempt."""
        generation = self.state.generation
        assert self.exit(**how) == [Acknowledge(generation)]
        return self

    def retry(self):
        """Waits out the backoff and runs again."""
        assert self.pass_time() == [Spawn(self.state.generation)]
        return self.run()

    def changed(self, **fields):
        self.state = replace(self.state, **fields)
        return self


def words(effects):
    """Effects as they are written in the table of expectations."""
    out = []
    for effect in effects:
        match effect:
            case Spawn(generation):
                out.append(f"spawn{generation}")
            case Terminate(generation, signal, grace_s):
                out.append(f"{signal.removeprefix('SIG').lower()}{generation}/{grace_s:g}")
            case Acknowledge(generation):
                out.append(f"ack{generation}")
            case Remove():
                out.append("remove")
    return out
