"""Pid 1 of a pid namespace of its own, where numbers can be given out at will. Run by test_keeper_reuse.

Each number that the keeper knows is taken by a foreign process, and then everything is done that signals. A foreign
process that got any signal says so by its end.
"""

import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from keeper_house import House, alive, until

ORPHANS = Path(__file__).parents[1] / "faults" / "orphans.py"


def reap(pid):
    """We are init here: what is orphaned ends with us."""
    until(lambda: _reaped(pid), f"the end of {pid}")


def _reaped(pid):
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass  # not ours yet, or not any more
    return not os.path.exists(f"/proc/{pid}")


def foreign(pid):
    """A process of somebody else with exactly this number, in a session of its own."""
    for _ in range(1000):
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
        child = os.fork()
        if child == 0:
            os.setsid()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCONT):
                signal.signal(number, lambda *_: os._exit(1))
            time.sleep(600)
            os._exit(0)
        if child == pid:
            return pid
        os.kill(child, 9)
        os.waitpid(child, 0)
    raise AssertionError(f"{pid} could not be taken again")


def untouched(pids):
    for pid in pids:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        assert alive(pid) and state in ("S", "R", "D"), f"the foreign process {pid} was signalled: {state}"


def main(containment, without):
    house = House(containment, without)
    others = []
    try:
        keeper = house.up()
        file = Path(house.path("pids"))
        keeper.start("u/ends", 1, ["sleep", "1000"])
        main_pid = keeper.held["u/ends", 1][0]["pid"]
        keeper.start("u/bot", 1, [sys.executable, "-I", "-S", str(ORPHANS), str(file), "leave"])
        until(file.exists, "the bot and its orphans")
        orphans = [int(pid) for pid in file.read_text().split()][1:]
        house.kill_keeper()
        held = keeper.hand_over()
        # While no keeper looks the main process of one ends, and its number goes to another.
        os.kill(main_pid, 9)
        reap(main_pid)
        others.append(foreign(main_pid))
        house.launch()
        again = house.connect(adopt=held)
        if again.state("u/ends", 1)["live"]:
            again.expect("exited", "u/ends", 1)
        again.send({"op": "stop", "id": "u/ends", "gen": 1, "signal": 15, "grace_s": 0})
        again.send({"op": "signal", "id": "u/ends", "gen": 1, "signal": 15})
        again.send({"op": "ping"})
        while again.receive()["op"] != "pong":
            pass
        untouched(others)
        # The new keeper has met the orphans; some of their numbers go to others before the bot is stopped.
        for pid in orphans[1:4]:
            os.kill(pid, 9)
            until(lambda pid=pid: not alive(pid), "its end")
        for pid in orphans[1:4]:
            reap(pid)
            others.append(foreign(pid))
        again.stop("u/bot", 1, grace_s=10)
        again.expect_past_errors("exited", "u/bot", 1)
        for pid in set(orphans) - set(others):
            assert not alive(pid), f"{pid} is left"
        untouched(others)
        print(f"{len(others)} numbers taken again, no foreign process signalled")
    finally:
        house.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
