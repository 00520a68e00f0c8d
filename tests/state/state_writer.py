"""Writes batch upon batch and prints the number of each that was acknowledged, until it is killed.

    python tests/state/state_writer.py DATABASE START [STOP]

Batch n gives every bot the generation n, adds two lines of history that say n, and is durable when n is
odd. With STOP the process kills itself in the middle of batch STOP.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace

from state_bots import RUNNING

from botd.state.store import NewEvent, Store

IDS = [f"alice/bot{i}" for i in range(20)]


def main(path: str, start: int, stop: int | None) -> None:
    store = Store.open(path)
    n = start
    while True:
        with store.batch(durable=n % 2 == 1) as batch:
            batch.add_event(None, float(n), "batch", f"{n}", n)
            batch.save_states([(bot_id, replace(RUNNING, generation=n)) for bot_id in IDS], "boot")
            if n == stop:
                os.kill(os.getpid(), signal.SIGKILL)
            batch.add_events([NewEvent(IDS[0], float(n), "batch", f"{n}", n)])
        os.write(1, b"%d\n" % n)
        if n % 50 == 0:
            store.checkpoint()
            store.snapshot()
        n += 1


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)
