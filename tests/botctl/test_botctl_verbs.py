"""Verbs that change something: verdicts, exit statuses, questions, standard input."""

import json

import pytest
from botctl_fake import FakeBotd, bot, notify, on_terminal, page, verdict, verdicts

from botd.contract.errors import BotdError


def test_one_bot_and_how_long_it_took(run, fake):
    fake.script["bots.start"] = verdicts(verdict())
    assert run("start", "alice/shop") == (0, "✔ alice/shop  started (pid 4711) in 12ms\n", "")
    assert fake.called("bots.start") == [
        {
            "progress": False,
            "select": {"any": [{"id": "alice/shop"}]},
            "wait": True,
            "timeout_s": 60.0,
            "dry_run": False,
        }
    ]


def test_already_so_is_fine_and_said(run, fake):
    fake.script["bots.start"] = verdicts(verdict(changed=False, result="already running"))
    assert run("start", "alice/shop") == (0, "= alice/shop  already running (pid 4711)\n", "")


def test_failures_go_to_stderr_with_reason_and_hint(run, fake):
    fake.script["bots.start"] = verdicts(verdict("a/b"), verdict("a/c", ok=False))
    ran = run("start", "a/b", "a/c")
    assert ran == (8, "✔ a/b  started (pid 4711)\n", "✖ a/c  a/c cannot\n    try: look at it\n")


@pytest.mark.parametrize(
    ("items", "status"),
    [
        ([verdict("a/a"), verdict("a/b")], 0),
        ([verdict("a/a", ok=False, exit=6)], 6),
        ([verdict("a/a", ok=False, exit=6), verdict("a/b", ok=False, exit=6)], 6),
        ([verdict("a/a", ok=False, exit=124), verdict("a/b", ok=False, exit=1)], 1),
        ([verdict("a/a"), verdict("a/b", ok=False, exit=6)], 8),
        ([verdict("a/a", ok=False, exit=1), verdict("a/b", ok=False, result="skipped")], 8),
        ([verdict("a/a", ok=False) | {"error": None}], 1),
        ([verdict("a/a", ok=False) | {"error": {"exit": "x"}}], 1),
        ([verdict("a/a", ok=False) | {"error": {"exit": 0}}], 1),
    ],
)
@pytest.mark.parametrize("verb", ["start", "stop", "restart", "recover"])
def test_exit_status_of_verdicts(run, fake, verb, items, status):
    fake.script[f"bots.{verb}"] = verdicts(*items)
    assert run(verb, "user:a").status == status
    quiet = run(verb, "user:a", "-q")
    assert quiet.status == status
    assert quiet.out == ""
    assert bool(quiet.err) == (status != 0)


def test_json_is_one_document_and_the_words_are_elsewhere(run, fake):
    fake.script["bots.stop"] = verdicts(verdict("a/b", result="stopped"), verdict("a/c", ok=False))
    ran = run("stop", "user:a", "-o", "json")
    assert ran.status == 8
    document = json.loads(ran.out)
    assert [item["ok"] for item in document["items"]] == [True, False]
    assert document["summary"]["failed"] == 1
    assert "a/c cannot" in ran.err
    assert run("stop", "user:a", "-o", "name").out == "a/b\n"


def test_options_stand_before_or_after_the_verb(run, fake):
    fake.script["bots.stop"] = verdicts(verdict())
    for argv in (
        ("-q", "-o", "json", "stop", "a/b"),
        ("stop", "a/b", "-qo", "json"),
        ("-o", "json", "stop", "-q", "a/b"),
        ("--output=json", "stop", "--quiet", "a/b"),
    ):
        assert json.loads(run(*argv).out)["schema"] == 1


@pytest.mark.parametrize("verb", ["start", "stop", "restart", "delete", "wait", "logs"])
def test_nothing_named_is_never_everything(run, fake, verb):
    extra = ("--for", "running") if verb == "wait" else ()
    ran = run(verb, *extra)
    assert ran.status == 2
    assert "no bot is named" in ran.err
    assert fake.calls == []


