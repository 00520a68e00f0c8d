"""One clean-up over a real store and real folders, with a clock that can be set."""

import asyncio
import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from botd.contract.paths import Paths
from botd.core.bot import BotState, Spec
from botd.core.fleet import Bot, Fleet, rules_of
from botd.core.settings import Cleaning, Settings
from botd.recycling import Recycler
from botd.state import templates, trash
from botd.state.store import Damaged, Store, StoredBot
from botd.state.templates import StoredRelease, StoredTemplate
from botd.storage import folders, releases
from botd.sweeping import Sweeper

HOUR, DAY = 3600.0, 86400.0


class Clock:
    def __init__(self):
        self.now = time.time()

    def steady(self):
        return self.now


class House:
    def __init__(self, home):
        self.paths = Paths(home)
        folders.prepare_home(self.paths)
        self.store = Store.open(self.paths.database)
        self.fleet, self.clock, self.strays, self.pinned = Fleet(), Clock(), [], []
        self.cleaning = Cleaning(max_file_age_s=HOUR, delete_grace_s=DAY)
        self.weighed = []
        self.recycler = Recycler(
            store=lambda: self.store,
            paths=self.paths,
            settings=self.settings,
            size_of=lambda bot_id: 3,
            sized=self.weighed.append,
        )
        self.recycler.load()
        self.sweeper = Sweeper(
            fleet=self.fleet,
            store=self.store,
            clock=self.clock,
            paths=self.paths,
            settings=self.settings,
            recycler=self.recycler,
            strays=lambda: self.strays,
            pinned=lambda: self.pinned,
        )

    def settings(self):
        return Settings(cleaning=self.cleaning)

    def bot(self, bot_id, **spec):
        made = Spec(bot_id, ("run",), "/srv", **spec)
        self.fleet.add(Bot(made, BotState(), rules_of(made), 1.0))
        with self.store.batch() as batch:
            batch.insert_bot(StoredBot(made, BotState(), 1.0), {})
        self.data(bot_id)
        return self.fleet.bots[bot_id]

    def data(self, bot_id):
        folders.prepare(self.paths, bot_id)
        Path(self.paths.bot_data(bot_id), "session").write_text("precious")

    def delete(self, bot_id):
        bot = self.fleet.bots[bot_id]
        with self.store.batch() as batch:
            self.recycler.enter(batch, bot, self.clock.now)
        self.fleet.remove(bot_id)
        self.recycler.bury(bot_id)

    def look(self):
        """path -> (remove, reason)."""
        return {item.path: (item.remove, item.reason) for item in asyncio.run(self.sweeper.look())}

    def by_itself(self):
        asyncio.run(self.sweeper.by_itself("storage"))

    def files(self):
        return {name for _, _, names in os.walk(self.paths.home) for name in names}


@pytest.fixture
def house():
    home = tempfile.mkdtemp(prefix="b", dir="/tmp")
    made = House(home)
    yield made
    made.store.close()
    subprocess.run(["rm", "-rf", home], check=True)


def test_a_deleted_bot_is_kept_as_long_as_was_promised_and_not_longer(house):
    house.bot("alice/shop")
    house.delete("alice/shop")
    house.cleaning = Cleaning(max_file_age_s=HOUR, delete_grace_s=0.0)
    house.clock.now += DAY - 60
    house.by_itself()
    [kept] = house.recycler.kept()
    assert house.look()[f"trash/{kept.key}"] == (
        False,
        "it can be brought back (botctl undelete alice/shop); kept for another 1 min",
    )
    house.clock.now += 120
    house.by_itself()
    assert house.recycler.kept() == [] == trash.load(house.store)
    assert os.listdir(f"{house.paths.home}/trash") == []


def test_data_that_no_record_knows_goes_to_the_trash_and_from_there_in_time(house):
    house.data("alice/orphan")
    house.bot("alice/stopped")
    house.strays = ["bob/stray"]
    house.data("bob/stray")
    house.by_itself()
    assert os.path.exists(house.paths.bot("alice/orphan"))
    house.clock.now += 2 * HOUR
    house.by_itself()
    [orphan] = house.recycler.kept()
    assert (orphan.id, orphan.spec) == ("alice/orphan", None)
    assert Path(house.paths.home, "trash", orphan.key, "bot/data/session").read_text() == "precious"
    assert Path(house.paths.bot_data("alice/stopped"), "session").exists()
    assert Path(house.paths.bot_data("bob/stray"), "session").exists()
    house.clock.now += 2 * DAY
    house.by_itself()
    assert house.recycler.kept() == [] and os.listdir(f"{house.paths.home}/trash") == []


