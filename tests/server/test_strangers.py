"""Another user of the machine: may connect where the configuration says so, and then do next to nothing."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import tempfile

import pytest
from fleet_house import FAST, NOBODY, python_for_everybody

from botd.contract.methods import METHODS

pytestmark = pytest.mark.root

ASKER = """
import json, socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.settimeout(20)
try:
    sock.connect(sys.argv[1])
except OSError as error:
    print(json.dumps({"refused": error.errno}))
    sys.exit()
stream = sock.makefile("rwb")
for line in sys.stdin:
    stream.write(line.encode())
    stream.flush()
    sys.stdout.write(stream.readline().decode())
"""


def ask(fleet, *messages):
    """What uid nobody is answered."""
    lines = "".join(json.dumps({"jsonrpc": "2.0", "id": i, **one}) + "\n" for i, one in enumerate(messages))
    done = subprocess.run(
        [python_for_everybody(), "-I", "-c", ASKER, fleet.socket],
        input=lines, capture_output=True, text=True, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/",
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def open_fleet():
    from fleet_house import Fleet

    fleet = Fleet({**FAST, "security": {"socketAccess": "everyone"}}).up()
    fleet.create("root/mine", "sleep")
    yield fleet
    fleet.close()


def test_everything_but_ping_version_and_discover_is_denied(open_fleet):
    before = open_fleet.pids(), len(open_fleet.events())
    names = sorted(METHODS)
    answers = ask(open_fleet, *({"method": name, "params": {}} for name in names))
    assert len(answers) == len(names)
    for name, answer in zip(names, answers, strict=True):
        if METHODS[name].who == "anyone":
            assert "result" in answer, (name, answer)
        else:
            error = answer["error"]
            assert error["data"]["kind"] == "denied", (name, answer)
            assert error["data"]["exit"] == 5
            assert f"uid {NOBODY}" in error["message"]
            assert error["data"]["hint"]
    assert {name for name in names if METHODS[name].who == "anyone"} == {
        "daemon.ping", "daemon.version", "rpc.discover",
    }  # fmt: skip
    assert (open_fleet.pids(), len(open_fleet.events())) == before


def test_saying_who_one_is_does_not_help(open_fleet):
    answers = ask(
        open_fleet,
        {"method": "bots.list", "params": {}, "uid": 0, "user": "root"},
        {"method": "bots.stop", "params": {"select": {"all": True}, "uid": 0}},
        {"method": "daemon.shutdown", "params": {"bots": True}},
    )
    assert [answer["error"]["data"]["kind"] for answer in answers] == ["denied"] * 3
    assert open_fleet.bot("root/mine")["phase"] == "running"


def test_a_denial_comes_before_any_look_at_the_params(open_fleet):
    """Whether a bot exists is nobody's business who may not ask."""
    answers = ask(
        open_fleet,
        {"method": "bots.explain", "params": {"id": "root/mine"}},
        {"method": "bots.explain", "params": {"id": "root/none"}},
        {"method": "bots.explain", "params": {"nonsense": 1}},
    )
    assert len({json.dumps(answer["error"]) for answer in answers}) == 1


def test_an_owners_socket_is_closed_to_others(make_fleet):
    fleet = make_fleet().up()
    assert stat.S_IMODE(os.stat(fleet.socket).st_mode) == 0o600
    assert ask(fleet, {"method": "daemon.ping"}) == [{"refused": 13}]


def test_botctl_of_a_stranger_says_what_to_do(open_fleet):
    done = subprocess.run(
        [python_for_everybody(), "-m", "botctl", "list"],
        env={"BOTD_HOME": open_fleet.home, "PATH": os.environ["PATH"]},
        capture_output=True, text=True, user=NOBODY, group=NOBODY, extra_groups=[],
        cwd=os.path.dirname(os.path.dirname(os.path.dirname(__file__))), timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 5, done.stderr
    assert "may not call" in done.stderr
    assert done.stdout == ""


def test_opening_and_closing_the_socket_by_a_reload(make_fleet):
    fleet = make_fleet().up()
    assert ask(fleet, {"method": "daemon.ping"}) == [{"refused": 13}]
    fleet.configure({**FAST, "security": {"socketAccess": "everyone"}})
    fleet.rpc("config.reload")
    assert ask(fleet, {"method": "daemon.ping"})[0]["result"] == {"pong": True}
    fleet.configure(FAST)
    fleet.rpc("config.reload")
    assert ask(fleet, {"method": "daemon.ping"}) == [{"refused": 13}]
    assert fleet.rpc("daemon.ping")


def test_an_open_door_shows_nothing_but_the_door(open_fleet):
    """Others may walk up to the socket and read nothing on the way."""
    for folder, folders, files in os.walk(open_fleet.home):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            mode = stat.S_IMODE(os.stat(path).st_mode)
            allowed = {"botd.sock": 0o666, "run": 0o711}.get(name)
            assert mode == allowed or not mode & 0o077 or name == "bot_config.json", f"{path} {mode:o}"
    assert stat.S_IMODE(os.stat(open_fleet.home).st_mode) == 0o711


def test_a_socket_elsewhere_leaves_its_folder_as_it_is(make_fleet):
    with tempfile.TemporaryDirectory(prefix="b", dir="/tmp") as elsewhere:
        os.chmod(elsewhere, 0o1777)
        fleet = make_fleet(
            {**FAST, "security": {"socketAccess": "everyone"}}, environ={"BOTD_SOCKET": f"{elsewhere}/door"}
        ).up()
        assert ask(fleet, {"method": "daemon.ping"})[0]["result"] == {"pong": True}
        assert stat.S_IMODE(os.stat(elsewhere).st_mode) == 0o1777
        fleet.configure(FAST)
        fleet.rpc("config.reload")
        assert ask(fleet, {"method": "daemon.ping"}) == [{"refused": 13}]
        assert stat.S_IMODE(os.stat(elsewhere).st_mode) == 0o1777
        fleet.down(bots=True)
        assert os.listdir(elsewhere) == []