def test_ids_from_standard_input(run, fake):
    fake.script["bots.stop"] = verdicts(verdict())
    assert run("stop", "-", stdin="a/b\n c/d\ta/b\n").status == 0
    assert fake.called("bots.stop")[0]["select"] == {"any": [{"id": "a/b"}, {"id": "c/d"}]}
    run("stop", "user:x", "-", stdin="a/b")
    assert fake.called("bots.stop")[1]["select"] == {"any": [{"user": "x"}, {"id": "a/b"}]}


@pytest.mark.parametrize(("text", "status"), [("", 4), (" \n", 4), ("a/b;rm\n", 2), ("x" * 5_000_000, 2)])
def test_standard_input_that_is_no_list_of_ids(run, fake, text, status):
    ran = run("stop", "-", stdin=text)
    assert ran.status == status
    assert fake.calls == []


def test_all_and_a_selector_exclude_each_other(run, fake):
    assert run("stop", "--all", "a/b").status == 2
    fake.script["bots.stop"] = verdicts()
    assert run("stop", "--all").status == 0
    assert fake.called("bots.stop")[0]["select"] == {"all": True}


def test_dry_run_no_wait_and_timeout_are_passed_on(run, fake):
    fake.script["bots.restart"] = verdicts(verdict(result="would restart"))
    run("restart", "a/b", "--dry-run", "--no-wait", "--timeout", "2.5")
    params = fake.called("bots.restart")[0]
    assert (params["dry_run"], params["wait"], params["timeout_s"]) == (True, False, 2.5)


@pytest.mark.parametrize("timeout", ["nan", "inf", "-1", "x", "1e9"])
def test_a_timeout_that_is_none(run, fake, timeout):
    assert run("stop", "a/b", "--timeout", timeout).status == 2
    assert run("stop", "a/b", f"--timeout={timeout}").status == 2
    assert fake.calls == []


def test_bulk_passes_everything_on(run, fake):
    fake.script["bots.bulk"] = verdicts(verdict())
    argv = ("restart", "--all", "--parallel", "3", "--batch", "10%", "--max-failures", "0", "--on-error", "stop")
    assert run("bulk", *argv).status == 0
    assert fake.called("bots.bulk")[0] == {
        "op": "restart",
        "select": {"all": True},
        "parallel": 3,
        "batch": "10%",
        "max_failures": 0,
        "on_error": "stop",
        "timeout_s": 60.0,
        "dry_run": False,
        "progress": True,
    }
    assert run("bulk", "explode", "--all").status == 2


def test_recover_without_a_selector_selects_nothing_itself(run, fake):
    fake.script["bots.recover"] = verdicts()
    assert run("recover").status == 0
    assert "select" not in fake.called("bots.recover")[0]


def test_delete_without_a_terminal_wants_yes(run, fake):
    fake.script["bots.list"] = page(bot())
    fake.script["bots.delete"] = verdicts(verdict(result="deleted", phase=None, pid=None))
    refused = run("delete", "alice/shop")
    assert refused.status == 2
    assert "--yes" in refused.err
    assert fake.called("bots.delete") == []
    assert run("delete", "alice/shop", "--yes") == (0, "✔ alice/shop  deleted in 12ms\n", "")
    assert run("-y", "bulk", "delete", "alice/shop").status == 1  # no script for bots.bulk: it was called


def test_delete_dry_run_asks_nothing(run, fake):
    fake.script["bots.delete"] = verdicts(verdict(result="would delete"))
    assert run("delete", "alice/shop", "--dry-run").status == 0


