"""A bot that leaves as much behind as it can: orphans in sessions of their own, without descriptors or environment.

`python -I -S orphans.py FILE`: the pids of all of it, itself first, are in FILE once it stands. All ignore SIGTERM.
With a second argument the bot itself ends at SIGTERM, and leaves the others to whoever finds them.
"""

import os
import signal
import sys
import time

LIFETIME_S = 300


def leave(kind):
    """Fork one of a kind; its pid."""
    answer, tell = os.pipe()
    child = os.fork()
    if child:
        os.close(tell)
        pid = int(os.read(answer, 32))
        os.close(answer)
        if kind in ("daemon", "bare"):
            os.waitpid(child, 0)
        return pid
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if kind != "child":
        os.setsid()
    if kind in ("daemon", "bare") and os.fork():
        os._exit(0)
    signal.alarm(LIFETIME_S)
    os.write(tell, b"%d" % os.getpid())
    os.closerange(0, 1024)
    if kind in ("bare", "env"):
        os.execve("/bin/sleep", ["sleep", str(LIFETIME_S)], {})
    time.sleep(LIFETIME_S)
    os._exit(0)


signal.alarm(LIFETIME_S)
if len(sys.argv) > 2:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
else:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
pids = [os.getpid()] + [leave(kind) for kind in ("child", "setsid", "daemon", "env", "bare")]
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whose child has ended has its number free again
with open(sys.argv[1] + ".new", "w") as file:
    file.write(" ".join(map(str, pids)))
os.rename(sys.argv[1] + ".new", sys.argv[1])
while True:
    time.sleep(LIFETIME_S)
