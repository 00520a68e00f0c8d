"""list, status, is-active, health, explain, resources, system: what they print and how they end."""

import json
import os

import pytest
from botctl_fake import bot, on_terminal, page

from botctl.quotas import project_quota
from botd.contract.errors import BotdError
from botd.contract.views import LIST_FIELDS


def test_list_is_an_aligned_table(run, fake):
    fake.script["bots.list"] = page(
        bot(), bot("bob/newsletter", phase="failed", health="unhealthy", pid=None, uptime_s=None, reason="gave up")
    )
    assert run("list").out.splitlines() == [
        "ID              PHASE      HEALTH      PID  UPTIME  RESTARTS  MEMORY   CPU  REASON",
        "alice/shop      ● running  healthy    4711   3h20m         2     35M  2.1%",
        "bob/newsletter  ✖ failed   unhealthy     -       -         2     35M  2.1%  gave up",
    ]
    assert fake.called("bots.list")[0]["fields"] == list(LIST_FIELDS)


def test_list_asks_page_after_page(run, fake):
    def pages(params, _):
        return page(bot("a/z")) if params.get("after") == "a/b" else page(bot("a/a"), bot("a/b"), next="a/b")

    fake.script["bots.list"] = pages
    assert run("list", "-o", "name").out == "a/a\na/b\na/z\n"


def test_list_for_programs_is_complete_and_alone_on_stdout(run, fake):
    fake.script["bots.list"] = page(bot(), bot("bob/x"))
    ran = run("list", "-o", "json")
    document = json.loads(ran.out)
    assert document["schema"] == 1
    assert [item["id"] for item in document["items"]] == ["alice/shop", "bob/x"]
    assert document["items"][0]["env"] == {"TOKEN": "***"}
    assert "fields" not in fake.called("bots.list")[0]
    assert ran.err == ""
    lines = run("list", "-o", "jsonl").out.splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["alice/shop", "bob/x"]


def test_wide_has_more_columns(run, fake):
    fake.script["bots.list"] = page(bot(command=["node", "bot.js"]))
    header, row = run("list", "-o", "wide").out.splitlines()
    assert "COMMAND" in header
    assert "node bot.js" in row
    assert "tier=free" in row
    assert "exited with status 1" in row


def test_nothing_there_is_no_error_unless_something_was_named(run, fake):
    fake.script["bots.list"] = page()
    assert run("list") == (0, "", "")
    assert run("list", "-o", "json").out == '{"schema":1,"items":[],"total":0}\n'
    ran = run("list", "user:bob")
    assert ran.status == 4
    assert "no bot matches user:bob" in ran.err


def test_a_sparse_answer_of_another_version_is_shown(run, fake):
    fake.script["bots.list"] = {"items": [{"id": "a/b"}, "nonsense"]}
    ran = run("list")
    assert ran.status == 0
    assert "a/b" in ran.out


@pytest.mark.parametrize(("phase", "status"), [("running", 0), ("starting", 3), ("backoff", 3), ("failed", 3)])
def test_is_active(run, fake, phase, status):
    fake.script["bots.list"] = page({"id": "alice/shop", "phase": phase})
    assert run("is-active", "alice/shop") == (status, f"{phase}\n", "")
    assert run("is-active", "-q", "alice/shop") == (status, "", "")


def test_is_active_of_nothing_and_of_many(run, fake):
    fake.script["bots.list"] = page()
    assert run("is-active", "alice/shop").status == 4
    assert run("is-active", "alice/*").status == 2
    assert run("is-active", "user:alice").status == 2


def test_status_of_one_shows_everything_and_its_last_lines(run, fake):
    fake.script["bots.status"] = page(bot())
    fake.script["bots.logs"] = {
        "schema": 1,
        "items": [{"id": "alice/shop", "stream": "stdout", "at": "2026-01-02T03:04:06Z", "line": "ready"}],
    }
    out = run("status", "alice/shop").out
    assert out.startswith("● alice/shop - running (healthy)\n")
    assert "PID: 4711 (life 3)" in out
    assert "14% of 256M (enforced)" in out
    assert "CPU: 2.1% of 50%, which nothing enforces here" in out
    assert "Processes: 12 of 512 (watched)" in out
    assert "Last exit: status 1 (exited with status 1)" in out
    assert "Command: node bot.js --name 'it'\"'\"'s'" in out
    assert "Environment: TOKEN=***" in out
    assert out.endswith("2026-01-02 03:04:06 ready\n")


