"""What a bot may use, and the words for one that the kernel stopped."""

import pytest

from botd.core import caps, explain, restart
from botd.core.bot import BotState, Exit, Spec
from botd.core.settings import MIB, Limits

PLAIN = Spec("alice/shop", ("run",), "/srv")
OWN = Spec("alice/shop", ("run",), "/srv", memory_bytes=64 * MIB, processes=8, cpu=0.5)


def test_the_bots_own_limits_come_before_the_defaults_of_all():
    assert caps.caps_of(PLAIN, Limits()) == (512 * MIB, 0, 512, None)
    assert caps.caps_of(OWN, Limits(max_cpu_per_bot=2.0)) == (64 * MIB, 0, 8, 0.5)
    open_to_all = Limits(max_swap_per_bot_bytes=None, max_processes_per_bot=None)
    assert caps.caps_of(PLAIN, open_to_all).to_keeper() == {
        "memory": 512 * MIB,
        "swap": None,
        "pids": None,
        "cpu": None,
    }


@pytest.mark.parametrize(
    "spec,peak,limit,words",
    [
        (PLAIN, 512 * MIB, 512 * MIB, "killed by the kernel for memory: peak 512 MiB, limit 512 MiB (maxMemoryPerBot)"),
        (OWN, 63 * MIB, 64 * MIB, "killed by the kernel for memory: peak 63 MiB, limit 64 MiB (memory_mb)"),
        (
            OWN,
            20 * MIB,
            64 * MIB,
            "killed by the kernel for memory because the machine had none left: peak 20 MiB, limit 64 MiB (memory_mb)",
        ),
        (PLAIN, None, 512 * MIB, "killed by the kernel for memory: limit 512 MiB (maxMemoryPerBot)"),
        (None, 300 << 10, None, "killed by the kernel for memory: peak 300 KiB"),
        (None, None, None, "killed by the kernel for memory"),
    ],
)
def test_the_words_for_an_end_by_the_kernel(spec, peak, limit, words):
    assert caps.killed_for_memory(spec, peak, limit) == words


def test_an_end_for_memory_is_no_success_whatever_the_status():
    note = "killed by the kernel for memory: peak 64 MiB, limit 64 MiB (memory_mb)"
    exit = Exit(0, None, 0.0, 3.0, "memory", note)
    assert not exit.clean
    assert exit.words() == restart.words_of(exit) == note


def test_refused_forks_are_told_with_the_end_and_with_what_would_help():
    exit = Exit(1, None, 0.0, forks_refused=12)
    assert restart.words_of(exit) == "exited with code 1 (12 forks refused by its limit of processes)"
    state = BotState(phase="backoff", wanted=True, last_exit=exit)
    assert any("(processes)" in line for line in explain.advice(OWN, state, Limits()))
    assert any("(maxProcessesPerBot)" in line for line in explain.advice(PLAIN, state, Limits()))
    assert restart.words_of(Exit(None, 9, 0.0, forks_refused=1)).endswith("(1 fork refused by its limit of processes)")


def test_a_running_bot_at_its_limit_is_told_so():
    state = BotState(phase="running", wanted=True)
    assert explain.advice(PLAIN, state, Limits()) == []
    [line] = explain.advice(PLAIN, state, Limits(), forks_refused=1200)
    assert line.startswith(
        "it was refused one more process or thread 1,200 times: its limit of 512 (maxProcessesPerBot) is reached"
    )
