"""What holds each limit, from what the keeper says of itself."""

import pytest

from botd.core.mechanisms import BETTER, LIMITS, mechanisms, mode

ALL_V2 = {"memory": "v2", "swap": "v2", "pids": "v2", "cpu": "v2"}
HYBRID = {
    "containment": "cgroup2",
    "features": {"cgroup_kill": True},
    "controllers": {"memory": "v1", "swap": None, "pids": "v1", "cpu": None},
    "why": {"swap": "swap accounting is off: boot with swapaccount=1", "cpu": "the cpu controller is closed to us"},
}


def modes(hello, **more):
    return {key: view["mode"] for key, view in mechanisms(hello, sampling=True, **more).items()}


def test_with_all_controllers_everything_is_enforced():
    hello = {"containment": "cgroup2", "features": {"cgroup_kill": True}, "controllers": ALL_V2, "why": {}}
    found = mechanisms(hello, sampling=False)
    assert {view["mode"] for view in found.values()} == {"enforced"}
    assert found["memory"]["by"] == "cgroup v2"
    assert not any(view["remedy"] for view in found.values())


def test_each_controller_counts_for_itself_and_the_keeper_says_what_would_help():
    found = mechanisms(HYBRID, sampling=True)
    assert modes(HYBRID) == {
        "memory": "enforced",
        "swap": "none",
        "processes": "enforced",
        "cpu": "none",
        "tree": "enforced",
    }
    assert found["memory"]["by"] == "cgroup v1"
    assert found["swap"]["remedy"] == HYBRID["why"]["swap"]


@pytest.mark.parametrize("hello", [{}, {"controllers": None}, {"controllers": {"memory": None}, "why": []}])
def test_without_controllers_memory_and_processes_are_watched(hello):
    found = mechanisms(hello, sampling=True)
    assert modes(hello) == {
        "memory": "watched",
        "swap": "none",
        "processes": "watched",
        "cpu": "none",
        "tree": "watched",
    }
    assert found["memory"]["remedy"] == BETTER
    unseen = mechanisms(hello, sampling=False)
    assert [unseen[limit]["mode"] for limit in LIMITS] == ["none"] * 4


def test_a_life_is_held_by_the_folders_it_is_in_and_a_bot_without_one_as_its_next_would_be():
    folders = {"memory": "/sys/fs/cgroup/memory/x"}
    assert mode("memory", HYBRID, folders, sampling=True) == "enforced"
    # A life that an older keeper started is in no folder.
    assert mode("memory", HYBRID, {}, sampling=True) == "watched"
    assert mode("processes", HYBRID, folders, sampling=False) == "none"
    assert mode("processes", HYBRID, None, sampling=True) == "enforced"
    assert mode("cpu", HYBRID, None, sampling=True) == "none"
