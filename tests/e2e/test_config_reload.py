"""bot_config.json is read again without a restart of anything; a bad one changes nothing."""

from __future__ import annotations

import json
import os
import signal

import pytest
from fleet_house import FAST, until


@pytest.fixture
def tuned(shared_fleet):
    """The module's fleet with one bot that has to stay untouched, and its usual configuration afterwards."""
    shared_fleet.create("alice/calm", "sleep")
    before = shared_fleet.pids(), shared_fleet.daemon_pid
    yield shared_fleet
    assert (shared_fleet.pids("alice/calm"), shared_fleet.daemon_pid) == (
        {"alice/calm": before[0]["alice/calm"]},
        before[1],
    )
    shared_fleet.configure(FAST)
    shared_fleet.rpc("config.reload")
    shared_fleet.clear()


def with_keys(**blocks):
    return {**FAST, **{block: {**FAST.get(block, {}), **keys} for block, keys in blocks.items()}}


def test_a_limit_changes_at_once(tuned):
    tuned.configure(with_keys(resourceManagement={"maxBotsPerUser": 1}))
    done = tuned.botctl("config", "reload")
    assert done.returncode == 0, done.stderr
    refused = tuned.botctl("create", "alice/second", "-C", "/", "--", "/bin/true")
    assert refused.returncode == 6
    assert "limit of 1 " in refused.stderr
    tuned.configure(with_keys(resourceManagement={"maxBotsPerUser": 2}))
    changes = tuned.rpc("config.reload")["changes"]
    assert [change["key"] for change in changes] == ["resourceManagement.maxBotsPerUser"]
    assert (changes[0]["before"], changes[0]["after"]) == (1, 2)
    tuned.create("alice/second", "sleep", start=False)
    assert tuned.rpc("config.show")["config"]["resourceManagement"]["maxBotsPerUser"] == 2


def test_the_restart_policy_changes_for_the_next_end(tuned):
    tuned.configure(with_keys(resourceManagement={"autoRestartMaxAttempts": 0}))
    tuned.rpc("config.reload")
    tuned.create("alice/fragile", "crash 1", wait=False)
    bot = tuned.until_phase("alice/fragile", "failed")
    assert bot["restarts"] == 0
    assert "after 0 restarts" in bot["reason"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (json.dumps({"botRecovery": {"restartDelai": 5}}), ["botRecovery.restartDelai", "unknown key", "restartDelay"]),
        (json.dumps({"resourceManagment": {}}), ["resourceManagment", "resourceManagement"]),
        (json.dumps({"resourceManagement": {"maxBotsPerUser": -1}}), ["maxBotsPerUser", "at least 1", "-1"]),
        (json.dumps({"resourceManagement": {"maxTotalBots": "many"}}), ["maxTotalBots", "whole number"]),
        ('{"botRecovery": {"autoRestart": true', ["not JSON", "line"]),
        ('{"botRecovery": {}, "botRecovery": {}}', ["botRecovery"]),
        ("[]", ["object"]),
        ("", []),
    ],
)
def test_a_bad_file_names_path_and_reason_and_the_last_good_one_stays(tuned, text, words):
    before = tuned.rpc("config.show")["config"]
    tuned.configure(text)
    done = tuned.botctl("config", "reload")
    assert done.returncode == 9, done.stderr
    assert "bot_config.json" in done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert "Traceback" not in done.stderr
    assert tuned.rpc("config.show")["config"] == before
    assert tuned.rpc("config.show")["last_error"]
    assert any("configuration" in warning["text"] for warning in tuned.rpc("daemon.status")["warnings"])
    assert tuned.botctl("config", "check").returncode == 9


def test_a_good_file_clears_the_complaint(tuned):
    tuned.configure("{")
    assert tuned.refused("config.reload").exit == 9
    tuned.configure(FAST)
    tuned.rpc("config.reload")
    assert not tuned.rpc("config.show")["last_error"]
    assert tuned.botctl("config", "check").returncode == 0


def test_sighup_reads_it_again(tuned):
    tuned.configure(with_keys(resourceManagement={"maxTotalBots": 77}))
    with tuned.connect() as stream:
        stream.rpc("events.subscribe")
        os.kill(tuned.daemon_pid, signal.SIGHUP)
        event = stream.notice()["params"]["event"]
    assert event["kind"] == "config"
    assert "maxTotalBots" in event["text"]
    assert tuned.rpc("system.status")["fleet"]["limit"] == 77


def test_sighup_with_a_bad_file_changes_nothing(tuned):
    before = tuned.rpc("config.show")["config"]
    tuned.configure("nonsense")
    os.kill(tuned.daemon_pid, signal.SIGHUP)
    until(lambda: tuned.rpc("config.show")["last_error"], "the complaint")
    assert tuned.rpc("config.show")["config"] == before


def test_the_users_own_short_form_is_valid(tuned):
    tuned.configure(
        {
            "resourceManagement": {
                "maxBotsPerUser": 50, "maxTotalBots": 200, "maxMemoryPerBot": 512, "memoryThreshold": 80,
            },
            "storageOptimization": {"useSymbolicLinks": True, "enableGarbageCollection": True},
            "botRecovery": {"autoRestart": True, "exponentialBackoff": True},
        }
    )  # fmt: skip
    assert tuned.botctl("config", "check").returncode == 0
    tuned.rpc("config.reload")
    shown = tuned.rpc("config.show")["config"]
    assert shown["botRecovery"]["restartDelay"] == 250
    assert shown["resourceManagement"]["maxTotalBots"] == 200


def test_a_daemon_does_not_start_with_a_bad_file(make_fleet):
    fleet = make_fleet("{ not json")
    done = fleet.botd("run", "--detach")
    assert done.returncode == 9
    assert "bot_config.json" in done.stderr
    started = fleet.botctl("list")
    assert started.returncode == 9
    assert "bot_config.json" in started.stderr
