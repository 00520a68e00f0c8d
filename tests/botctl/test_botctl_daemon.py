"""daemon, config, doctor, version, completion: what stands around the fleet."""

import json
import os
import shutil
import subprocess

import pytest
from botctl_fake import clean_environ, page, spawn

from botctl import checks, kernel
from botctl.commands import daemon
from botctl.findings import FAIL, GOOD, WARN
from botd.contract.errors import BotdError

STATUS = {
    "schema": 1,
    "pid": 77,
    "version": "0.1.0",
    "protocol": 1,
    "uptime_s": 61,
    "user": {"uid": 1000},
    "keeper": {"pid": 78, "containment": "cgroup2", "connected": True},
    "bots": {"total": 3, "running": 2},
    "warnings": [{"text": "runs as root", "remedy": "do not"}],
    "limits": {"nofile": 1024},
}


def test_daemon_status_and_start_of_a_running_one(run, fake):
    fake.script["daemon.status"] = STATUS
    out = run("daemon", "status").out
    assert out.startswith("● botd - running for 1m01s\n")
    assert "Keeper: pid 78\n" in out
    assert "⚠ runs as root\n    try: do not\n" in out
    assert run("daemon", "start").out == "= botd already running (pid 77)\n"
    document = json.loads(run("daemon", "start", "-o", "json").out)
    assert (document["pid"], document["started"]) == (77, False)


def test_daemon_stop(run, fake):
    fake.script["daemon.shutdown"] = {"schema": 1, "bots_left": 2}
    assert run("daemon", "stop").out == "✔ botd stopped; 2 bots left running\n"
    assert run("daemon", "stop", "--bots").status == 2
    assert run("daemon", "stop", "--bots", "--yes").status == 0
    assert [params["bots"] for params in fake.called("daemon.shutdown")] == [False, True]


def test_daemon_stop_waits_for_the_end_of_the_process(run, fake, monkeypatch):
    """Who copies the database next must find it whole: botd closes it after its answer."""
    monkeypatch.setattr(daemon, "END_S", 0.01)
    fake.script["daemon.shutdown"] = {"schema": 1, "bots_left": 0}
    os.mkdir(f"{fake.folder}/run")
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as botd:
        with open(f"{fake.folder}/run/botd.lock", "w") as lock:
            lock.write(f"{botd.pid}\n2026-11-22T17:00:00Z\n")
        ran = run("daemon", "stop")
        assert (ran.status, ran.out) == (124, "")
        assert "has not within 0.01 s" in ran.err
    # It is gone now, and its number with it.
    assert run("daemon", "stop").out == "✔ botd stopped\n"


def test_daemon_logs_come_from_the_file(run, fake):
    assert run("daemon", "logs").status == 4
    os.mkdir(f"{fake.folder}/run")
    with open(f"{fake.folder}/run/botd.log", "w") as log:
        log.writelines(f"line {i}\n" for i in range(200))
    assert run("daemon", "logs", "-n", "2").out == "line 198\nline 199\n"
    assert run("daemon", "logs", "-n", "0").out == ""
    assert fake.calls == []


def test_daemon_logs_follow_through_a_rotation(fake):
    os.mkdir(f"{fake.folder}/run")
    path = f"{fake.folder}/run/botd.log"
    with open(path, "w") as log:
        log.write("one\n")
    process = spawn(fake, "daemon", "logs", "-f")
    assert process.stdout.readline() == "one\n"
    with open(path, "a") as log:
        log.write("two\n")
    assert process.stdout.readline() == "two\n"
    os.rename(path, path + ".1")
    with open(path, "w") as log:
        log.write("three\n")
    assert process.stdout.readline() == "three\n"
    process.terminate()
    process.communicate(timeout=20)


