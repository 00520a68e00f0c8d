"""What a bot finds in its environment: an allow-list and its own things, never the daemon's inherited whole."""

from __future__ import annotations

from collections.abc import Mapping

from botd.core.bot import Spec

ALLOWED = ("PATH", "LANG", "LC_ALL", "TZ")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def build(
    spec: Spec, *, daemon: Mapping[str, str], secrets: Mapping[str, str], data: str, port: int | None
) -> dict[str, str]:
    """`daemon` is botd's own environment, `data` the bot's private folder (also its HOME).

    What the specification sets wins over the allow-list; BOT_* and PORT are botd's word.
    """
    env = {name: daemon[name] for name in ALLOWED if name in daemon}
    env.setdefault("PATH", DEFAULT_PATH)
    env["HOME"] = data
    env.update(spec.env)
    env.update(secrets)
    env["BOT_ID"] = spec.id
    env["BOT_USER"] = spec.user
    env["BOT_NAME"] = spec.name
    env["BOT_DATA"] = data
    if port is not None:
        env["PORT"] = str(port)
    return env