def test_asked_for_it_goes_at_once(house):
    house.data("alice/orphan")
    house.clock.now += 2 * HOUR

    async def asked():
        return await house.sweeper.apply(await house.sweeper.look(), asked=True)

    views = asyncio.run(asked())
    assert {view["path"] for view in views if view["action"] == "removed"} == {"bots/alice/orphan", "logs/alice/orphan"}
    assert "session" not in house.files()


def test_nothing_goes_with_garbage_collection_off_or_a_damaged_database(house):
    house.data("alice/orphan")
    house.bot("alice/shop")
    house.delete("alice/shop")
    house.clock.now += 10 * DAY
    house.cleaning = Cleaning(garbage_collection=False, max_file_age_s=HOUR)
    house.by_itself()
    assert not any(remove for remove, _ in house.look().values())
    house.cleaning = Cleaning(max_file_age_s=HOUR)
    assert any(remove for remove, _ in house.look().values())
    house.store.condemn("by a test")
    assert isinstance(house.store.trouble, Damaged)
    house.by_itself()
    found = house.look()
    assert found and not any(remove for remove, _ in found.values())
    assert "the database is damaged" in found["bots/alice/orphan"][1]
    assert sum(names.count("session") for _, _, names in os.walk(house.paths.home)) == 2


def test_what_a_removal_left_behind_without_a_record_or_note_is_kept_like_a_deleted_bot(house):
    house.bot("alice/shop")
    house.delete("alice/shop")
    [item] = house.recycler.kept()
    os.unlink(f"{house.paths.home}/trash/{item.key}/bot.json")
    with house.store.batch() as batch:
        trash.drop(batch, item.key)
    house.recycler.load()
    assert house.recycler.kept() == []
    house.clock.now += 2 * HOUR
    house.by_itself()
    assert "session" in house.files()
    house.clock.now += 2 * DAY
    house.by_itself()
    assert "session" not in house.files()


def test_former_folders_of_bots_go_when_nothing_has_changed_in_them(house):
    house.bot("alice/shop")
    for name in ("app", "app.previous", "app.new"):
        os.makedirs(f"{house.paths.bot('alice/shop')}/{name}/lib")
    assert house.look()["bots/alice/shop/app.previous"][0] is False
    house.clock.now += 2 * HOUR
    house.by_itself()
    assert sorted(os.listdir(house.paths.bot("alice/shop"))) == ["app", "data"]


def test_folders_that_could_not_be_moved_to_the_trash_are_moved_later(house):
    house.bot("alice/shop")
    os.rename(f"{house.paths.home}/trash", f"{house.paths.home}/away")
    Path(house.paths.home, "trash").write_text("in the way")
    house.delete("alice/shop")
    os.unlink(f"{house.paths.home}/trash")
    os.rename(f"{house.paths.home}/away", f"{house.paths.home}/trash")
    house.clock.now += 2 * HOUR
    remove, reason = house.look()["bots/alice/shop"]
    assert not remove and "the next start of botd tries again" in reason
    [item] = house.recycler.kept()
    assert house.recycler.occupied(item, "alice/shop") is False
    again = Recycler(store=lambda: house.store, paths=house.paths, settings=house.settings)
    again.load()
    again.finish(lambda bot_id: False)
    assert Path(house.paths.home, "trash", item.key, "bot/data/session").read_text() == "precious"
    assert house.look().keys() == {f"trash/{item.key}"}