def test_status_without_its_lines_is_still_a_status(run, fake):
    fake.script["bots.status"] = page(bot())
    fake.script["bots.logs"] = BotdError("denied", "not yours")
    ran = run("status", "alice/shop")
    assert ran.status == 0
    assert "not yours" in ran.out


@pytest.mark.parametrize(("health", "status"), [("healthy", 0), ("recovered", 0), ("unknown", 3), ("unhealthy", 3)])
def test_status_check(run, fake, health, status):
    fake.script["bots.status"] = page(bot(), bot("alice/two", health=health))
    assert run("status", "user:alice", "--check", "-q") == (status, "", "")


def test_health_has_a_summary_and_a_row_for_each(run, fake):
    fake.script["bots.health"] = {
        "items": [
            {"id": "a/b", "phase": "running", "health": "recovered", "uptime_s": 5, "attempts": 0, "restarts": 1},
            {"id": "a/c", "phase": "failed", "health": "unhealthy", "note": "gave up", "attempts": 10, "restarts": 10},
        ],
        "summary": {"total": 2, "healthy": 1, "recovered": 1, "unhealthy": 1, "percentage": 50.0},
    }
    ran = run("health", "--check")
    assert ran.status == 3
    assert ran.out.splitlines()[0] == "2 bots  ████████████░░░░░░░░░░░░ 50%  1 healthy (1 recovered), 1 unhealthy"
    assert ran.out.splitlines()[-1].endswith("gave up")


def test_explain_tells_the_story(run, fake):
    fake.script["bots.explain"] = {
        "id": "a/b",
        "phase": "failed",
        "verdict": "a/b gave up after 10 attempts.",
        "advice": ["botctl logs a/b"],
        "events": [
            {"seq": 1, "at": "2026-01-02T03:04:05Z", "id": "a/b", "kind": "exited", "text": "status 1"},
            {"seq": 2, "at": "2026-01-02T03:04:35.5Z", "id": "a/b", "kind": "failed", "text": "gave up"},
        ],
        "recovery": {"attempts": 10, "successes": 0, "success_rate": 0.0},
    }
    out = run("explain", "a/b").out
    assert out.startswith("✖ a/b gave up after 10 attempts.\n")
    assert "+30s  failed  gave up" in out
    assert "Recovery: 10 attempts, 0 successful (0%)" in out
    assert out.endswith("→ botctl logs a/b\n")
    assert run("explain", "a/*").status == 2


@pytest.mark.parametrize(
    ("argv", "method"),
    [
        (("resources",), "users.resources"),
        (("system", "status"), "system.status"),
        (("system", "performance"), "system.performance"),
        (("system", "storage", "--verify"), "system.storage"),
        (("health",), "bots.health"),
        (("config", "show"), "config.show"),
        (("daemon", "status"), "daemon.status"),
        (("events",), "events.list"),
        (("explain", "a/b"), "bots.explain"),
        (("cleanup", "--dry-run"), "system.cleanup"),
        (("export",), "fleet.export"),
    ],
)
@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"items": None, "machine": [], "fleet": 3, "recovery": "x", "keeper": None, "warnings": [1, {}], "config": 1},
        {"items": [{}], "machine": {}, "fleet": {}, "events": [{}], "summary": {}, "config": {"a": {}, "b": None}},
    ],
)
def test_whatever_the_daemon_leaves_out_nothing_breaks(run, fake, argv, method, answer):
    fake.script[method] = answer
    ran = run(*argv)
    assert ran.status == 0, ran.err
    assert run(*argv, "-o", "wide").status == 0
    assert json.loads(run(*argv, "-o", "json").out)["schema"] == 1


