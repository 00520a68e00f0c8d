"""A bot that misbehaves on command: the tests' stand-in for every program a fleet has to live with.

Run it as `python -I -S scripted.py STEP + STEP + ...` (a step is a word and its arguments, `+` stands between
steps), as `scripted.py '[["print", "hello"], ["crash", 3]]'` (one JSON list), or with the steps in the
environment variable BOT_SCRIPT. Steps run in order; after the last one the bot exits 0.

    print WORD...            one line to stdout
    err WORD...              one line to stderr
    env                      the environment, sorted, one NAME=VALUE a line
    sleep [S]                S seconds; without S: until it is ended
    until FILE               wait until BOT_DATA/FILE exists (a test's way to say "now")
    touch FILE               create BOT_DATA/FILE (a bot's way to say "I am here")
    lines N INTERVAL         N numbered lines, one every INTERVAL seconds
    flood N [BYTES]          N numbered lines of BYTES bytes each (default 80), as fast as the pipe takes them
    crash CODE [after S]     exit with CODE (after S seconds)
    fail-first N [CODE]      exit with CODE (default 1) in the first N lives, go on in later ones
    signal NAME              end by a signal sent to itself (SIGSEGV, KILL, ...), without a core file
    ignore NAME...           ignore these signals from here on
    hang                     ignore SIGTERM, SIGINT and SIGHUP, and never end
    term-after S             from here on SIGTERM means: exit 0, S seconds later
    fork [stubborn]          leave a child, a setsid child, a double-forked daemon and an `env -i` process;
                             BOT_DATA/pids then has a line `KIND PID` for each (child, setsid, daemon, env-i)
                             and for main; stubborn ones ignore SIGTERM, SIGINT and SIGHUP
    leak MB_PER_S LIMIT      grow by so many MiB a second up to LIMIT MiB, and keep them
    write FILE MB [MB_PER_S] append so many MiB to BOT_DATA/FILE, as fast as the disk takes them or as told
    bomb MOST [stubborn]     fork until there are MOST children, which sleep; exit with 1 at the first fork that is
                             refused, or stubborn: try again for ever
    spin S                   use a whole core for S seconds
    notify STATE...          tell $NOTIFY_SOCKET (READY=1, WATCHDOG=1, ...)
    serve                    HTTP on 127.0.0.1:$PORT, the same answer to every request; BOT_DATA/health says
                             which: `ok` or no file: 200, `unhealthy`: 503, `silent`: none, `reset`: hang up
    lock                     take BOT_DATA/witness.lock, held by later children too; taken already: exit 99
    witness [INTERVAL [N]]   lock, then N lines (default: no end) `witness LIFE NUMBER`, one every INTERVAL
                             seconds (default 0.1); LIFE is counted in the lock file

Numbers of `lines` and `flood` run on through one life, so a log is complete when it counts 1, 2, 3, ...
A script that ends in `ignore`, `term-after`, `lock` or `fork` sleeps afterwards. Exit statuses of its own:
64 for a script that makes no sense, 78 for a missing BOT_DATA, PORT or NOTIFY_SOCKET, 99 for "I run twice".
Nothing outlives 600 seconds (SCRIPTED_LIFETIME_S sets less): SIGALRM ends it, and what it forked too.

One file on purpose, however long: with -I -S there is nothing to import a second one from.
"""

import _signal as signal  # the C half of the module: without its enums a bot starts in two thirds of the time
import os
import sys
import time

EX_USAGE, EX_CONFIG, RAN_TWICE = 64, 78, 99
LIFETIME_S = max(1, min(600, int(os.environ.get("SCRIPTED_LIFETIME_S", "600"))))
LEAK_LIMIT_MB = 4096
BOMB_LIMIT = 4000
LINES_LIMIT = 10_000_000
POLITE_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_line_number = 0
_lock_fd = None
_leaked = []


def say(text, fd=1):
    """Unbuffered, whole lines: what was said before a crash is in the pipe, and `os._exit` loses nothing."""
    data = memoryview((text + "\n").encode())
    while data:
        data = data[os.write(fd, data) :]


def give_up(code, why):
    say(f"scripted: {why}", fd=2)
    os._exit(code)


def required(variable):
    return os.environ.get(variable) or give_up(EX_CONFIG, f"{variable} is not set")


def data_file(name):
    return os.path.join(required("BOT_DATA"), name)


def signal_number(name):
    number = getattr(signal, "SIG" + name.upper().removeprefix("SIG"), None)
    if number is None:
        raise ValueError(f"no such signal: {name}")
    return number


def numbered(width=0):
    """The next numbered line of this life, filled up to `width` bytes with its newline."""
    global _line_number
    _line_number += 1
    return f"{_line_number:08d}".ljust(width - 1, ".")


