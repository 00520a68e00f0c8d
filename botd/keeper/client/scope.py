"""A scope of its own for the keeper, where systemd is in charge of the control groups.

Controllers can only be handed down through a group without processes. In a service that cannot be had: systemd puts the
next process of a restarted unit where the old one was, and fails as long as a bot has controllers below it. In a login
session others sit in the group, and all of it may be ended with the session. A delegated scope has neither trouble.
"""

from __future__ import annotations

import os
import shutil

WITHIN_S = 8.0
"""systemd answers in milliseconds, or is in trouble; then the keeper starts where botd is."""


def within(command: list[str], home: str, uid: int, root: str = "/", path: str | None = None) -> list[str] | None:
    """`command` as it is run in a scope of its own; None where there is no systemd, or no version 2 of control groups.

    `root` is where /run and /sys are found, `path` is searched for systemd-run.
    """
    signs = ("run/systemd/system", "sys/fs/cgroup/cgroup.controllers")
    program = shutil.which("systemd-run", path=path)
    if program is None or not all(os.path.exists(os.path.join(root, sign)) for sign in signs):
        return None
    whose = [] if uid == 0 else ["--user"]
    about = [f"--description=botd-keeper of {home}", "--property=Delegate=yes"]
    return [program, *whose, "--scope", "--quiet", "--collect", *about, "--", *command]


def environment(uid: int) -> dict[str, str]:
    """What systemd-run needs to find the systemd of this user."""
    return {} if uid == 0 else {"XDG_RUNTIME_DIR": f"/run/user/{uid}"}
