"""SIGUSR1 and SIGQUIT: the stacks of all threads, and what botd knows of itself, into its log. For support.

The stacks are written by C code at the moment of the signal, so that a botd whose loop hangs shows where it does; the
keeper asks for them before it ends such a one.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import resource
import signal
from collections.abc import Callable

log = logging.getLogger("botd")

_SIGNALS = (signal.SIGUSR1, signal.SIGQUIT)
_TASKS_MAX = 50


def early() -> None:
    """From here on the stacks are written."""
    for number in _SIGNALS:
        faulthandler.register(number, all_threads=True)


def install(describe: Callable[[], dict[str, object]]) -> None:
    """From here on `describe()` and the tasks of the running loop are logged as well."""
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        faulthandler.unregister(number)
        loop.add_signal_handler(number, _dump, describe)
        faulthandler.register(number, all_threads=True, chain=True)


def _dump(describe: Callable[[], dict[str, object]]) -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    log.warning("state: pid %d, peak memory %d KiB, cpu %.1f s", os.getpid(), usage.ru_maxrss, usage.ru_utime)
    for name, value in describe().items():
        log.warning("state: %s: %s", name, value)
    tasks = asyncio.all_tasks()
    log.warning("state: %d tasks", len(tasks))
    for task in sorted(tasks, key=lambda task: task.get_name())[:_TASKS_MAX]:
        frames = task.get_stack(limit=1)
        place = f"{frames[0].f_code.co_filename}:{frames[0].f_lineno}" if frames else "done"
        log.warning("state: %s %s at %s", task.get_name(), getattr(task.get_coro(), "__qualname__", "?"), place)