class TestInstall:
    @pytest.fixture(autouse=True)
    def _home(self, monkeypatch, tmp_path):
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def test_writes_a_unit_and_says_what_is_next(self, run, fake, tmp_path):
        ran = run("daemon", "install", "--user")
        assert ran.status == 0
        unit = (tmp_path / "systemd/user/botd.service").read_text()
        own = (f"Environment=BOTD_HOME={fake.folder}", f"Environment=BOTD_SOCKET={fake.path}")
        wanted = ("KillMode=process", "Restart=always", "StartLimitIntervalSec=0", "Delegate=yes", "OOMPolicy=continue")
        for line in (*wanted, *own):
            assert line in unit.splitlines()
        assert "OOMScoreAdjust" not in unit  # a user's manager may not, and would not start the service
        assert "OOMScoreAdjust=-500" in run("daemon", "install", "--print").out.splitlines()
        assert "systemctl --user enable --now botd" in ran.out
        assert run("daemon", "install", "--user", "--print").out == unit

    def test_the_same_again_is_fine_and_another_one_is_kept(self, run, tmp_path):
        run("daemon", "install", "--user")
        assert "is as it should be" in run("daemon", "install", "--user").out
        unit = tmp_path / "systemd/user/botd.service"
        unit.write_text("mine")
        refused = run("daemon", "install", "--user")
        assert refused.status == 2
        assert "--yes" in refused.err
        assert unit.read_text() == "mine"
        assert run("daemon", "install", "--user", "--yes").status == 0
        assert "KillMode=process" in unit.read_text()

    def test_only_root_installs_for_the_machine(self, run, monkeypatch):
        monkeypatch.setattr("os.geteuid", lambda: 1000)
        ran = run("daemon", "install")
        assert ran.status == 5
        assert "--user" in ran.err

    def test_a_home_that_systemd_would_misread_is_quoted(self, run, monkeypatch, tmp_path):
        monkeypatch.setenv("BOTD_HOME", "/tmp/a b/100%")
        assert 'Environment="BOTD_HOME=/tmp/a b/100%%"\n' in run("daemon", "install", "--print").out


def test_config_show_and_reload(run, fake):
    fake.script["config.show"] = {
        "source": "/etc/x.json",
        "loaded_at": "2026-01-02T03:04:05Z",
        "config": {"botRecovery": {"autoRestart": True, "restartDelay": 250}},
    }
    out = run("config", "show").out
    assert "autoRestart: true" in out
    assert "source: /etc/x.json" in out
    fake.script["config.reload"] = {
        "source": "/etc/x.json",
        "changes": [{"key": "botRecovery.restartDelay", "before": 250, "after": 20}],
    }
    assert run("config", "reload").out == "/etc/x.json: read again; changed: botRecovery.restartDelay\n"
    fake.script["config.reload"] = BotdError("invalid", "botRecovery.restartDelai: unknown key", exit=9)
    assert run("config", "reload").status == 9


@pytest.mark.parametrize(
    ("text", "status"), [("{}", 0), ('{"botRecovery": {"restartDelay": -1}}', 9), ("{", 9), (None, 9)]
)
def test_config_check_needs_no_daemon(fake, tmp_path, text, status):
    path = tmp_path / "bot_config.json"
    if text is not None:
        path.write_text(text)
    process = spawn(fake, "config", "check", str(path))
    _, err = process.communicate(timeout=30)
    assert process.returncode == status
    assert bool(err) == (status != 0)
    assert fake.calls == []


def test_config_schema_is_one_document(fake):
    process = spawn(fake, "config", "schema")
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "botRecovery" in json.loads(out)["properties"]


def test_doctor(run, fake):
    fake.script["daemon.status"] = STATUS
    ran = run("doctor", "-o", "json")
    items = {item["check"]: item for item in json.loads(ran.out)["items"]}
    assert ran.status == (1 if any(item["level"] == FAIL for item in items.values()) else 0)
    assert items["python"]["level"] == GOOD
    assert items["botd"]["text"].startswith("pid 77")
    assert items["warning"] == {"check": "warning", "level": WARN, "text": "runs as root", "remedy": "do not"}
    shown = run("doctor").out
    assert "✔ python" in shown
    assert "try: do not" in shown


MECHANISMS = {
    "memory": {"mode": "enforced", "by": "cgroup v1", "remedy": ""},
    "swap": {"mode": "none", "by": "nothing limits it here", "remedy": "boot with swapaccount=1"},
    "processes": {"mode": "watched", "by": "samples of the whole process tree", "remedy": "run it as root"},
}


def test_status_and_doctor_say_what_keeps_the_limits(run, fake):
    fake.script["daemon.status"] = {**STATUS, "mechanisms": MECHANISMS}
    assert "Limits: memory: enforced by cgroup v1; swap: none; processes: watched\n" in run("daemon", "status").out
    found = {item["check"]: item for item in json.loads(run("doctor", "-o", "json").out)["items"]}
    assert (found["memory"]["level"], found["memory"]["text"]) == (GOOD, "enforced: cgroup v1")
    assert found["swap"]["level"] == found["processes"]["level"] == WARN
    assert found["swap"]["remedy"] == "boot with swapaccount=1"
    assert found["processes"]["text"] == "watched: samples of the whole process tree"


