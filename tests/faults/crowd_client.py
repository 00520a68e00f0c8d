"""A client in a process of its own that holds as many connections as it can: what botd has to live with.

`python -I -S crowd_client.py SOCKET MOST KIND` connects and says how many stand, a figure a line; it goes on until its
input ends. KIND: idle (says nothing), drip (a byte a second, no line ever ends), half (half a request), huge (a frame
that grows for ever), deaf (asks and asks and reads no answer).
"""

import resource
import select
import socket
import sys
import time

path, most, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
FIRST = {
    "idle": b"",
    "drip": b"{",
    "half": b'{"jsonrpc":"2.0","id":1,"method":"daemon.',
    "huge": b'{"jsonrpc":"2.0","id":1,"method":"' + b"x" * 60_000,
    "deaf": b'{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}\n' * 40,
}[kind]
MORE = {"drip": b" ", "huge": b"x" * 60_000, "deaf": FIRST}.get(kind, b"")

soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
held = []
made = 0


def push(data):
    """Say it to everybody; who is hung up on is let go."""
    kept = []
    for sock in held:
        try:
            sock.send(data)
        except BlockingIOError:
            pass  # botd does not read on: as it should
        except OSError:
            sock.close()
            continue
        kept.append(sock)
    held[:] = kept


def ended():
    """Whether our input has; what was closed on us is let go meanwhile."""
    return bool(select.select([sys.stdin], [], [], 0)[0])


while made < most and not ended():
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(path)  # waits for a place in the queue
    except OSError as error:
        sys.stdout.write(f"refused {error.errno}\n")
        break
    sock.setblocking(False)
    made += 1
    if FIRST:
        try:
            sock.send(FIRST)
        except OSError:
            pass  # full, or hung up on already
    held.append(sock)
    if made % 1000 == 0:
        sys.stdout.write(f"made {made}\n")
        sys.stdout.flush()
sys.stdout.write(f"all {made}\n")
sys.stdout.flush()
while not ended():
    if MORE:
        push(MORE)
    time.sleep(1.0 if kind == "drip" else 0.05)
