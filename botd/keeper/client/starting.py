"""Starting a keeper that outlives who started it."""

from __future__ import annotations

import os
import subprocess
import sys

import botd.keeper
from botd.keeper.client import scope
from botd.keeper.client.errors import KeeperError

START_WITHIN_S = 15.0
_TAKEN = 75


def start_keeper(home: str, containment: str = "auto", *, environ: dict[str, str] | None = None) -> None:
    """Start a keeper for `home` that is nobody's child, and return when it listens (blocking, some 50 ms).

    Another one that is there already is as good. KeeperError when it could not start.
    """
    program = os.path.join(os.path.dirname(os.path.abspath(botd.keeper.__file__)), "__main__.py")
    # -I -S: nothing of the user's environment or of site-packages gets into it, and it starts in a third of the time.
    command = [sys.executable, "-I", "-S", "-X", "utf8", program]
    arguments = ["--home", home, "--containment", containment, "--detach"]
    env = {"PATH": os.defpath} if environ is None else environ
    keeper, uid = [*command, *arguments], os.geteuid()
    scoped = scope.within(keeper, home, uid) if containment != "tree" else None
    if scoped is not None:
        try:
            if _run(scoped, {**scope.environment(uid), **env}, scope.WITHIN_S).returncode in (0, _TAKEN):
                return
        except (OSError, subprocess.TimeoutExpired):
            pass  # whatever became of it: should a keeper have started all the same, the next one finds its home taken
    try:
        done = _run(keeper, env, START_WITHIN_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KeeperError(f"the keeper could not be started: {error}") from error
    if done.returncode not in (0, _TAKEN):
        words = done.stderr.decode("utf-8", "replace").strip()[-500:]
        raise KeeperError(words or f"the keeper ended with status {done.returncode} at its start")


def _run(command: list[str], env: dict[str, str], within_s: float) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=within_s,
        env=env,
        cwd="/",
        start_new_session=True,
        check=False,
    )
