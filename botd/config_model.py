"""The rules of bot_config.json: its keys, bounds and defaults, as a pydantic model.

Imported only by the short-lived child that checks a file or prints the schema (see `config.py`).
Every problem of a file is found at once, each with its path, the reason and, for an unknown key, the
nearest known one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict
from pydantic_core import ErrorDetails

from botd import config, config_file
from botd.config_file import SHOWN_MAX, Problem, place
from botd.contract.errors import nearest
from botd.core.settings import Settings

HOUR = 3_600_000
DAY = 24 * HOUR
YEAR = 365 * DAY

AT_ONCE = "at once"
NEXT_LIFE = "with the bot's next start"
NEXT_END = "with the next end of a bot"
AT_START = "when botd starts"
RESERVED = "reserved"


def _key(default: Any, about: str, *, applies: str, unit: str = "", **bounds: Any) -> Any:
    """`applies` says when a changed value takes effect after a reload."""
    extra: JsonDict = {"x-unit": unit, "x-applies": applies}
    return Field(default, description=about, json_schema_extra=extra, **bounds)


def _ms(default: int, about: str, *, applies: str, low: int, high: int) -> Any:
    return _key(default, about, applies=applies, unit="ms", ge=low, le=high)


def _never_or_a_second(value: int) -> int:
    if 0 < value < 1000:
        raise ValueError(f"must be 0 (never by itself) or at least 1000, not {value}")
    return value


Interval = Annotated[int, AfterValidator(_never_or_a_second)]
Port = Annotated[int, Field(ge=1024, le=65535)]


class Block(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, alias_generator=to_camel)


class ResourceManagement(Block):
    max_bots_per_user: int = _key(50, "bots that one user may have", applies=AT_ONCE, ge=1, le=100_000)
    max_total_bots: int | None = _key(200, "bots in all; null: no limit", applies=AT_ONCE, ge=1, le=1_000_000)
    max_memory_per_bot: int = _key(
        512,
        "memory of a bot (all its processes) that names no limit of its own; over it the bot is restarted",
        applies=AT_ONCE, unit="MiB", ge=1, le=1_048_576,
    )  # fmt: skip
    max_swap_per_bot: int | None = _key(
        0,
        "swap that a bot may use beside its memory, where the kernel can enforce it; null: no limit",
        applies=AT_ONCE, unit="MiB", ge=0, le=1_048_576,
    )  # fmt: skip
    max_processes_per_bot: int | None = _key(
        512,
        "processes and threads of a bot that names no limit of its own; null: no limit",
        applies=AT_ONCE, ge=1, le=4_194_304,
    )  # fmt: skip
    max_cpu_per_bot: float | None = _key(
        None,
        "processors that a bot without a limit of its own may keep busy, where the kernel can enforce it; "
        "null: no limit",
        applies=AT_ONCE, unit="cores", ge=0.01, le=1024,
    )  # fmt: skip
    memory_threshold: float = _key(
        80,
        "share of the machine's memory in use from which starts are refused, and bots that outgrow theirs relieved",
        applies=AT_ONCE, unit="%", ge=1, le=100,
    )  # fmt: skip
    max_storage_per_user: int = _key(
        1024,
        "what a user's bots may keep on disk, logs included; over it starts and new bots are refused, and the bot that "
        "writes on is stopped",
        applies=AT_ONCE, unit="MiB", ge=1, le=1_073_741_824,
    )  # fmt: skip
    cleanup_interval: Interval = _ms(
        300_000,
        "how often stale sockets, dead locks, half-written files and rotated logs beyond those kept are removed; "
        "0: never by itself, else at least 1000",
        applies=AT_ONCE, low=0, high=YEAR,
    )  # fmt: skip
    health_check_interval: int = _ms(
        30_000, "how often a bot is probed that names no interval of its own", applies=AT_ONCE, low=100, high=DAY
    )
    auto_restart_max_attempts: int = _key(
        10, "restarts in a row after which a bot is failed; 0: none", applies=NEXT_END, ge=0, le=1_000_000
    )
    port_range: list[Port] = _key(
        [21000, 29999],
        "first and last loopback port given to bots that ask for one; ports already given stay",
        applies=AT_ONCE, min_length=2, max_length=2,
    )  # fmt: skip

    @field_validator("port_range")
    @classmethod
    def _ordered(cls, value: list[int]) -> list[int]:
        if value[0] > value[1]:
            raise ValueError(f"the first port ({value[0]}) is above the last ({value[1]})")
        return value


class StorageOptimization(Block):
    use_symbolic_links: bool = _key(True, "share a template's code by links instead of copies", applies=NEXT_LIFE)
    enable_garbage_collection: bool = _key(
        True,
        "remove what no bot uses any more: folders of bots that are gone, deleted bots over their age, unused releases",
        applies=AT_ONCE,
    )
    cleanup_interval: Interval = _ms(
        600_000,
        "how often what no bot uses any more is removed; 0: never by itself, else at least 1000",
        applies=AT_ONCE, low=0, high=YEAR,
    )  # fmt: skip
    max_file_age: int = _ms(
        DAY, "age from which an orphaned file may be removed", applies=AT_ONCE, low=60_000, high=10 * YEAR
    )
    delete_grace: int = _ms(
        7 * DAY,
        "how long a deleted bot is kept with its data, so that undelete brings it back; 0: it goes at once",
        applies="with the next deletion", low=0, high=10 * YEAR,
    )  # fmt: skip


class BotRecovery(Block):
    auto_restart: bool = _key(True, "start a bot again that ended by itself", applies=NEXT_END)
    restart_delay: int = _ms(
        250, "wait before the first restart of a row; at most maxBackoffDelay", applies=NEXT_END, low=0, high=DAY
    )
    exponential_backoff: bool = _key(True, "double the wait with each restart of a row", applies=NEXT_END)
    # The default is checked too: a longer restartDelay alone must be told that the cap is in its way.
    max_backoff_delay: int = _key(
        30_000,
        "the longest wait between two restarts",
        applies=NEXT_END, unit="ms", ge=0, le=DAY, validate_default=True,
    )  # fmt: skip
    backoff_reset_after: int = _ms(
        60_000, "a bot that has run this long starts its next row from zero", applies=NEXT_END, low=1, high=YEAR
    )
    health_check_enabled: bool = _key(True, "probe bots that have a probe", applies=AT_ONCE)
    settle_time: int = _ms(
        1000, "a bot without a probe that has run this long is healthy", applies=NEXT_LIFE, low=0, high=HOUR
    )

    @field_validator("max_backoff_delay")
    @classmethod
    def _above_the_first(cls, value: int, info: ValidationInfo) -> int:
        first = info.data.get("restart_delay")  # absent: a problem of its own
        if first is not None and value < first:
            raise ValueError(f"must be at least restartDelay ({first}), not {value}")
        return value


class MonitoringBlock(Block):
    enable_resource_monitoring: bool = _key(True, "watch each bot's memory and CPU", applies=AT_ONCE)
    enable_performance_tracking: bool = _key(True, "keep latencies and rates of the daemon", applies=RESERVED)
    metrics_collection: bool = _key(True, "keep a history of samples", applies=RESERVED)
    sample_interval: int = _ms(5000, "how often memory and CPU are read", applies=AT_ONCE, low=100, high=HOUR)
    log_level: Literal["debug", "info", "warning", "error"] = _key(
        "info", "the least serious message that botd's own log keeps", applies=AT_ONCE
    )


class SecurityBlock(Block):
    socket_access: str = _key(
        "owner",
        "who may connect: owner (0600), group:NAME (0660) or everyone; what they may do is decided by who they are",
        applies=AT_ONCE, pattern=r"^(owner|everyone|group:[A-Za-z_][A-Za-z0-9_.-]{0,31})$",
    )  # fmt: skip
    isolation: Literal["none"] = _key(
        "none", "whether each user's bots run under a user id of their own; this version knows only none",
        applies=AT_START,
    )  # fmt: skip
    rate_limit_enabled: bool = _key(True, "limit how often a user may call", applies=RESERVED)
    max_requests_per_minute: int = _key(
        100, "calls of one user a minute; administrators are not limited", applies=RESERVED, ge=1, le=1_000_000
    )
    session_timeout: int = _ms(30 * DAY, "how long a session lasts", applies=RESERVED, low=60_000, high=10 * YEAR)
    enable_audit_log: bool = _key(True, "record who changed what", applies=RESERVED)


class OutputBlock(Block):
    max_log_size: int = _key(
        10, "size at which a bot's log is rotated, at a newline", applies=AT_ONCE, unit="MiB", ge=1, le=102_400
    )
    keep_logs: int = _key(5, "rotated logs kept beside the current one", applies=AT_ONCE, ge=0, le=1000)
    compress: bool = _key(True, "compress rotated logs, all but the newest", applies=AT_ONCE)
    rotate_after: int | None = _key(
        None,
        "age at which a log is rotated although it is small; null: by size only",
        applies=AT_ONCE, unit="ms", ge=60_000, le=10 * YEAR,
    )  # fmt: skip
    max_age: int | None = _key(
        None,
        "age at which a rotated log is removed; null: none is for its age",
        applies=AT_ONCE, unit="ms", ge=60_000, le=10 * YEAR,
    )  # fmt: skip
    max_per_bot: int | None = _key(
        None,
        "logs of one bot on disk, above which its oldest rotated ones are removed; null: no limit",
        applies=AT_ONCE, unit="MiB", ge=1, le=1_073_741_824,
    )  # fmt: skip
    max_per_user: int | None = _key(
        None,
        "logs of all bots of one user on disk, above which the oldest rotated ones are removed; null: no limit",
        applies=AT_ONCE, unit="MiB", ge=1, le=1_073_741_824,
    )  # fmt: skip


class BotConfig(Block):
    """Every key may be left out; its default holds then."""

    model_config = ConfigDict(title="bot_config.json")

    resource_management: ResourceManagement = Field(default_factory=ResourceManagement)
    storage_optimization: StorageOptimization = Field(default_factory=StorageOptimization)
    bot_recovery: BotRecovery = Field(default_factory=BotRecovery)
    monitoring: MonitoringBlock = Field(default_factory=MonitoringBlock)
    security: SecurityBlock = Field(default_factory=SecurityBlock)
    output: OutputBlock = Field(default_factory=OutputBlock)


def load(path: str) -> Settings:
    """The settings of the file at `path`. Raises BotdError(invalid, exit 9) with every problem at once."""
    return parse(config_file.read(path), path)


def parse(data: bytes, name: str) -> Settings:
    """The settings that these bytes mean; `name` is what errors call the file. Raises as `load` does."""
    document, problems = config_file.parse(data, name)
    try:
        model = BotConfig.model_validate(document)
    except ValidationError as error:
        # Finding the nearest word takes a while: only for what will be read.
        found = error.errors(include_url=False)
        problems += [_problem(one) for one in found[:SHOWN_MAX]]
        problems += [Problem(place(one["loc"]), one["msg"]) for one in found[SHOWN_MAX:]]
    if problems:
        raise config_file.refused(name, problems)
    return config.settings_from_json(model.model_dump(by_alias=True))


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the file. Beside the standard words: x-unit, and x-applies (when a change takes effect)."""
    schema = BotConfig.model_json_schema()
    for block in schema["$defs"].values():
        del block["title"]
        for key in block["properties"].values():
            del key["title"]  # the name again, in worse spelling
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


