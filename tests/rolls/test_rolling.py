"""Rolls in a daemon without processes: what is recorded, who is touched, what is refused, what happens meanwhile."""

from dataclasses import replace

import pytest
from rolling_world import BAD, GOOD, OLD

from botd.contract.errors import BotdError
from botd.core.bot import ChangedBot
from botd.core.events import StartRequested, StopRequested
from botd.state import rolls as records
from botd.state import templates
from botd.state.errors import StoreError


@pytest.fixture
def up(world):
    """A world in which every bot runs well; options as they are given, else one bot first and then two at a time."""

    def make(bots=7, **options):
        one = world(bots=bots)
        one.engine.request([(bot.id, StopRequested()) for bot in one.fleet])
        one.calm()
        one.engine.request([(bot.id, StartRequested()) for bot in one.fleet])
        one.calm()
        one.options = {"batch": "2", "canary": 1, "max_failures": 0, "pause_s": 0.0, "keep_done": False, **options}
        return one

    return make


def generations(world):
    return {bot.id: bot.state.generation for bot in world.fleet}


def in_force(world):
    return templates.template(world.store, "echo").release


def history(world, kind="roll"):
    return [event.text for event in world.store.events() if event.kind == kind]


def test_a_good_roll_gives_each_bot_one_new_life(up):
    world = up()
    before = generations(world)
    world.begin(GOOD, **world.options)
    world.calm()
    assert set(world.releases().values()) == {GOOD}
    assert generations(world) == {bot_id: number + 1 for bot_id, number in before.items()}
    assert in_force(world) == GOOD
    assert world.last().phase == "finished"
    assert world.last().moved == 7
    assert history(world)[-1].endswith("finished: 7 bots moved")


def test_a_bad_one_is_taken_back_and_nobody_else_notices(up):
    world = up()
    before = generations(world)
    world.begin(BAD, **world.options)
    world.calm()
    assert set(world.releases().values()) == {OLD}
    assert in_force(world) == OLD
    touched = {bot_id for bot_id, number in generations(world).items() if number != before[bot_id]}
    assert touched == {"alice/b0"}
    assert all(bot.state.phase == "running" for bot in world.fleet)
    assert world.last().phase == "taken-back"
    assert "alice/b0 failed" in world.last().reason


def test_what_is_taken_back_was_in_force_before(up):
    world = up()
    with world.store.batch() as batch:
        templates.put(batch, templates.StoredTemplate("echo", BAD, OLD, None, 1.0))
    world.begin(BAD, **world.options)
    world.calm()
    assert in_force(world) == OLD


def test_bots_that_run_go_first(up):
    world = up()
    world.engine.request([("alice/b0", StopRequested())])
    world.calm()
    before = generations(world)
    world.begin(BAD, **world.options)
    world.calm()
    assert generations(world)["alice/b0"] == before["alice/b0"], "a stopped bot is no canary"
    assert world.last().failed[0][0] == "alice/b1"


def test_a_stopped_bot_gets_the_release_and_stays_stopped(up):
    world = up()
    world.engine.request([("alice/b3", StopRequested())])
    world.calm()
    world.begin(GOOD, **world.options)
    world.calm()
    bot = world.fleet.bots["alice/b3"]
    assert (bot.spec.release, bot.state.phase) == (GOOD, "stopped")


def test_one_roll_of_a_template_at_a_time(up):
    world = up()
    world.begin(GOOD, **world.options)
    with pytest.raises(BotdError) as refused:
        world.begin(BAD, **world.options)
    assert refused.value.kind == "conflict"
    assert "abort" in refused.value.hint
    assert set(world.rolling.needed()) == {("echo", GOOD), ("echo", OLD)}
    world.calm()
    assert not world.rolling.needed()


def test_an_abort_takes_back_all_that_was_moved(up):
    world = up(pause_s=3.0)
    world.begin(GOOD, **world.options)
    while world.rolling._open["echo"].roll.number < 3:
        world.go_on()
    assert world.rolling.abort("echo", "aborted by alice")["phase"] == "returning"
    world.calm()
    assert set(world.releases().values()) == {OLD}
    with pytest.raises(BotdError):
        world.rolling.abort("echo", "aborted by alice")


def test_a_bot_made_meanwhile_is_moved_last(up):
    world = up()
    world.begin(GOOD, **world.options)
    world.create("alice/late")
    assert world.fleet.bots["alice/late"].spec.release == OLD
    world.calm()
    assert world.fleet.bots["alice/late"].spec.release == GOOD
    assert world.last().moved == 8


def test_a_bot_that_somebody_puts_back_meanwhile_is_moved_once_more(up):
    world = up()
    world.begin(GOOD, **world.options)
    while world.rolling._open["echo"].roll.number < 2:
        world.go_on()
    first = world.fleet.bots["alice/b0"]
    assert first.spec.release == GOOD
    world.put_back.add(first.id)
    world._engine_change([ChangedBot(replace(first.spec, release=OLD), None, None, None, "changed by apply")])
    while world.rolling._open:
        world.go_on()
    assert set(world.releases().values()) == {GOOD}


def test_a_rollback_is_in_force_before_anybody_moved(up):
    world = up()
    world.begin(GOOD, **world.options)
    world.calm()
    world.rolling.begin("echo", OLD, world.last().options, at_once=True)
    assert in_force(world) == OLD
    world.calm()
    assert set(world.releases().values()) == {OLD}


def test_a_release_that_cannot_be_had_fails_the_roll_before_a_bot_is_touched(up):
    world = up()
    before = generations(world)
    world.rolling._catalogue.lost = (GOOD,)
    with pytest.raises(BotdError):
        world.begin(GOOD, **world.options)
    assert not world.rolling._open
    assert generations(world) == before
    assert not world.rolls()


def test_a_database_that_takes_nothing_stops_the_roll_only_as_long(up, monkeypatch):
    world = up()
    world.begin(GOOD, **world.options)
    real, down = records.save, [True]

    def save(*args):
        if down[0]:
            raise StoreError(world.path, "the disk is full", "make room")
        real(*args)

    monkeypatch.setattr(records, "save", save)
    for _ in range(60):
        world.go_on()
    assert world.rolling._open["echo"].roll.number == 1
    down[0] = False
    world.calm()
    assert world.last().phase == "finished"


def test_rolls_that_are_over_are_remembered_for_a_while(up):
    world = up(bots=1)
    for number in range(records.KEPT + 5):
        world.begin((GOOD, OLD)[number % 2], **world.options)
        world.calm()
    assert [roll.id for roll in world.rolls()] == list(range(records.KEPT + 5, 5, -1))
    assert world.store.rows("SELECT count(*) FROM rolls") == [(records.KEPT,)]


def test_a_row_that_does_not_read_stops_nobody(up):
    world = up()
    world.begin(GOOD, **world.options)
    with world.store.batch() as batch:
        batch.run("UPDATE rolls SET body = '{\"marks\": 3}' WHERE state = 'batch'", ())
        batch.run("INSERT INTO rolls VALUES (9, 'other', 'moving', '{}', 0.0)", ())
    [stored] = records.open_rolls(world.store)
    assert stored.batches == {}
    assert stored.roll.template == "echo"