# -- steps ---------------------------------------------------------------------------------------------------


def step_print(*words):
    say(" ".join(words))


def step_err(*words):
    say(" ".join(words), fd=2)


def step_env():
    for name in sorted(os.environ):
        say(f"{name}={os.environ[name]}")


def step_sleep(seconds=LIFETIME_S):
    time.sleep(float(seconds))


def step_until(name):
    path = data_file(name)
    while not os.path.exists(path):
        time.sleep(0.01)


def step_touch(name):
    os.close(os.open(data_file(name), os.O_CREAT | os.O_WRONLY, 0o600))


def step_lines(count, interval):
    for _ in range(min(int(count), LINES_LIMIT)):
        say(numbered())
        time.sleep(float(interval))


def step_flood(count, size=80):
    left, size = min(int(count), LINES_LIMIT), int(size)
    while left:
        batch = min(left, max(1, 65536 // max(size, 9)))
        say("\n".join([numbered(size) for _ in range(batch)]))
        left -= batch


def step_crash(code, _after="after", seconds=0):
    time.sleep(float(seconds))
    os._exit(int(code))


def step_fail_first(lives, code=1):
    if count_up(data_file("lives")) <= int(lives):
        os._exit(int(code))


def step_signal(name):
    import resource

    number = signal_number(name)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def step_ignore(*names):
    for name in names:
        signal.signal(signal_number(name), signal.SIG_IGN)


def step_hang():
    for number in POLITE_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    step_sleep()


def step_term_after(seconds):
    def leave(_number, _frame):
        time.sleep(float(seconds))
        os._exit(0)

    signal.signal(signal.SIGTERM, leave)


def step_fork(temper="mild"):
    pids = {"main": os.getpid()}
    for kind in ("child", "setsid", "daemon", "env-i"):
        # The pid comes back over a pipe because a double-forked daemon is nobody's child any more.
        answer, tell = os.pipe()
        forked = os.fork()
        if forked == 0:
            stay_behind(kind, temper == "stubborn", tell)
        os.close(tell)
        pids[kind] = int(os.read(answer, 32))
        os.close(answer)
        if kind == "daemon":
            os.waitpid(forked, 0)
    write_whole(data_file("pids"), "".join(f"{kind} {pid}\n" for kind, pid in pids.items()))


def stay_behind(kind, stubborn, tell):
    """What a forked process does; never returns."""
    try:
        signal.alarm(LIFETIME_S)  # fork clears it, exec keeps it
        for number in POLITE_SIGNALS:
            signal.signal(number, signal.SIG_IGN if stubborn else signal.SIG_DFL)
        if kind in ("setsid", "daemon"):
            os.setsid()
        if kind == "daemon":
            if os.fork():
                os._exit(0)
            signal.alarm(LIFETIME_S)
            null = os.open(os.devnull, os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
            # A daemon closes everything it was given, except the witness: that has to tell on it.
            for fd in map(int, os.listdir("/proc/self/fd")):
                if fd > 2 and fd not in (tell, _lock_fd):
                    close_quietly(fd)
        os.write(tell, b"%d" % os.getpid())
        os.close(tell)
        if kind == "env-i":
            os.execve("/bin/sleep", ["sleep", str(LIFETIME_S)], {})
        time.sleep(LIFETIME_S)
    finally:
        os._exit(1)


def step_write(file, mb, mb_per_s="0"):
    block = b"w" * (1 << 18)
    fd = os.open(data_file(file), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for _ in range(4 * int(mb)):
        os.write(fd, block)
        if int(mb_per_s):
            time.sleep(0.25 / int(mb_per_s))
    os.close(fd)


def step_leak(mb_per_s, limit):
    limit = min(int(limit), LEAK_LIMIT_MB)
    while len(_leaked) < limit:
        _leaked.append(b"x" * (1 << 20))  # written, so that the pages are really there
        time.sleep(1 / float(mb_per_s))


def step_bomb(most, temper="mild"):
    for _ in range(min(int(most), BOMB_LIMIT)):
        while True:
            try:
                child = os.fork()
                break
            except OSError as error:
                if temper != "stubborn":
                    give_up(1, f"fork: {error.strerror}")
                time.sleep(0.01)
        if child == 0:
            signal.alarm(LIFETIME_S)  # fork clears it
            time.sleep(LIFETIME_S)
            os._exit(0)
    step_sleep()


def step_spin(seconds):
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        pass


def step_notify(*states):
    import socket

    address = required("NOTIFY_SOCKET")
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto("\n".join(states).encode(), address)


def step_serve():
    import socket

    port, mood_file = int(required("PORT")), data_file("health")
    unanswered = []
    with socket.create_server(("127.0.0.1", port)) as server:
        while True:
            connection, _ = server.accept()
            connection.settimeout(2)
            mood = read_whole(mood_file).strip() or "ok"
            if mood == "silent":
                unanswered = [*unanswered[-63:], connection]
                continue
            if mood != "reset":
                answer(connection, mood)
            connection.close()


def answer(connection, mood):
    status = "200 OK" if mood == "ok" else "503 Service Unavailable"
    body = f'{{"status":"{mood}","pid":{os.getpid()}}}'
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    try:
        request = b""
        while b"\r\n\r\n" not in request and len(request) < 65536:
            piece = connection.recv(4096)
            if not piece:
                return
            request += piece
        connection.sendall(f"{head}Connection: close\r\n\r\n{body}".encode())
    except OSError:
        pass  # the prober went away or stalled: the next one counts


def step_lock():
    import fcntl

    global _lock_fd
    if _lock_fd is not None:
        return
    _lock_fd = os.open(data_file("witness.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(_lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        give_up(RAN_TWICE, "the witness lock is taken: another life, or something it left, is alive")
    os.set_inheritable(_lock_fd, True)


def step_witness(interval=0.1, count=LINES_LIMIT):
    step_lock()
    # Through the locked descriptor, never by rename: a new file would be a new lock.
    life = int(os.pread(_lock_fd, 32, 0) or b"0") + 1
    os.pwrite(_lock_fd, b"%d" % life, 0)
    for number in range(1, int(count) + 1):
        say(f"witness {life} {number}")
        time.sleep(float(interval))


# -- files ---------------------------------------------------------------------------------------------------


def close_quietly(fd):
    try:
        os.close(fd)
    except OSError:
        pass  # the descriptor that listed the folder is gone already


def read_whole(path):
    try:
        with open(path) as file:
            return file.read()
    except FileNotFoundError:
        return ""


def write_whole(path, text):
    """A reader finds the old text or the new one, never half of it."""
    with open(path + ".new", "w") as file:
        file.write(text)
    os.rename(path + ".new", path)


def count_up(path):
    number = int(read_whole(path) or 0) + 1
    write_whole(path, str(number))
    return number


# -- the script ----------------------------------------------------------------------------------------------

# name -> (the step, fewest and most arguments)
STEPS = {
    "print": (step_print, 0, 99),
    "err": (step_err, 0, 99),
    "env": (step_env, 0, 0),
    "sleep": (step_sleep, 0, 1),
    "until": (step_until, 1, 1),
    "touch": (step_touch, 1, 1),
    "lines": (step_lines, 2, 2),
    "flood": (step_flood, 1, 2),
    "crash": (step_crash, 1, 3),
    "fail-first": (step_fail_first, 1, 2),
    "signal": (step_signal, 1, 1),
    "ignore": (step_ignore, 1, 9),
    "hang": (step_hang, 0, 0),
    "term-after": (step_term_after, 1, 1),
    "fork": (step_fork, 0, 1),
    "leak": (step_leak, 2, 2),
    "write": (step_write, 2, 3),
    "bomb": (step_bomb, 1, 2),
    "spin": (step_spin, 1, 1),
    "notify": (step_notify, 1, 9),
    "serve": (step_serve, 0, 0),
    "lock": (step_lock, 0, 0),
    "witness": (step_witness, 0, 2),
}
SETTLES = ("ignore", "term-after", "lock", "fork")


def read_script(arguments):
    """The steps as lists of words: [["print", "hello"], ["crash", "3"]]."""
    words = arguments or os.environ.get("BOT_SCRIPT", "").split()
    if words and words[0].startswith("["):
        import json

        return [
            step.split() if isinstance(step, str) else [str(word) for word in step]
            for step in json.loads(" ".join(words))
        ]
    steps = [[]]
    for word in words:
        if word == "+":
            steps.append([])
        else:
            steps[-1].append(word)
    return steps


def check(steps):
    for step in steps:
        if not step or step[0] not in STEPS:
            give_up(EX_USAGE, f"no such step: {' '.join(step) or '(nothing)'}; there are: {' '.join(STEPS)}")
        _, fewest, most = STEPS[step[0]]
        if not fewest <= len(step) - 1 <= most:
            give_up(EX_USAGE, f"{step[0]} takes {fewest} to {most} arguments, not {len(step) - 1}")


def main():
    signal.alarm(LIFETIME_S)
    steps = read_script(sys.argv[1:])
    check(steps)
    for name, *arguments in steps:
        try:
            STEPS[name][0](*arguments)
        except ValueError as error:
            give_up(EX_USAGE, f"{name}: {error}")
    if steps[-1][0] in SETTLES:
        step_sleep()
    os._exit(0)


if __name__ == "__main__":
    main()