def test_resources_draws_bars(run, fake):
    fake.script["users.resources"] = {
        "items": [{"user": "alice", "bots": 25, "bots_limit": 50, "running": 24, "memory_bytes": 1 << 30}],
        "fleet": {"bots": 25, "bots_limit": 200},
    }
    row = run("resources").out.splitlines()[1]
    assert row.startswith("alice  25/50  █████░░░░░")
    assert "1G" in row
    assert run("resources", "-o", "name").out == "alice\n"


def test_resources_marks_the_soft_limit_and_shows_the_bots_of_one_user(run, fake):
    used = {"storage_bytes": 300 << 20, "storage_limit_bytes": 1000 << 20, "storage_soft_limit_bytes": 800 << 20}
    bots = [
        {"id": "alice/a", "storage_bytes": 1 << 20, "private_bytes": 1 << 20, "log_bytes": 0, "complete": True},
        {"id": "alice/b", "storage_bytes": 299 << 20, "shared_bytes": 5 << 20, "files": 1200, "complete": False},
    ]
    item = {"user": "alice", "storage_level": "within", **used, "bots_storage": bots}
    fake.script["users.resources"] = {"items": [item]}
    out = run("resources", "--user", "alice").out
    assert "300M/1000M  ███░░░░░┊░" in out
    header, big, small = out.splitlines()[-3:]
    assert header.split() == ["BOT", "STORAGE", "PRIVATE", "LOGS", "SHARED", "FILES"]
    assert big.split() == ["alice/b", "at", "least", "299M", "-", "-", "5M", "1,200"]
    assert small.split()[:3] == ["alice/a", "1M", "1M"]
    item["storage_bytes"] = 2000 << 20
    assert "██████████" in run("resources").out


def test_the_storage_report(run, fake):
    fake.script["system.storage"] = {
        "home": "/srv/botd",
        "used": {"private_bytes": 60 << 20, "log_bytes": 20 << 20, "release_bytes": 20 << 20, "trash_bytes": 0},
        "used_bytes": 100 << 20,
        "disk": {"total_bytes": 100 << 30, "free_bytes": 25 << 30},
        "sharing": {"bots": 200, "copies_bytes": 7000 << 20, "used_bytes": 70 << 20, "saved_percent": 99.0},
        "quota": {"soft_bytes": 819 << 20, "hard_bytes": 1 << 30, "near": 0, "over": 1},
        "users": [{"user": "alice", "bots": 3, "bytes": 2 << 30, "limit_bytes": 1 << 30, "level": "over"}],
        "bots": [{"id": "alice/shop", "bytes": 2 << 30}],
        "cleanup": {"bytes": 5 << 20, "items": 2, "by_kind": {"trash": 5 << 20}},
        "measured": {"bots": 3, "missing": 1, "in_part": ["alice/x"], "oldest_at": None},
        "verified": {"bots": 3, "different": 1, "bytes": 9, "items": [{"id": "alice/shop", "kept_bytes": 1024}]},
    }
    ran = run("system", "storage")
    out = ran.out
    assert "Private data: ████████████░░░░░░░░ 60M" in out
    assert "Disk: ███████████████░░░░░ 75% 25G free of 100G" in out
    assert "Saved: 99%" in out and "As copies: 6.8G" in out
    assert "Biggest users (1G each, 1 over)" in out
    assert "alice/shop: 2G" in out
    assert "Would free: 5M (2 items)" in out and "botctl cleanup --dry-run" in out
    assert "1 bot not measured yet" in out and "closed to botd: alice/x" in out
    assert fake.called("system.storage")[-1] == {"verify": False}
    assert "3 bots measured again, 1 changed since the last look" in run("system", "storage", "--verify").out
    assert run("system", "storage", "-o", "name").out == "/srv/botd\n"


