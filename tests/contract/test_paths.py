"""Where everything is: one private fleet for each BOTD_HOME."""

import os

import pytest

from botd.contract.errors import BotdError
from botd.contract.paths import SOCKET_PATH_MAX, Paths, config_candidates, resolve


@pytest.mark.parametrize(
    "environ,uid,home",
    [
        ({}, 0, "/var/lib/botd"),
        ({"HOME": "/root"}, 0, "/var/lib/botd"),
        ({"HOME": "/home/a"}, 1000, "/home/a/.local/state/botd"),
        ({"HOME": "/home/a", "XDG_STATE_HOME": "/state"}, 1000, "/state/botd"),
        ({"HOME": "/home/a", "XDG_STATE_HOME": "relative"}, 1000, "/home/a/.local/state/botd"),
        ({"HOME": "/home/a", "BOTD_HOME": "/srv/fleet/"}, 1000, "/srv/fleet"),
        ({"BOTD_HOME": "/srv//x/../fleet"}, 0, "/srv/fleet"),
        ({"BOTD_HOME": "", "HOME": "/home/a"}, 1000, "/home/a/.local/state/botd"),
    ],
)
def test_the_home_of_a_fleet(environ, uid, home):
    paths = resolve(environ, uid)
    assert (paths.home, paths.socket) == (home, f"{home}/run/botd.sock")


def test_a_relative_home_is_meant_from_here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert resolve({"BOTD_HOME": "fleet", "BOTD_SOCKET": "s"}, 0).home == f"{tmp_path}/fleet"
    assert resolve({"BOTD_HOME": "fleet", "BOTD_SOCKET": "s"}, 0).socket == f"{tmp_path}/s"


def test_cron_has_no_home_but_the_password_database_has():
    import pwd

    me = pwd.getpwnam("nobody")
    assert resolve({}, me.pw_uid).home == f"{me.pw_dir}/.local/state/botd"


def test_nobody_at_all_is_told_what_to_set():
    with pytest.raises(BotdError, match="no home directory is known for uid 987654") as caught:
        resolve({}, 987654)
    assert "BOTD_HOME" in caught.value.hint


def test_everything_is_inside_the_home():
    paths = Paths("/f")
    made = [paths.bot("a/b"), paths.bot_data("a/b"), paths.bot_logs("a/b"), paths.bot_lock("a/b")]
    named = [getattr(paths, name) for name in dir(Paths) if isinstance(getattr(Paths, name), property)]
    assert all(path.startswith("/f/") for path in (*made, *named, paths.socket))
    assert len(set(named)) == len(named)


def test_no_two_bots_share_a_lock():
    paths = Paths("/f")
    assert paths.bot_lock("a/b-c") != paths.bot_lock("a-b/c")
    assert os.path.dirname(paths.bot_lock("a/b")) == paths.locks


def test_a_socket_path_that_the_kernel_cannot_hold_is_refused_with_a_way_out():
    longest = "/" + "x" * (SOCKET_PATH_MAX - len("/run/keeper.sock") - 1)
    Paths(longest).check_socket()
    for paths in (Paths(longest + "x"), Paths("/f", "/" + "x" * SOCKET_PATH_MAX), Paths("/" + "\u20ac" * 40)):
        with pytest.raises(BotdError, match="the socket path is too long: 1") as caught:
            paths.check_socket()
        assert (caught.value.exit, "BOTD_HOME" in caught.value.hint) == (2, True)


def test_the_order_in_which_a_configuration_is_looked_for(tmp_path):
    paths = Paths(str(tmp_path))
    own = f"{tmp_path}/bot_config.json"
    assert config_candidates({"BOTD_CONFIG": "/e"}, paths, "/o") == ("/o", True)
    assert config_candidates({"BOTD_CONFIG": "/e"}, paths, None) == ("/e", True)
    assert config_candidates({"BOTD_HOME": str(tmp_path)}, paths, None) == (own, False)
    (tmp_path / "bot_config.json").touch()
    assert config_candidates({}, paths, None) == (own, False)
