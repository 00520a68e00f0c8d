"""Where everything is: one private fleet per BOTD_HOME, nothing outside it read or written."""

from __future__ import annotations

import os

from botd.contract.errors import BotdError
from botd.contract.vocabulary import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# sockaddr_un holds 108 bytes, the last one a zero.
SOCKET_PATH_MAX = 107


class Paths:
    """Every path of one fleet, derived from its home. Building one touches no disk."""

    __slots__ = ("home", "socket")

    def __init__(self, home: str, socket: str | None = None) -> None:
        self.home = home
        self.socket = socket or f"{home}/run/botd.sock"

    @property
    def run(self) -> str:
        return f"{self.home}/run"

    @property
    def database(self) -> str:
        return f"{self.home}/botd.db"

    @property
    def daemon_lock(self) -> str:
        return f"{self.home}/run/botd.lock"

    @property
    def daemon_log(self) -> str:
        return f"{self.home}/run/botd.log"

    @property
    def keeper_socket(self) -> str:
        return f"{self.home}/run/keeper.sock"

    @property
    def locks(self) -> str:
        return f"{self.home}/locks"

    @property
    def bots(self) -> str:
        return f"{self.home}/bots"

    @property
    def logs(self) -> str:
        return f"{self.home}/logs"

    @property
    def templates(self) -> str:
        return f"{self.home}/templates"

    @property
    def objects(self) -> str:
        """What the releases of all templates share, one hard link per distinct content."""
        return f"{self.templates}/.objects"

    @property
    def staging(self) -> str:
        """Releases being made or removed."""
        return f"{self.templates}/.staging"

    def releases(self, template: str) -> str:
        return f"{self.templates}/{template}/releases"

    def release(self, template: str, hash: str) -> str:
        """The folder of one release; its code is `tree/` in it."""
        return f"{self.releases(template)}/{hash}"

    @property
    def config(self) -> str:
        return f"{self.home}/bot_config.json"

    def bot(self, bot_id: str) -> str:
        """The folder of one bot; its private data is `data/` in it."""
        return f"{self.bots}/{bot_id}"

    def bot_app(self, bot_id: str) -> str:
        """The working folder of a bot that is made from a template."""
        return f"{self.bots}/{bot_id}/app"

    def bot_data(self, bot_id: str) -> str:
        return f"{self.bots}/{bot_id}/data"

    def bot_logs(self, bot_id: str) -> str:
        return f"{self.logs}/{bot_id}"

    def bot_lock(self, bot_id: str) -> str:
        # '+' is in no user's and no bot's name: one flat, unambiguous folder.
        return f"{self.locks}/{bot_id.replace('/', '+')}.lock"

    def check_socket(self) -> None:
        """Refuse a socket path that the kernel could not hold, before anything is created."""
        for path in (self.socket, self.keeper_socket):
            length = len(os.fsencode(path))
            if length > SOCKET_PATH_MAX:
                raise BotdError(
                    "invalid",
                    f"the socket path is too long: {length} bytes, at most {SOCKET_PATH_MAX}: {path}",
                    hint="set BOTD_HOME to a shorter path, for example BOTD_HOME=/tmp/botd",
                    exit=Exit.USAGE,
                )


def resolve(environ: Mapping[str, str], uid: int) -> Paths:
    """The fleet that this environment means: BOTD_HOME and BOTD_SOCKET, else the defaults of `uid`.

    Raises BotdError when no absolute home can be told.
    """
    home = environ.get("BOTD_HOME")
    if home:
        home = os.path.abspath(home)
    elif uid == 0:
        home = "/var/lib/botd"
    else:
        state = environ.get("XDG_STATE_HOME")
        if not state or not state.startswith("/"):
            base = environ.get("HOME") or _home_of(uid)
            state = f"{base}/.local/state"
        home = f"{state}/botd"
    socket = environ.get("BOTD_SOCKET")
    return Paths(home.rstrip("/") or "/", os.path.abspath(socket) if socket else None)


def _home_of(uid: int) -> str:
    """cron and systemd may start us without HOME; the password database knows it."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        raise BotdError(
            "invalid",
            f"no home directory is known for uid {uid} and HOME is not set",
            hint="set BOTD_HOME to the folder of the fleet",
        ) from None


def config_candidates(environ: Mapping[str, str], paths: Paths, option: str | None) -> tuple[str, bool]:
    """The configuration file to read and whether it must exist (it was named by somebody)."""
    if option:
        return os.path.abspath(option), True
    named = environ.get("BOTD_CONFIG")
    if named:
        return os.path.abspath(named), True
    if os.path.exists(paths.config) or environ.get("BOTD_HOME"):
        # A private fleet reads nothing outside its own home.
        return paths.config, False
    if os.path.exists("/etc/botd/bot_config.json"):
        return "/etc/botd/bot_config.json", False
    return paths.config, False