@pytest.mark.parametrize(("typed", "status", "deleted"), [("y\n", 0, 1), ("n\n", 1, 0), ("\n", 1, 0), ("\x04", 1, 0)])
def test_delete_asks_on_a_terminal(fake, typed, status, deleted):
    fake.script["bots.list"] = page(bot("a/b"), bot("a/c"), bot("a/d"), bot("a/e")) | {"total": 7}
    fake.script["bots.delete"] = verdicts(verdict("a/b", result="deleted", phase=None))
    ran = on_terminal(fake, "delete", "user:a", typed=typed)
    assert "Delete 7 bots with data and logs (a/b, a/c, a/d, ...)? [y/N]" in ran.out
    assert ran.status == status
    assert len(fake.called("bots.delete")) == deleted


def test_cleanup_asks_only_before_data_goes(run, fake):
    rubbish = {"path": "/h/run/x.sock", "kind": "socket", "bytes": 0, "reason": "stale", "data": False}
    data = {"path": "/h/bots/a/b", "kind": "folder", "bytes": 5 << 20, "reason": "orphan", "data": True}

    def answer(*items):
        return lambda params, _: {
            "items": [item | {"action": "would remove" if params["dry_run"] else "removed"} for item in items]
        }

    fake.script["system.cleanup"] = answer(rubbish)
    assert run("cleanup").status == 0
    fake.script["system.cleanup"] = answer(rubbish, data)
    refused = run("cleanup")
    assert refused.status == 2
    assert "5M" in refused.err
    assert [params["dry_run"] for params in fake.called("system.cleanup")] == [True, False, True]
    assert run("cleanup", "--yes").status == 0


def test_wait(run, fake):
    fake.script["bots.wait"] = verdicts(verdict(changed=False, result="healthy"))
    assert run("wait", "alice/shop", "--for", "healthy", "--timeout", "5").status == 0
    assert fake.called("bots.wait")[0]["for"] == "healthy"
    fake.script["bots.wait"] = verdicts(verdict(ok=False, exit=124))
    assert run("wait", "alice/shop", "--for", "healthy").status == 124
    assert run("wait", "alice/shop").status == 2
    assert run("wait", "alice/shop", "--for", "luck").status == 2