def test_what_the_deleted_bots_of_a_user_take(house):
    for bot_id in ("alice/one", "alice/two", "bob/three"):
        house.bot(bot_id)
        house.delete(bot_id)
    recycler = house.recycler
    assert recycler.bytes_of("alice") == 3 + 3, "what they were known to take, until they are measured"
    sizes = asyncio.run(recycler.measured(recycler.kept()))
    assert recycler.bytes_of("alice") == 2 * recycler.bytes_of("bob") == sum(sizes.values()) * 2 / 3 > 0
    assert house.weighed == ["alice", "alice", "bob", "alice", "alice", "bob"]
    asyncio.run(recycler.empty([item.key for item in recycler.kept() if item.user == "alice"]))
    assert recycler.bytes_of("alice") == 0 < recycler.bytes_of("bob")


# --- releases ---------------------------------------------------------------------------------------


def release(house, text):
    """Another release of template `m`, made a week ago; on record as what is in force."""
    source = tempfile.mkdtemp(prefix="v", dir="/tmp")
    try:
        Path(source, "main.py").write_text(f"print({text!r})\n")
        Path(source, "same.py").write_text("shared among all\n")
        hash = releases.add(house.paths, "m", source).hash
    finally:
        shutil.rmtree(source)
    os.utime(house.paths.release("m", hash), (1.0, 1.0))
    with house.store.batch() as batch:
        known = templates.template(house.store, "m")
        templates.put_release(batch, StoredRelease("m", hash, {}, 2, 30, 1.0))
        templates.put(batch, StoredTemplate("m", hash, known and known.release, None, 1.0))
    return hash


def test_only_releases_that_nobody_can_want_go(house):
    made = [release(house, str(i)) for i in range(7)]
    house.bot("alice/shop", template="m", release=made[0])
    house.bot("alice/deleted", template="m", release=made[1])
    house.delete("alice/deleted")
    house.pinned = [("m", made[2], "a roll is under way")]
    os.utime(house.paths.release("m", made[3]))  # just made
    found = house.look()
    reasons = {hash: found[f"templates/m/releases/{hash}"] for hash in made}
    assert [reasons[hash][0] for hash in made] == [False] * 4 + [True] + [False] * 2
    assert [reasons[made[i]][1].partition(";")[0] for i in (0, 1, 2, 4, 5, 6)] == [
        "bots use it", "a deleted bot would come back with it", "a roll is under way", "no bot uses it",
        "it is what a rollback goes back to", "it is in force",
    ]  # fmt: skip
    house.by_itself()
    left = set(releases.list_releases(house.paths, "m"))
    assert left == set(made) - {made[4]}
    assert templates.release(house.store, "m", made[4]) is None
    for hash in left:
        assert releases.verify(releases.load(house.paths, "m", hash)) == []
    assert releases.collect(house.paths, dry=True).objects == 0


def test_a_release_that_is_wanted_again_after_the_plan_stays(house):
    made = [release(house, str(i)) for i in range(3)]

    async def late():
        items = await house.sweeper.look("storage")
        assert [item.remove for item in items if item.kind == "release"].count(True) == 1
        house.bot("alice/late", template="m", release=made[0])
        return await house.sweeper.apply(items, asked=True)

    views = asyncio.run(late())
    assert all(view["action"] == "kept" for view in views if view["kind"] == "release")
    assert len(releases.list_releases(house.paths, "m")) == 3


def test_beginnings_without_a_maker_and_content_without_a_release(house):
    release(house, "1")
    os.makedirs(f"{house.paths.staging}/deadbeef/tree")
    os.makedirs(f"{house.paths.staging}/busy")
    maker = os.open(f"{house.paths.staging}/busy", os.O_RDONLY)
    fcntl.flock(maker, fcntl.LOCK_EX)
    lonely = f"{house.paths.objects}/ab"
    os.makedirs(lonely, exist_ok=True)
    Path(lonely, "ab" + "0" * 62).write_text("nobody's")
    going = [item for item in asyncio.run(house.sweeper.look("storage")) if item.remove]
    assert {item.kind for item in going} == {"staging", "objects"}
    assert [item.path for item in going if item.kind == "staging"] == ["templates/.staging/deadbeef"]
    house.by_itself()
    assert not os.path.exists(f"{house.paths.staging}/deadbeef") and not os.path.exists(lonely)
    assert os.path.exists(f"{house.paths.staging}/busy"), "its maker is at work"
    os.close(maker)
    house.by_itself()
    assert not os.path.exists(f"{house.paths.staging}/busy")
