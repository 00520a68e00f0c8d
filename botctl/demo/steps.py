"""The steps of the demo, in their order. Each shows something on real processes and then checks what it has shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from botctl.demo.show import Show, ms
from botctl.demo.steps_admin import clean_up, limits, looking
from botctl.demo.steps_failures import crash, crash_loop, daemon_killed

# What each person writes; `remembers` is what a bot is asked again after it was killed.
_SMALL_TALK = (
    ("!ping", "pong"),
    ("Good morning!", "Good morning!"),
    ("Thank you!", "Thank you!"),
)
_WISHES = {
    "alice/shop": "12 roses",
    "bob/booking": "table 7",
    "carol/events": "row 12",
}


@dataclass(frozen=True)
class Step:
    title: str
    why: str
    play: Callable[[Show], None]


def prepare(show: Show) -> None:
    world, stage = show.world, show.stage
    world.create()
    stage.fact("folder", f"{world.root}; your own fleet is not touched")
    stage.fact("secrets", f"{len(world.secrets)} placeholders, readable by their owner alone")
    stage.fact("Graph API", f"a stand-in at {world.facebook.url} takes the replies")
    if world.node:
        stage.fact("bots", f"6 in Python, 6 in Node {world.node}")
    else:
        stage.fact("bots", "12 in Python: there is no Node 18 or newer, so 6 are not in Node")


def apply(show: Show) -> None:
    ran = show.run("apply", "-f", "fleet.toml")
    bots = show.fleet.bots()
    for bot in bots.values():
        if bot["pid"] is not None:
            show.world.remember_cgroup(bot["pid"])
    healthy = [bot for bot in bots.values() if bot["phase"] == "running" and bot["health"] == "healthy"]
    users = {bot["user"] for bot in bots.values()}
    pids = {bot["pid"] for bot in healthy}
    stage = show.stage
    stage.claim(
        f"{len(healthy)} of {len(bots)} bots of {len(users)} users are running and healthy",
        (len(healthy), len(bots), len(users), len(pids), ran.status) == (12, 12, 3, 12, 0),
    )
    before = show.fleet.pids()
    show.run("diff", "-f", "fleet.toml")
    show.run("apply", "-f", "fleet.toml")
    stage.claim("applying the same file again touches no bot", show.fleet.pids() == before)


def conversation(show: Show) -> None:
    world, stage, facebook = show.world, show.stage, show.facebook
    bots = show.fleet.bots()
    rows, right, at_home = [], 0, 0
    took = []
    for i, (bot_id, bot) in enumerate(bots.items()):
        sender = facebook.person()
        text, expected = _SMALL_TALK[i % len(_SMALL_TALK)]
        if bot_id in _WISHES:
            text, expected = f"!remember {_WISHES[bot_id]}", "I will remember that."
            show.memories[bot_id] = (sender, _WISHES[bot_id])
        reply = facebook.ask(show.address(bot), sender, text)
        right += reply.text == expected
        at_home += reply.page == facebook.fingerprint(world.secret(bot_id, "PAGE_ACCESS_TOKEN"))
        took.append(reply.took_s)
        rows.append((bot_id, world.runtime(bot_id), str(bot["port"]), text, reply.text, f"{reply.took_s * 1000:.0f}"))
    stage.table(("BOT", "IN", "PORT", "MESSAGE", "REPLY", "MS"), rows, right=("PORT", "MS"))
    stage.claim(f"{right} of {len(bots)} bots gave the right reply", right == len(bots))
    stage.claim("each reply was sent with the token of that bot's own page", at_home == len(bots))
    refused = [facebook.forge(show.address(bot)) for bot in bots.values()]
    stage.claim("an event with a forged signature is refused by all of them (403)", set(refused) == {403})
    show.figures.append(("replies", f"{right} of {len(bots)}, half of them within {ms(sorted(took)[len(took) // 2])}"))


def bulk_restart(show: Show) -> None:
    stage, fleet = show.stage, show.fleet
    before, seq = fleet.pids(), fleet.last_seq()
    show.run("bulk", "restart", "--all", "--batch", "3")
    after = fleet.pids()
    events = fleet.events(seq)
    stage.claim(
        f"all {len(before)} run again, each as a new process",
        after.keys() == before.keys() and not set(after.values()) & set(before.values()),
    )
    ends = [event["text"] for event in events if event["kind"] == "exited"]
    stage.claim(
        "each finished its work first and ended with code 0",
        len(ends) == len(before) and all(text.startswith("exited with code 0") for text in ends),
    )
    most = most_down(events)
    stage.claim(f"never were more than {most} of them away at the same time", 1 <= most <= 3)
    show.figures.append(("bulk restart", f"{len(after)} bots in batches of 3, never more than {most} away"))


def most_down(events: list[dict[str, object]]) -> int:
    """How many bots at most were between their end and being healthy again."""
    down: set[object] = set()
    most = 0
    for event in events:
        if event["kind"] == "exited":
            down.add(event["id"])
        elif event["kind"] in ("healthy", "recovered"):
            down.discard(event["id"])
        most = max(most, len(down))
    return most


STEPS = (
    Step(
        "A private fleet",
        "All of it happens in one folder, which goes away at the end.",
        prepare,
    ),
    Step(
        "Twelve Messenger bots from one file",
        "fleet.toml says what is to run; apply makes it so and waits for good health.",
        apply,
    ),
    Step(
        "Talk to each of them",
        "The real protocol: signed webhook events in, replies out through the Send API.",
        conversation,
    ),
    Step(
        "Three bots are killed with kill -9",
        "A crash at night must not stay one: bots come back, and know what they knew.",
        crash,
    ),
    Step(
        "botd itself is killed with kill -9",
        "The keeper is every bot's parent: botd may die, no bot notices, no exit is lost.",
        daemon_killed,
    ),
    Step(
        "Restart everything, a few at a time",
        "A roll-out takes no service down: a batch is healthy before the next begins.",
        bulk_restart,
    ),
    Step(
        "A bot that cannot work",
        "It is tried again ever more slowly, then left alone, with the reason in words.",
        crash_loop,
    ),
    Step(
        "The 51st bot of a user",
        "One user must not eat the machine: too much is refused at the door, in words.",
        limits,
    ),
    Step(
        "What an operator looks at",
        "Who is well, who uses what, what had to be recovered, what a bot says.",
        looking,
    ),
    Step(
        "Clean up, and stop",
        "What nobody needs goes, what somebody may miss stays a while. Then all ends.",
        clean_up,
    ),
)