@pytest.mark.parametrize("mechanisms", [None, [], {"memory": 3}, {"memory": {}}])
def test_a_daemon_that_says_it_differently_is_shown_without(run, fake, mechanisms):
    fake.script["daemon.status"] = {**STATUS, "mechanisms": mechanisms}
    assert run("daemon", "status").status == 0
    assert run("doctor").status in (0, 1)


def test_doctor_names_what_is_wrong(run, fake, monkeypatch):
    fake.script["daemon.status"] = STATUS | {"keeper": {"pid": None, "connected": False}}
    monkeypatch.setattr(
        checks, "features", lambda: [kernel.Feature("pidfd", False, "missing", needed=True, remedy="a new kernel")]
    )
    os.chmod(fake.folder, 0o777)
    ran = run("doctor", "-q")
    assert ran.status == 1
    assert "x pidfd" in ran.out or "✖ pidfd" in ran.out
    assert "try: a new kernel" in ran.out
    assert "may be written by others" in ran.out
    assert "not connected" in ran.out
    assert "python" not in ran.out


@pytest.mark.parametrize("home", ["/proc/nothing/here", "/tmp/" + "x" * 120])
def test_doctor_of_a_home_that_cannot_be(run, monkeypatch, home):
    monkeypatch.setenv("BOTD_HOME", home)
    monkeypatch.delenv("BOTD_SOCKET")
    ran = run("doctor")
    assert ran.status == 1 or os.geteuid() == 0
    assert "Traceback" not in ran.err


def test_the_kernel_is_asked_and_not_guessed():
    found = {feature.name: feature for feature in kernel.features()}
    assert {"pidfd", "exit status by pidfd", "cgroup v2", "openat2"} <= set(found)
    for feature in found.values():
        assert feature.present or feature.remedy


def test_version_with_and_without_a_daemon(run, fake, monkeypatch):
    fake.script["daemon.version"] = {"schema": 1, "version": "9.9", "pid": 1}
    assert run("version").out.splitlines()[1] == "botd   version 9.9, pid 1"
    monkeypatch.setenv("BOTD_SOCKET", "/tmp/no-such-folder/s")
    assert run("version").out.splitlines()[1] == "botd   not running"
    assert run("--version").out.startswith("botctl ")


@pytest.mark.parametrize(("shell", "check"), [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")])
def test_a_shell_can_read_its_script(run, tmp_path, shell, check):
    script = tmp_path / "script"
    script.write_text(run("completion", shell).out)
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    assert subprocess.run([shell, check, str(script)], capture_output=True, check=False).stderr == b""


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["botctl", "is"], {"is-active"}),
        (["botctl", "daemon", "st"], {"start", "stop", "status"}),
        (["botctl", "config", ""], {"show", "check", "schema", "reload"}),
        (["botctl", "list", "-o", ""], {"table", "wide", "json", "jsonl", "name"}),
        (["botctl", "stop", "--no-"], {"--no-wait", "--no-autostart"}),
        (["botctl", "bulk", ""], {"start", "stop", "restart", "delete"}),
        (["botctl", "stop", ""], {"alice/shop", "bob/x"}),
        (["botctl", "bulk", "stop", "al"], {"alice/shop"}),
        (["botctl", "-q", "stop", "bob/x", "al"], {"alice/shop"}),
        (["botctl", "wait", "--for", "h"], {"healthy"}),
        (["botctl", "-o", "json", "daemon", "sta"], {"start", "status"}),
        (["botctl", "completion", ""], {"bash", "zsh", "fish"}),
    ],
)
def test_bash_completes(run, fake, tmp_path, words, offered):
    fake.script["bots.list"] = page({"id": "alice/shop"}, {"id": "bob/x"})
    script = tmp_path / "script"
    script.write_text(run("completion", "bash").out)
    listing = tmp_path / "botctl"
    listing.write_text("#!/bin/sh\n[ \"$*\" = '--no-autostart list -o name' ] && printf 'alice/shop\\nbob/x\\n'\n")
    listing.chmod(0o755)
    quoted = " ".join(f"'{word}'" for word in words)
    position = f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}"
    code = f"source {script}; {position}; _botctl; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    environ = clean_environ(fake) | {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    shown = subprocess.run(["bash", "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert set(shown.stdout.split()) == offered
    assert shown.stderr == ""