class TestCreate:
    @pytest.fixture(autouse=True)
    def _answer(self, fake: FakeBotd) -> None:
        fake.script["bots.create"] = verdicts(verdict(result="created", phase="stopped", pid=None))

    def test_everything(self, run, fake, tmp_path):
        (tmp_path / "token").write_text("s3cret\n")
        argv = [
            *("create", "alice/shop", "-C", str(tmp_path), "-e", "A=1=2", "--env", "B=", "-l", "tier=free"),
            *("--secret", f"TOKEN={tmp_path}/token", "-m", "64", "--restart", "never", "--port", "--stop-signal"),
            *("SIGINT", "--stop-grace", "2", "--probe-http", "http://127.0.0.1:{port}/", "--start", "--", "node"),
            *("bot.js", "--start", "-o", "json"),
        ]
        argv[1:1] = ["--processes", "32", "--cpu", "0.5"]
        ran = run(*argv)
        assert ran == (0, "✔ alice/shop  created in 12ms\n", "")
        [params] = fake.called("bots.create")
        assert params == {
            "spec": {
                "id": "alice/shop",
                "command": ["node", "bot.js", "--start", "-o", "json"],
                "directory": str(tmp_path),
                "env": {"A": "1=2", "B": ""},
                "labels": {"tier": "free"},
                "secrets": {"TOKEN": "s3cret"},
                "enabled": True,
                "memory_mb": 64,
                "processes": 32,
                "cpu": 0.5,
                "restart": "never",
                "port": True,
                "stop_signal": "SIGINT",
                "stop_grace_s": 2.0,
                "probe": {"kind": "http", "url": "http://127.0.0.1:{port}/"},
            },
            "start": True,
            "wait": True,
            "timeout_s": 60.0,
        }

    def test_a_bare_name_is_the_callers_own(self, run, fake, monkeypatch):
        monkeypatch.setattr("os.geteuid", lambda: 0)
        run("create", "shop", "--", "true")
        assert fake.called("bots.create")[0]["spec"]["id"] == "root/shop"
        monkeypatch.setattr("os.geteuid", lambda: 987654)
        run("create", "shop", "--", "true")
        assert fake.called("bots.create")[1]["spec"]["id"] == "uid987654/shop"

    @pytest.mark.parametrize(
        ("argv", "told"),
        [
            (("alice/shop",), "what shall the bot run?"),
            (("alice/shop", "--", "node bot.js"), "without quotes: -- node bot.js"),
            (("Alice/shop", "--", "true"), "is no bot id"),
            (("a/b/c", "--", "true"), "is no bot id"),
            (("a/b", "-e", "NOVALUE", "--", "true"), "--env wants KEY=VALUE"),
            (("a/b", "-e", "A=1", "-e", "A=2", "--", "true"), "--env A is given twice"),
            (("a/b", "--secret", "T=/nonexistent/x", "--", "true"), "--secret T: cannot read /nonexistent/x"),
            (("a/b", "--secret", "T=/dev/zero", "--", "true"), "is no regular file"),
            (("a/b", "-m", "0", "--", "true"), "--memory"),
            (("a/b", "--processes", "0", "--", "true"), "--processes"),
            (("a/b", "--cpu", "0", "--", "true"), "--cpu"),
            (("a/b", "--restart", "sometimes", "--", "true"), "--restart"),
        ],
    )
    def test_mistakes(self, run, fake, argv, told):
        ran = run("create", *argv)
        assert ran.status == 2
        assert told in ran.err
        assert fake.calls == []

    def test_a_secret_on_the_command_line_is_not_repeated(self, run):
        assert "hunter2" not in run("create", "a/b", "--secret", "hunter2", "--", "true").err

    @pytest.mark.parametrize(
        ("data", "told"), [(b"\xff", "not UTF-8"), (b"x" * 140_000, "larger than 128 KiB"), (b"a\0b", "NUL")]
    )
    def test_secrets_that_cannot_be(self, run, fake, tmp_path, data, told):
        (tmp_path / "s").write_bytes(data)
        ran = run("create", "a/b", "--secret", f"T={tmp_path}/s", "--", "true")
        assert ran.status == 2
        assert told in ran.err
        assert str(tmp_path / "s") in ran.err

    def test_a_pipe_as_a_secret_does_not_hang(self, run, tmp_path):
        import os

        os.mkfifo(tmp_path / "pipe")
        assert run("create", "a/b", "--secret", f"T={tmp_path}/pipe", "--", "true").status == 2


def test_progress_is_shown_for_many_and_only_on_a_terminal(fake, run):
    def slowly(params, connection):
        for done in range(1, 8):
            notify(connection, "progress", {"call": 1, "done": done, "total": 7, "item": verdict()})
        return verdicts(*(verdict(f"a/b{i}") for i in range(7)))

    fake.script["bots.start"] = slowly
    shown = on_terminal(fake, "start", "user:a").out
    assert "starting" in shown
    assert "/7" in shown
    assert "7 bots: 7 started in 12ms" in shown
    assert fake.called("bots.start")[0]["progress"] is True
    assert run("start", "user:a").err == ""


def test_few_bots_that_are_quick_show_no_bar(fake):
    fake.script["bots.start"] = verdicts(verdict())
    assert "starting" not in on_terminal(fake, "start", "a/b").out


def test_a_limit_names_itself(run, fake):
    fake.script["bots.create"] = BotdError("limit", "alice has 50 bots, the most is 50", hint="raise maxBotsPerUser")
    ran = run("create", "alice/shop", "-o", "json", "--", "true")
    assert ran.status == 6
    assert json.loads(ran.out)["error"] == {
        "kind": "limit",
        "message": "alice has 50 bots, the most is 50",
        "hint": "raise maxBotsPerUser",
        "exit": 6,
    }
    assert ran.err == "botctl: alice has 50 bots, the most is 50\n  try: raise maxBotsPerUser\n"