# --- pydantic's errors in our words ---------------------------------------------------------------


def _problem(error: ErrorDetails) -> Problem:
    kind, context, given = error["type"], error.get("ctx", {}), _shown(error["input"])
    if kind == "extra_forbidden":
        return Problem(place(error["loc"]), "unknown key", _where_instead(error["loc"]))
    # A default that is wrong is told by its Python name.
    path = place(to_camel(part) if isinstance(part, str) else part for part in error["loc"])
    match kind:
        case "greater_than_equal":
            return Problem(path, f"must be at least {_bound(context['ge'])}, not {given}")
        case "less_than_equal":
            return Problem(path, f"must be at most {_bound(context['le'])}, not {given}")
        case "literal_error":
            expected = context["expected"].replace("'", '"')
            return Problem(path, f"must be {expected}, not {given}", _nearest_word(error))
        case "string_pattern_mismatch":
            return Problem(path, f'must be "owner", "group:NAME" or "everyone", not {given}')
        case "too_short" | "too_long":
            return Problem(path, "must be a pair: [FIRST, LAST]")
        case "value_error":
            return Problem(path, str(context["error"]))
    return Problem(path, f"must be {_TYPES.get(kind, 'another value')}, not {given}")


_TYPES = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a string",
    "list_type": "a list",
    "model_type": "an object",
}


def _blocks() -> dict[str, list[str]]:
    return {block: list(keys) for block, keys in config.effective(Settings()).items()}


def _where_instead(location: tuple[int | str, ...]) -> str:
    """The key that was probably meant: the same word in another block, or the nearest one in this."""
    blocks, word = _blocks(), str(location[-1])
    if len(word) > 80:
        return ""
    homes = [block for block, keys in blocks.items() if word in keys]
    if homes:
        return f"it belongs in {' or '.join(homes)}"
    known: Iterable[str] = blocks if len(location) == 1 else blocks[str(location[0])]
    near = nearest(word, known)
    if near:
        return f"did you mean {near}?"
    return f"known: {', '.join(known)}"


def _nearest_word(error: ErrorDetails) -> str:
    words = error.get("ctx", {})["expected"].replace("'", "").replace(" or ", ", ").split(", ")
    near = nearest(error["input"][:80], words) if isinstance(error["input"], str) else None
    return f"did you mean {near}?" if near else ""


def _bound(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