def test_doctor_names_project_quotas(tmp_path):
    place = os.stat(tmp_path).st_dev
    device = f"{os.major(place)}:{os.minor(place)}"
    mounts = tmp_path / "mounts"
    mounts.write_text(f"garbage\n29 1 9:99 / /x rw - xfs /dev/x rw,prjquota\n30 1 {device} / /y rw - xfs /dev/y rw\n")
    assert list(project_quota(str(tmp_path), str(mounts))) == []
    mounts.write_text(f"30 1 {device} / /y rw,relatime shared:1 - xfs /dev/y rw,attr2,prjquota\n")
    [found] = project_quota(str(tmp_path), str(mounts))
    assert found["level"] == "good"
    assert found["text"].startswith("xfs keeps project quotas (prjquota); this folder is in ")
    assert list(project_quota(str(tmp_path), str(tmp_path / "nowhere"))) == []


def test_system_status_of_a_whole_machine(run, fake):
    fake.script["system.status"] = {
        "machine": {
            "cpu_count": 2,
            "load": [0.5, 0.25, 0],
            "memory_total_bytes": 8 << 30,
            "memory_used_bytes": 2 << 30,
            "memory_percent": 25.0,
            "memory_threshold_percent": 80,
            "disk_total_bytes": 100 << 30,
            "disk_free_bytes": 5 << 30,
            "uptime_s": 90000,
        },
        "fleet": {"total": 12, "by_phase": {"running": 11, "failed": 1}, "limit": 200, "percent_healthy": 91.7},
        "daemon": {"pid": 5, "version": "1", "uptime_s": 60, "memory_bytes": 30 << 20, "cpu_s": 1.5},
        "warnings": [{"text": "bots run as root", "remedy": "isolation"}],
    }
    out = run("system", "status").out
    assert "Memory: █████░░░░░░░░░░░░░░░ 25% 2G of 8G; no starts over 80%" in out
    assert "Bots: 12 of at most 200" in out
    assert "Phases: 11 running, 1 failed" in out
    assert "⚠ bots run as root\n    try: isolation" in out


def test_on_a_terminal_there_are_colours_a_footer_and_nothing_too_wide(fake):
    fake.script["bots.list"] = page(bot(), bot("bob/x", phase="backoff", reason="waits " + "very " * 40 + "long"))
    ran = on_terminal(fake, "list", columns=90)
    assert ran.status == 0
    assert "\x1b[32m● running\x1b[0m" in ran.out
    assert "2 bots: \x1b[32m1 running\x1b[0m, \x1b[33m1 backoff\x1b[0m" in ran.out
    plain = on_terminal(fake, "list", columns=90, NO_COLOR="1").out
    assert "\x1b" not in plain
    assert "…" in plain
    assert max(map(len, plain.splitlines())) <= 90


def test_nothing_is_cut_and_nothing_coloured_where_there_is_no_terminal(run, fake, monkeypatch):
    reason = "very " * 100 + "long"
    fake.script["bots.list"] = page(bot(reason=reason))
    ran = run("list")
    assert reason in ran.out
    assert "\x1b" not in ran.out + ran.err
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[32m" in run("list").out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in run("list").out


def test_ascii_where_unicode_is_not_wanted(run, fake, monkeypatch):
    fake.script["bots.list"] = page(bot())
    monkeypatch.setenv("LC_ALL", "C")
    assert run("list").out.isascii()


def test_control_characters_never_reach_a_terminal(fake):
    evil = "\x1b]0;owned\x07\x1b[2J\u202egnp.exe\nfake line"
    fake.script["bots.status"] = page(bot(reason=evil, labels={"a": evil}, command=[evil]))
    fake.script["bots.logs"] = {
        "items": [{"id": "a/b", "stream": "stdout", "at": "", "line": f"\x1b[31mred\x1b[0m {evil}"}]
    }
    shown = on_terminal(fake, "status", "alice/shop").out
    assert "\x1b]0" not in shown
    assert "\x1b[2J" not in shown
    assert "\x07" not in shown
    assert "\u202e" not in shown
    assert "\nfake line" not in shown
    assert "\x1b[31mred" in shown  # the bot's own colours stay
    assert "\x1b[31mred" not in on_terminal(fake, "status", "alice/shop", NO_COLOR="1").out
