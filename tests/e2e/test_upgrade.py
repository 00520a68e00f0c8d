"""botd and the keeper are replaced under a running fleet, by newer ones, older ones, and ones that fail."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import sysconfig
import tempfile
import threading
from pathlib import Path

import pytest
from fleet_house import ROOT, WITHIN_S, alive, until

from botd import __version__
from botd.contract.errors import BotdError
from botd.state.schema import MIGRATIONS

NEXT = "9.9.9"
SCHEMA = len(MIGRATIONS)

MISBEHAVE = """
        try:
            with open(f"{self.paths.home}/misbehave") as file:
                exec(file.read())
        except FileNotFoundError:
            pass
"""
"""Goes into a botd right behind the opening (and migration) of its database."""


def installed(folder: Path, changes: dict[str, tuple[str, str]]) -> str:
    """An environment of its own around a copy of botd with other texts in its modules: its folder."""
    shutil.copytree(ROOT / "botd", folder / "site" / "botd", ignore=shutil.ignore_patterns("__pycache__"))
    for module, (pattern, replacement) in changes.items():
        path = folder / "site" / "botd" / module
        text, count = re.subn(pattern, lambda found, new=replacement: found.expand(new), path.read_text(), count=1)
        assert count == 1, (module, pattern)
        path.write_text(text)
    base = Path(os.path.realpath(sys.executable))
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "lib" / version / "site-packages"
    packages.mkdir(parents=True)
    (packages / "ours.pth").write_text(f"{folder}/site\n{sysconfig.get_path('purelib')}\n")
    (folder / "pyvenv.cfg").write_text(f"home = {base.parent}\n")
    (folder / "bin").mkdir()
    (folder / "bin" / "python").symlink_to(base)
    return str(folder)


@pytest.fixture(scope="module")
def botds():
    """`botds[name]`: same schema ("newer"), one migration more ("migrating"), broken ones."""
    folder = Path(tempfile.mkdtemp(prefix="b", dir="/tmp"))
    version = (r'__version__ = ".*"', f'__version__ = "{NEXT}"')
    more = (r"(?s)(MIGRATIONS: tuple\[Migration, \.\.\.\] = \(.*?)\)\n", r'\1 ("CREATE TABLE novelty (x TEXT)",),)\n')
    point = (r"        self\._takeover\.recording\(\)\n", MISBEHAVE.replace("\\", r"\\") + r"\g<0>")
    kinds = {
        "newer": {"__init__.py": version},
        "migrating": {"__init__.py": version, "state/schema.py": more, "app.py": point},
        "no module": {"__init__.py": version, "waiting.py": (r"import asyncio\n", "import no_such_module\n")},
        "no keeper": {
            "__init__.py": version,
            "keeper/resume.py": (r"        if open_fds:\n", r"        raise Unfit('not with me')\n\g<0>"),
        },
    }
    yield {name: installed(folder / name.replace(" ", "-"), changes) for name, changes in kinds.items()}
    shutil.rmtree(folder)


def upgrade(fleet, python=None, timeout=30):
    """What botctl says when it succeeds."""
    fleet.hang_up()
    more = ["--python", python] if python else []
    done = fleet.botctl("daemon", "upgrade", "--timeout", str(timeout), "-o", "json", *more)
    fleet.hang_up()
    assert done.returncode == 0, done.stderr + fleet.daemon_log() + fleet.keeper_log()
    return json.loads(done.stdout)


def failed_upgrade(fleet, python=None, timeout=30):
    """Its words when it fails."""
    fleet.hang_up()
    done = fleet.botctl("daemon", "upgrade", "--timeout", str(timeout), *(["--python", python] if python else []))
    fleet.hang_up()
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stderr


def versions(fleet):
    status = fleet.persist("daemon.status")
    return status["version"], status["keeper"]["release"]


def test_there_and_back_and_nobody_notices(make_fleet, botds):
    fleet = make_fleet().up()
    fleet.create("alice/talks", "lines 1000 0.005 + until go + crash 7", restart="never")
    fleet.create("alice/runs", "witness 0.02")
    fleet.create("alice/ends", "until go + crash 5", restart="never")
    before, daemon, keeper = fleet.pids(), fleet.daemon_pid, fleet.keeper_pid
    asking = Asking(fleet)
    result = upgrade(fleet, botds["newer"])
    assert (result["from"], result["to"], result["untouched"], result["bots"]) == (__version__, NEXT, 3, 3)
    assert versions(fleet) == (NEXT, NEXT)
    assert (fleet.daemon_pid, fleet.keeper_pid, fleet.pids()) == (daemon, keeper, before)
    fleet.touch("alice/ends", "go")
    fleet.until_phase("alice/ends", "failed")
    assert fleet.bot("alice/ends")["last_exit"]["code"] == 5
    # Everything still works with the new ones, a start and a death of botd included.
    fleet.create("alice/later", "sleep")
    fleet.kill_daemon()
    assert versions(fleet) == (NEXT, NEXT)
    back = upgrade(fleet, os.path.dirname(os.path.dirname(sys.executable)))
    assert (back["from"], back["to"], back["untouched"]) == (NEXT, __version__, 3)
    assert versions(fleet) == (__version__, __version__)
    assert fleet.persist("daemon.status")["keeper"]["pid"] == keeper
    # Who knocked meanwhile had to wait at most; only the kill was a kill.
    assert asking.ended() <= 1
    fleet.touch("alice/talks", "go")
    fleet.until_phase("alice/talks", "failed")
    assert fleet.bot("alice/talks")["last_exit"]["code"] == 7
    until(lambda: len(fleet.lines("alice/talks")) >= 1000, "its last line")
    assert fleet.lines("alice/talks") == [f"{n:08}" for n in range(1, 1001)]
    assert fleet.bot("alice/runs")["pid"] == before["alice/runs"]
    upgrades = [e["text"] for e in fleet.events(kind="daemon") if e["text"].startswith("upgraded")]
    assert [text.split(" in ")[0] for text in upgrades] == [
        f"upgraded from {__version__} to {NEXT}",
        f"upgraded from {NEXT} to {__version__}",
    ]


class Asking:
    """Somebody who connects again and again; `ended`: how often nobody was at the door."""

    def __init__(self, fleet):
        self._fleet, self._stop, self._turned_away, self._answers = fleet, threading.Event(), 0, 0
        self._away = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._stop.wait(0.01):
            try:
                with self._fleet.connect() as wire:
                    wire.rpc("daemon.ping")
                self._away = False
                self._answers += 1
            except (ConnectionRefusedError, FileNotFoundError):
                self._turned_away += not self._away
                self._away = True
            except OSError:
                pass  # botd went just when it was asked

    def ended(self):
        self._stop.set()
        self._thread.join(WITHIN_S)
        assert self._answers
        return self._turned_away


def test_a_newer_schema_is_a_way_of_no_return_that_is_told(make_fleet, botds):
    fleet = make_fleet(foreground=True).up()
    fleet.create("alice/runs", "sleep")
    before, daemon = fleet.pids(), fleet.daemon_pid
    upgrade(fleet, botds["migrating"])
    assert (fleet.daemon_pid, fleet.pids()) == (daemon, before)
    kept = Path(f"{fleet.home}/botd.db.v{SCHEMA}")
    assert kept.stat().st_mode & 0o777 == 0o600
    words = failed_upgrade(fleet, sys.executable)
    assert f"not upgraded, botd {NEXT} goes on" in words
    assert f"schema {SCHEMA + 1}, this one knows {SCHEMA}" in words
    assert versions(fleet) == (NEXT, NEXT)
    # By hand, as the manual has it: what was recorded since is given up.
    fleet.create("alice/since", "sleep")
    strays = fleet.pids()
    fleet.down()
    refused = fleet.botd("run")
    assert refused.returncode == 1
    assert str(kept) in refused.stderr
    os.replace(kept, f"{fleet.home}/botd.db")
    fleet.up()
    assert versions(fleet)[0] == __version__
    assert fleet.pids() == before
    os.kill(strays["alice/since"], 0)
    fleet.rpc("system.cleanup")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("no module", "No module named 'no_such_module'"),
        ("no keeper", "the keeper stays as it is, and so does botd: .*not with me"),
        ("configuration", "bot_config.json"),
        ("no botd", "No module named botd"),
        ("nobody", "No such file"),
    ],
)
def test_what_cannot_work_is_not_begun(shared_fleet, botds, kind, reason):
    fleet = shared_fleet
    if not fleet.bots():
        fleet.create("alice/runs", "sleep")
    before, running = fleet.pids(), (fleet.daemon_pid, fleet.keeper_pid, *versions(fleet))
    python = botds.get(kind)
    config = Path(fleet.home, "bot_config.json").read_text()
    if kind == "configuration":
        fleet.configure('{"monitoring": {"sampleInterval": "often"}}')
    elif kind == "no botd":
        bare = Path(fleet.home, "bare")
        installed(bare, {})
        shutil.rmtree(bare / "site")
        python = str(bare / "bin" / "python")
    elif kind == "nobody":
        python = "/no/such/python"
    words = failed_upgrade(fleet, python)
    fleet.configure(config)
    assert re.search(reason, words), words
    assert "not upgraded" in words
    assert "Traceback" not in words
    assert (fleet.daemon_pid, fleet.keeper_pid, *versions(fleet)) == running
    assert fleet.pids() == before
    assert fleet.rpc("bots.restart", select={"all": True})["summary"]["failed"] == 0
    assert not os.path.exists(f"{fleet.home}/run/preflight")


@pytest.mark.parametrize(
    ("how", "misbehave", "reason"),
    [
        ("raises", "raise RuntimeError('not today')", "RuntimeError: not today"),
        ("dies", "import os; os.kill(os.getpid(), 9)", "the new botd ended 2 times"),
        ("hangs", "import time; time.sleep(1000)", "did not say hello within 3 s"),
    ],
)
def test_one_that_fails_after_the_migration_gives_everything_back(make_fleet, botds, how, misbehave, reason):
    fleet = make_fleet().up()
    fleet.create("alice/runs", "witness 0.02", labels={"tier": "free"})
    fleet.create("alice/ends", "until go + crash 6", restart="never")
    before = fleet.pids()
    Path(fleet.home, "misbehave").write_text(misbehave)
    words = failed_upgrade(fleet, botds["migrating"], timeout=3 if how == "hangs" else 30)
    assert f"the upgrade to {NEXT} failed, botd {__version__} goes on" in words
    assert reason in words, words + fleet.keeper_log() + fleet.daemon_log()
    # The keeper is the new one, and speaks with the old botd; the database is as it was before the migration.
    assert versions(fleet) == (__version__, NEXT)
    assert fleet.pids() == before
    assert fleet.bot("alice/runs")["labels"] == {"tier": "free"}
    status = fleet.rpc("daemon.status")["upgrade"]
    assert (status["state"], status["to"]) == ("failed", NEXT)
    assert reason in status["reason"]
    shown = fleet.botctl("daemon", "status").stdout
    assert "failed" in shown and reason in shown
    assert fleet.query("PRAGMA user_version") == [(SCHEMA,)]
    fleet.touch("alice/ends", "go")
    fleet.until_phase("alice/ends", "failed")
    # The next try of it is as good as any.
    os.unlink(f"{fleet.home}/misbehave")
    if how == "raises":
        assert upgrade(fleet, botds["migrating"])["untouched"] == 1
        assert fleet.bot("alice/ends")["last_exit"]["code"] == 6
        assert fleet.query("PRAGMA user_version") == [(SCHEMA + 1,)]


def crash_points():
    text = "".join(path.read_text() for path in (ROOT / "botd").glob("*.py"))
    found = sorted(re.findall(r'crash_point\("(botd-upgrade-[^"]+)"\)', text))
    # One before the keeper is replaced, one with nobody at the door, one with the database migrated; or all of them.
    short = ("botd-upgrade-preflighted", "botd-upgrade-left", "botd-upgrade-recording")
    assert set(short) <= set(found)
    return found if os.environ.get("BOTD_ALL_POINTS") else short


@pytest.mark.parametrize("point", crash_points())
def test_killed_at_each_step(make_fleet, point):
    """Whoever is next finds everything as it was; bots run on. Points of a start are passed by the first one, too."""
    passes = 2 if point in ("botd-upgrade-opened", "botd-upgrade-recording") else 1
    fleet = make_fleet(environ={"BOTD_CRASH_AT": f"{point}:{passes}"}).up()
    fleet.create("alice/runs", "witness 0.02")
    before, daemon = fleet.pids(), fleet.daemon_pid
    try:
        fleet.rpc("daemon.upgrade", timeout_s=WITHIN_S)
    except OSError:
        pass  # killed before it answered
    fleet.hang_up()
    until(lambda: not alive(daemon), "the kill")
    del fleet.environ["BOTD_CRASH_AT"]
    assert fleet.pids() == before
    assert fleet.daemon_pid != daemon
    status = fleet.rpc("daemon.status")
    assert status["keeper"]["connected"]
    if point in ("botd-upgrade-preflighted", "botd-upgrade-keeper-replaced"):
        assert status["upgrade"] is None
    else:
        assert status["upgrade"]["state"] == "done"
    assert "Traceback" not in fleet.daemon_log()


def test_who_may_and_with_what(shared_fleet):
    with pytest.raises(BotdError, match="no absolute path"):
        shared_fleet.rpc("daemon.upgrade", python="python3")
    with pytest.raises(BotdError):
        shared_fleet.rpc("daemon.upgrade", timeout_s=0)
