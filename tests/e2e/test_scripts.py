"""botctl as scripts and cron jobs use it: bulk verdicts, one JSON document, pipes, no terminal, no HOME, C locale."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from fleet_house import ALL, BOTCTL, ids

MISSING = ["/no/such/program"]


@pytest.fixture
def mixed(fleet):
    """Six bots, stopped: a, c, d, f run; b and e have no program."""
    for letter in "abcdef":
        fleet.create(f"alice/{letter}", MISSING if letter in "be" else "sleep", start=False)
    return fleet


def test_a_bulk_in_which_some_fail_has_a_verdict_for_each_and_exit_8(mixed):
    done = mixed.botctl("bulk", "start", "--all", "-o", "json")
    assert done.returncode == 8
    document = json.loads(done.stdout)
    assert document["schema"] == 1
    verdicts = {item["id"]: item for item in document["items"]}
    assert [name for name, item in verdicts.items() if not item["ok"]] == ["alice/b", "alice/e"]
    assert all("/no/such/program" in verdicts[name]["error"]["message"] for name in ("alice/b", "alice/e"))
    assert all(
        verdicts[name]["result"] == "started" and verdicts[name]["pid"] for name in verdicts if name[-1] in "acdf"
    )
    assert document["summary"] == {"ok": 4, "failed": 2, "unchanged": 0}
    assert done.stderr.count("/no/such/program") >= 2  # people read it there


def test_all_failing_is_not_partial(mixed):
    done = mixed.botctl("start", "alice/b", "alice/e", "-o", "json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["summary"]["failed"] == 2


def test_max_failures_skips_the_rest(mixed):
    done = mixed.botctl("bulk", "start", "--all", "--parallel", "1", "--max-failures", "1", "-o", "json")
    assert done.returncode == 8
    results = {item["id"][-1]: item["result"] for item in json.loads(done.stdout)["items"]}
    assert results == {
        "a": "started", "b": "failed", "c": "started", "d": "started", "e": "failed", "f": "skipped",
    }  # fmt: skip
    assert mixed.bot("alice/f")["phase"] == "stopped"
    assert mixed.bot("alice/f")["desired"] == "stopped"


def test_on_error_stop_ends_at_the_first_failure(mixed):
    done = mixed.botctl("bulk", "start", "--all", "--parallel", "1", "--on-error", "stop", "-o", "jsonl")
    assert done.returncode == 8
    results = [json.loads(line)["result"] for line in done.stdout.splitlines()]
    assert results == ["started", "failed", "skipped", "skipped", "skipped", "skipped"]


def test_batches_finish_one_before_the_next(fleet):
    for i in range(4):
        fleet.create(f"alice/n{i}", "sleep", start=False)
    with fleet.connect() as stream:
        stream.rpc("events.subscribe")
        assert fleet.botctl("bulk", "start", "--all", "--batch", "50%").returncode == 0
        order = []
        while len(order) < 4:
            event = stream.notice()["params"]["event"]
            if event["kind"] == "started":
                order.append((event["id"], event["at"]))
    names = [name for name, _ in order]
    assert set(names[:2]) == {"alice/n0", "alice/n1"}
    assert set(names[2:]) == {"alice/n2", "alice/n3"}


def test_a_dry_run_changes_nothing(mixed):
    before = mixed.bots()
    done = mixed.botctl("bulk", "start", "--all", "--dry-run", "-o", "json")
    assert done.returncode == 0
    assert {item["result"] for item in json.loads(done.stdout)["items"]} == {"would start"}
    assert mixed.bots() == before


def test_names_feed_the_next_verb(fleet):
    for i in range(3):
        fleet.create(f"alice/n{i}", "sleep", wait=False)
    fleet.wait("running")
    listed = fleet.botctl("list", "-o", "name")
    assert listed.stdout == "alice/n0\nalice/n1\nalice/n2\n"
    stopped = fleet.botctl("stop", "-", "-o", "json", stdin=listed.stdout)
    assert stopped.returncode == 0, stopped.stderr
    assert json.loads(stopped.stdout)["summary"]["ok"] == 3
    assert {bot["phase"] for bot in fleet.bots().values()} == {"stopped"}
    assert fleet.botctl("stop", "-", stdin="").returncode == 4


def test_starting_what_runs_and_stopping_what_is_stopped_succeed_and_say_so(fleet):
    fleet.create("alice/a", "sleep")
    before = fleet.pids()
    again = fleet.botctl("start", "alice/a")
    assert again.returncode == 0
    assert "already running" in again.stdout
    assert fleet.pids() == before
    fleet.botctl("stop", "alice/a")
    again = fleet.botctl("stop", "alice/a")
    assert again.returncode == 0
    assert "already stopped" in again.stdout


def test_quiet_says_nothing_on_success_and_everything_on_failure(mixed):
    good = mixed.botctl("-q", "start", "alice/a")
    assert (good.returncode, good.stdout, good.stderr) == (0, "", "")
    bad = mixed.botctl("start", "-q", "alice/b")
    assert bad.returncode == 1
    assert bad.stdout == ""
    assert "/no/such/program" in bad.stderr


def test_every_listing_has_every_form(fleet):
    fleet.create("alice/a", "sleep")
    for words in (("list",), ("status", "alice/a"), ("health",), ("resources",), ("events",)):
        document = json.loads(fleet.botctl(*words, "-o", "json").stdout)
        assert document["schema"] == 1
        lines = fleet.botctl(*words, "-o", "jsonl").stdout.splitlines()
        assert lines
        assert all(isinstance(json.loads(line), dict) for line in lines)
        for form in ("table", "wide", "name"):
            done = fleet.botctl(*words, "-o", form)
            assert done.returncode == 0, (words, form, done.stderr)
            assert "\x1b" not in done.stdout


def test_waiting_has_its_own_statuses(fleet):
    fleet.create("alice/a", "sleep")
    fleet.create("alice/b", "sleep", start=False)
    assert fleet.botctl("wait", "alice/a", "--for", "healthy").returncode == 0
    late = fleet.botctl("wait", "alice/b", "--for", "running", "--timeout", "0.1")
    assert late.returncode == 124
    assert fleet.botctl("wait", "--all", "--for", "running", "--timeout", "0.1").returncode == 8
    assert fleet.botctl("is-active", "alice/a").returncode == 0
    assert fleet.botctl("is-active", "alice/b").returncode == 3
    assert fleet.botctl("is-active", "alice/none").returncode == 4


def test_deleting_asks_and_without_a_terminal_names_the_flag(fleet):
    fleet.create("alice/a", "sleep")
    before = fleet.bots().keys()
    refused = fleet.botctl("delete", "alice/a")
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    assert fleet.bots().keys() == before
    assert fleet.botctl("delete", "alice/a", "--yes").returncode == 0
    assert not fleet.bots()
    assert not fleet.data("alice/a").exists()


def test_from_cron(fleet):
    """`env -i`: no HOME, no PATH, no terminal, the C locale, closed stdin; the umask of a careful administrator."""
    environ = {"BOTD_HOME": fleet.home, "LC_ALL": "C"}

    def cron(*words, stdin=None):
        return subprocess.run(
            [str(BOTCTL), *words],
            env=environ,
            input=stdin,
            capture_output=True,
            cwd="/",
            start_new_session=True,
            umask=0o077,
            timeout=60,
            check=False,
            **({} if stdin is not None else {"stdin": subprocess.DEVNULL}),
        )

    made = cron("create", "alice/zürich", "--start", "--", "/bin/sleep", "600")
    assert made.returncode == 2
    assert b"Traceback" not in made.stderr
    for i in range(3):
        made = cron("create", f"alice/c{i}", "-l", "stadt=zürich", "--start", "--", "/bin/sleep", "600")
        assert made.returncode == 0, made.stderr
    fleet.create("alice/broken", MISSING, start=False)
    listed = cron("list", "label:stadt=zürich", "-o", "name")
    assert listed.stdout.splitlines() == [b"alice/c0", b"alice/c1", b"alice/c2"]
    table = cron("list", "-o", "wide")
    assert table.returncode == 0, table.stderr
    assert b"alice/c1" in table.stdout
    # What the fleet's owner wrote stays as written; what botctl draws is plain.
    assert table.stdout.replace("zürich".encode(), b"").isascii()
    restarted = cron("bulk", "restart", "--all", "-o", "json")
    assert restarted.returncode == 8
    assert json.loads(restarted.stdout)["summary"] == {"ok": 3, "failed": 1, "unchanged": 0}
    shown = json.loads(cron("status", "alice/c0", "-o", "json").stdout)
    assert shown["items"][0]["labels"] == {"stadt": "zürich"}
    stopped = cron("stop", "-q", "-", stdin=listed.stdout)
    assert (stopped.returncode, stopped.stdout, stopped.stderr) == (0, b"", b"")
    closed = subprocess.run(
        ["/bin/sh", "-c", f"exec {BOTCTL} list -o name <&- 2>&-"],
        env=environ, stdout=subprocess.PIPE, check=False, timeout=60,
    )  # fmt: skip
    assert closed.returncode == 0
    assert len(closed.stdout.splitlines()) == 4


def test_a_daemon_started_from_an_empty_environment_serves(make_fleet):
    fleet = make_fleet()
    environ = {"BOTD_HOME": fleet.home}
    made = fleet.botctl("create", "alice/a", "--start", "--", "/bin/sleep", "600", env=environ)
    assert made.returncode == 0, made.stderr
    assert fleet.bot("alice/a")["phase"] == "running"
    raw = Path(f"/proc/{fleet.pids()['alice/a']}/environ").read_text()
    environment = dict(entry.partition("=")[::2] for entry in raw.split("\0") if entry)
    assert environment["BOT_ID"] == "alice/a"
    assert environment["HOME"].startswith(fleet.home)
    assert environment["PATH"]


def test_progress_is_told_for_each_bot(mixed):
    with mixed.connect() as wire:
        result = wire.rpc("bots.bulk", op="start", select=ALL, progress=True)
    told = [notice["params"] for notice in wire.notices if notice["method"] == "progress"]
    assert sorted(one["item"]["id"] for one in told) == sorted(item["id"] for item in result["items"])
    assert [one["done"] for one in told] == list(range(1, 7))
    assert {one["total"] for one in told} == {6}
    assert mixed.refused("bots.bulk", op="explode", select=ids("alice/a")).exit == 2
