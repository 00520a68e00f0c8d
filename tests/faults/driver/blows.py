"""The faults of random rounds. Each is (name in the table, what it does), chosen by `who` and chance."""

from __future__ import annotations

import contextlib
import os
import signal

WHO = ("botd", "keeper", "both", "stop", "all")
SHOTS = (signal.SIGKILL, signal.SIGUSR1, signal.SIGSEGV)


def choose(who, chance):
    """(name, blow(rig)) for one round."""
    if who == "all":
        who = chance.choices(("botd", "keeper", "both", "stop"), (10, 4, 3, 3))[0]
    if who == "botd":
        return "kill -9 of botd", lambda rig: rig.kill_botd()
    if who == "keeper":
        return "kill -9 of the keeper", lambda rig: rig.kill_keeper()
    if who == "both":
        first, pause = chance.choice(("botd", "keeper")), chance.choice((0.0, chance.random() * 0.05))
        return "kill -9 of both", lambda rig: rig.kill_both(first, pause)
    which, seconds = chance.choice(("botd", "keeper")), 0.05 + chance.random() * 0.6
    if chance.random() < 0.3:
        return "SIGSTOP of one and kill -9 of the other", lambda rig: rig.freeze(which, seconds, not rig.without)
    return f"SIGSTOP of {'botd' if which == 'botd' else 'the keeper'}", lambda rig: rig.freeze(which, seconds)


class Gun:
    """Signals that kill bots, as an administrator's or the kernel's would. `shots`: (bot, pid, signal number, time)."""

    def __init__(self, clock):
        self._clock = clock
        self.shots = []

    def shoot(self, view, number):
        """One bot, if that pid is still its own."""
        if view["pid"] is None:
            return False
        with contextlib.suppress(OSError):
            pidfd = os.pidfd_open(view["pid"])
            try:
                with open(f"/proc/{view['pid']}/environ", "rb") as file:
                    own = f"BOT_ID={view['id']}".encode() in file.read().split(b"\0")
                if own:
                    self.shots.append((view["id"], view["pid"], int(number), self._clock()))
                    signal.pidfd_send_signal(pidfd, number)
                    return True
            finally:
                os.close(pidfd)
        return False
