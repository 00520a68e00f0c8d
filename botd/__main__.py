"""The entry: `botd run [--detach] [--config FILE]`, `botd config check|schema`, `botd repair`, `botd --version`."""

from __future__ import annotations

import os
import sys

from botd import __version__, comeback, succession
from botd.contract.errors import BotdError
from botd.contract.paths import Paths, resolve
from botd.contract.vocabulary import Exit

USAGE = f"""botd {__version__}: the daemon of a fleet of bots. People use botctl; it starts botd when needed.

usage: botd run [--detach] [--config FILE]   serve, in the foreground or in the background
       botd config check [FILE]              is this configuration valid?
       botd config schema                    its JSON Schema
       botd repair [--check]                 put a damaged database right while botd does not run
       botd --version

environment: BOTD_HOME (the fleet's folder), BOTD_SOCKET, BOTD_CONFIG,
             BOTD_RESPAWN=0 (a supervisor of yours, not the keeper, brings botd back when it dies)
"""


def main() -> int:
    arguments = sys.argv[1:]
    match arguments[:1]:
        case ["run"]:
            return _guarded(arguments[1:])
        case ["preflight"]:
            from botd.preflight import main as preflight_main

            return preflight_main(arguments[1:])
        case ["config"]:
            from botd.config_cli import main as config_main

            return config_main(arguments[1:])
        case ["repair"]:
            from botd.repair_cli import main as repair_main

            return repair_main(arguments[1:])
        case ["--version" | "-V" | "version"]:
            print(f"botd {__version__}")
            return Exit.OK
        case ["--help" | "-h" | "help"]:
            print(USAGE, end="")
            return Exit.OK
        case [word]:
            return _say(BotdError("invalid", f"unknown command {word!r}", hint="botd --help"))
        case _:
            print(USAGE, end="", file=sys.stderr)
            return Exit.USAGE


def _guarded(arguments: list[str]) -> int:
    try:
        detach, config = _options(arguments)
        paths = resolve(os.environ, os.geteuid())
        paths.check_socket()
        return _detached(paths, config) if detach else _foreground(paths, config)
    except BotdError as error:
        return _say(error)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED


def _options(arguments: list[str]) -> tuple[bool, str | None]:
    detach, config = False, None
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--detach":
            detach = True
        elif word == "--config" and rest:
            config = os.path.abspath(rest.pop(0))
        elif word.startswith("--config="):
            config = os.path.abspath(word.partition("=")[2])
        else:
            raise BotdError("invalid", f"botd run: unknown or incomplete option {word!r}", hint="botd --help")
    return detach, config


def _foreground(paths: Paths, config: str | None, ready_fd: int | None = None) -> int:
    _lean()
    brought_back = comeback.begin(os.environ)
    heir = succession.inherit(os.environ)
    try:
        _serve(paths, config, ready_fd, brought_back, heir)
    except BaseException as error:
        if heir is not None:
            heir.give_back(error)
        if isinstance(error, Exception):
            comeback.last_words(
                _words(error) if isinstance(error, BotdError) else f"botd: {type(error).__name__}: {error}"
            )
        raise
    return Exit.OK


def _serve(
    paths: Paths, config: str | None, ready_fd: int | None, brought_back: bool, heir: succession.Inheritance | None
) -> None:
    from botd.app import serve

    def ready() -> None:
        if ready_fd is not None:
            os.write(ready_fd, b"ok\n")
            os.close(ready_fd)
        _tell_service_manager()

    respawn = comeback.wanted(os.environ, detached=ready_fd is not None or brought_back)
    serve(paths, config, respawn=respawn, brought_back=brought_back, ready=ready, heir=heir)


def _lean() -> None:
    """asyncio imports ssl when it can; the daemon speaks no TLS, and this saves 3.5 MB and a third of the start."""
    sys.modules.setdefault("ssl", None)  # type: ignore[arg-type] # None is how an import is forbidden


def _detached(paths: Paths, config: str | None) -> int:
    """Returns when the daemon answers, or says why it does not. Forks before anything heavy is imported."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        os._exit(_child(paths, config, writer))
    os.close(writer)
    answer = b""
    while chunk := os.read(reader, 4096):
        answer += chunk
    if answer.startswith(b"ok"):
        return Exit.OK
    sys.stderr.write(answer.decode("utf-8", "replace") or "botd ended without a word; see run/botd.log\n")
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) or Exit.FAILED


def _child(paths: Paths, config: str | None, writer: int) -> int:
    """The daemon of `_detached`. Errors before it serves go to who started it, and to its log once there is one."""
    logging = False
    try:
        os.setsid()
        os.umask(0o077)
        from botd.storage import folders

        folders.prepare_home(paths)
        _onto_log(paths.daemon_log)
        logging = True
        return _foreground(paths, config, writer)
    except BotdError as error:
        _write_error(writer, error, log=logging)
        return error.exit
    except BaseException as error:  # noqa: BLE001 - whoever waits must be told something
        told = BotdError("internal", f"{type(error).__name__}: {error}", hint=paths.daemon_log)
        _write_error(writer, told, log=logging)
        return Exit.FAILED


LOG_MAX = 5 << 20


def _onto_log(path: str) -> None:
    if os.path.exists(path) and os.path.getsize(path) > LOG_MAX:
        os.replace(path, f"{path}.1")
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)


def _write_error(writer: int, error: BotdError, *, log: bool) -> None:
    try:
        os.write(writer, _words(error).encode("utf-8", "replace"))
    except OSError:
        pass  # nobody waits any more, or they were told "ok" and the log has the rest
    if log:
        sys.stderr.write(_words(error))


def _tell_service_manager() -> None:
    """sd_notify: READY=1, where systemd waits for it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.sendto(b"READY=1\n", address.replace("@", "\0", 1) if address[0] == "@" else address)
        except OSError as error:
            sys.stderr.write(f"botd: the service manager could not be told: {error}\n")


def _words(error: BotdError) -> str:
    hint = f"  try: {error.hint}\n" if error.hint else ""
    return f"botd: {error.message}\n{hint}"


def _say(error: BotdError) -> int:
    sys.stderr.write(_words(error))
    return error.exit


if __name__ == "__main__":
    sys.exit(main())
