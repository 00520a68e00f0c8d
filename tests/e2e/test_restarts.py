"""Crashing, backing off, giving up, recovering: the restart policy on real processes."""

from __future__ import annotations

import json
import time

from fleet_house import FAST, ids


def gaps(events):
    """Seconds between each end of a life and the start that followed."""
    out, ended = [], None
    for event in events:
        if event["kind"] == "exited":
            ended = seconds(event["at"])
        elif event["kind"] == "started" and ended is not None:
            out.append(seconds(event["at"]) - ended)
    return out


def seconds(stamp):
    whole, _, rest = stamp.rstrip("Z").partition(".")
    return time.mktime(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float(f"0.{rest or 0}")


def test_a_crash_loop_backs_off_as_configured_and_ends_failed_with_a_reason(fleet):
    verdict = fleet.create("alice/loop", "crash 3")
    assert not verdict["ok"]  # told at the first crash, not after the last
    assert "exited with code 3" in verdict["error"]["message"]
    bot = fleet.until_phase("alice/loop", "failed")
    attempts = FAST["resourceManagement"]["autoRestartMaxAttempts"]
    assert bot["restarts"] == attempts
    assert bot["generation"] == attempts + 1
    assert bot["pid"] is None
    assert f"gave up after {attempts} restarts" in bot["reason"]
    assert bot["last_exit"]["code"] == 3
    assert bot["last_exit"]["signal"] is None
    # 20, 40, 80 ms, of which chance takes at most a quarter away; never earlier, and later only by the machine.
    waits = gaps(fleet.events("alice/loop"))
    assert len(waits) == attempts
    for wait, configured in zip(waits, (0.020, 0.040, 0.080), strict=True):
        assert wait >= configured * 0.75 - 0.002


def test_explain_tells_the_story_in_order(fleet):
    fleet.create("alice/story", "crash 3")
    fleet.until_phase("alice/story", "failed")
    done = fleet.botctl("explain", "alice/story", "-o", "json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["phase"] == "failed"
    assert "gave up" in told["verdict"]
    assert any("botctl recover alice/story" in line for line in told["advice"])
    kinds = [event["kind"] for event in told["events"]]
    assert kinds == ["created", *["started", "exited", "backoff"] * 3, "started", "exited", "failed"]
    generations = [event["generation"] for event in told["events"] if event["kind"] == "started"]
    assert generations == [1, 2, 3, 4]
    shown = fleet.botctl("explain", "alice/story").stdout
    assert "gave up after 3 restarts" in shown
    assert "botctl recover alice/story" in shown


def test_recover_starts_a_failed_bot_again_and_the_statistics_count_right(fleet):
    # Fails in its first four lives (the first and three restarts), runs in the fifth: the recovery by hand.
    fleet.create("alice/shop", "fail-first 4 9 + sleep")
    fleet.create("alice/well", "sleep")
    fleet.until_phase("alice/shop", "failed")
    before = fleet.rpc("bots.explain", id="alice/shop")["recovery"]
    assert before["attempts"] == 3
    assert before["successes"] == 0
    done = fleet.botctl("recover", "-o", "json")
    assert done.returncode == 0, done.stderr
    [item] = json.loads(done.stdout)["items"]  # the healthy one is none of its business
    assert item["id"] == "alice/shop"
    assert item["result"] == "recovered"
    bot = fleet.bot("alice/shop")
    assert bot["phase"] == "running"
    assert bot["attempts"] == 0
    after = fleet.rpc("bots.explain", id="alice/shop")["recovery"]
    assert after["attempts"] == 4
    assert after["successes"] == 1
    assert after["success_rate"] == 25.0 or after["success_rate"] == 0.25
    assert fleet.rpc("system.performance")["recovery"]["successes"] >= 1


def test_an_automatic_recovery_is_counted_with_its_time(fleet):
    fleet.create("alice/mended", "fail-first 2 1 + sleep")
    fleet.until_bot("alice/mended", lambda bot: bot["health"] == "recovered", "health recovered")
    told = fleet.rpc("bots.explain", id="alice/mended")["recovery"]
    assert told["attempts"] == 2
    assert told["successes"] == 1
    kinds = [event["kind"] for event in fleet.events("alice/mended")]
    assert kinds.count("recovered") == 1


def test_a_bot_that_ran_well_long_enough_starts_from_zero(fleet):
    # backoffResetAfter is 1.5 s: two quick failures, a long good life, a crash: attempt 1 again.
    fleet.create("alice/sound", "fail-first 2 1 + until crash-now + crash 7")
    fleet.until_bot("alice/sound", lambda bot: bot["phase"] == "running" and bot["generation"] == 3)
    assert fleet.bot("alice/sound")["attempts"] == 2
    fleet.until_bot("alice/sound", lambda bot: bot["attempts"] == 0, "forgetting the row")
    fleet.touch("alice/sound", "crash-now")
    fleet.until_bot("alice/sound", lambda bot: bot["last_exit"]["code"] == 7)
    backoffs = [event["text"] for event in fleet.events("alice/sound", kind="backoff")]
    assert "restart 1 of 3" in backoffs[2]


def test_restart_modes(fleet):
    fleet.create("alice/never", "sleep 0.4 + crash 5", restart="never")
    fleet.create("alice/good", "sleep 0.4", restart="on-failure")
    fleet.create("alice/again", "sleep 0.4", restart="always")
    assert fleet.until_phase("alice/never", "failed")["restarts"] == 0
    good = fleet.until_phase("alice/good", "stopped")
    assert good["last_exit"]["code"] == 0
    assert good["desired"] == "stopped"
    assert fleet.until_bot("alice/again", lambda bot: bot["generation"] >= 2)["restarts"] >= 1


def test_the_signal_that_ended_a_bot_is_named(fleet):
    fleet.create("alice/segv", "sleep 0.3 + signal SEGV", restart="never")
    ended = fleet.until_phase("alice/segv", "failed")["last_exit"]
    assert ended["signal"] == "SIGSEGV"
    assert ended["code"] is None


def test_a_command_that_does_not_exist_fails_at_once_with_step_and_remedy(fleet):
    done = fleet.botctl("create", "alice/ghost", "-C", "/", "--start", "--", "/no/such/program")
    assert done.returncode == 1
    assert "/no/such/program" in done.stderr
    assert "No such file" in done.stderr
    assert done.stdout == ""
    bot = fleet.bot("alice/ghost")
    assert bot["phase"] == "failed"
    assert bot["restarts"] == 0
    assert "exec" in bot["reason"]
    assert any("recover" in line for line in fleet.rpc("bots.explain", id="alice/ghost")["advice"])


def test_nobody_waits_for_the_broken_the_hasty_or_the_deaf(fleet):
    """One command that is missing, one that ends at once, one that ignores SIGTERM; a neighbour starts and stops."""
    fleet.create("alice/neighbour", "sleep", start=False)
    fleet.create("alice/deaf", "hang", stop_grace_s=3)
    fleet.create("alice/hasty", "crash 1", wait=False)
    fleet.create("alice/ghost", ["/no/such/program"], wait=False)
    with fleet.connect() as stream:
        stream.rpc("events.subscribe", select=ids("alice/neighbour", "alice/deaf"))
        fleet.rpc("bots.stop", select=ids("alice/deaf"), wait=False)
        assert fleet.rpc("bots.start", select=ids("alice/neighbour"))["summary"]["failed"] == 0
        assert fleet.rpc("bots.stop", select=ids("alice/neighbour"))["summary"]["failed"] == 0
        # The neighbour came and went while the deaf one was still being waited for.
        assert fleet.bot("alice/deaf")["phase"] == "stopping"
        order = []
        while not order or order[-1] != ("alice/deaf", "stopped"):
            event = stream.notice()["params"]["event"]
            order.append((event["id"], event["kind"]))
    own = [step for step in order if step[0] == "alice/neighbour"]
    assert [kind for _, kind in own] == ["started", "exited", "stopped"]
    assert order.index(("alice/neighbour", "stopped")) < order.index(("alice/deaf", "exited"))
    assert fleet.bot("alice/deaf")["last_exit"]["signal"] == "SIGKILL"


def test_stop_during_backoff_and_during_a_crash_loop_means_stopped(fleet):
    fleet.create("alice/loop", "crash 3", wait=False)
    fleet.until_bot("alice/loop", lambda bot: bot["generation"] >= 1 and bot["last_exit"])
    result = fleet.rpc("bots.stop", select=ids("alice/loop"))
    assert result["items"][0]["ok"]
    bot = fleet.bot("alice/loop")
    assert (bot["phase"], bot["desired"]) == ("stopped", "stopped")
    assert fleet.rpc("bots.stop", select=ids("alice/loop"))["items"][0]["result"] == "already stopped"
