"""Bots for the tests of the state: fixed ones, and every one that hypothesis can think of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from botd.contract.vocabulary import PHASES, RESTART_MODES, STOP_SIGNALS
from botd.core.bot import BotState, Deadline, Exit, Probe, Recovery, Spec, Then
from botd.state.store import StoredBot

# On a busy machine an example may take any time: none of these tests is about that.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])

RUNNING = BotState(
    phase="running",
    wanted=True,
    generation=7,
    pid=4242,
    since=1234.5,
    started_at=1234.25,
    settled=True,
    health="healthy",
    health_note="200 OK",
    attempts=2,
    restarts=5,
    deadline=Deadline("reset", 1300.0),
    last_exit=Exit(3, None, 1_700_000_000.5, 12.5),
    recovery=Recovery(5, 4, 1, 9.5, 4.25),
)


def bot(bot_id: str = "alice/shop", state: BotState = RUNNING, **more: Any) -> StoredBot:
    kept = {key: more.pop(key) for key in ("port", "source", "boot_id", "created_at_wall") if key in more}
    spec = Spec(bot_id, ("python3", "bot.py"), "/srv/shop", env={"PREFIX": "!"}, labels={"tier": "free"}, **more)
    return StoredBot(spec, state, **{"created_at_wall": 1_699_999_999.25, "boot_id": "boot-1", **kept})


def with_secrets(stored: StoredBot, *names: str) -> StoredBot:
    return replace(stored, spec=replace(stored.spec, secret_names=names))


seconds = st.floats(0, 1e9)
texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=()), max_size=40)
names = st.from_regex(r"\A[A-Z_][A-Z0-9_]{0,8}\Z")
ids = st.from_regex(r"\A[a-z0-9][a-z0-9._-]{0,31}/[a-z0-9][a-z0-9._-]{0,62}\Z")
tables = st.dictionaries(names, texts, max_size=4)
counts = st.integers(0, 2**53)

probes = st.builds(
    Probe,
    kind=st.sampled_from(["http", "tcp"]),
    url=st.none() | texts,
    port=st.none() | st.integers(1, 65535),
    interval_s=seconds,
    timeout_s=seconds,
    failures=counts,
    start_grace_s=seconds,
)
specs = st.builds(
    Spec,
    id=ids,
    command=st.lists(texts, min_size=1, max_size=4).map(tuple),
    directory=texts,
    env=tables,
    secret_names=st.lists(names, unique=True, max_size=3).map(sorted).map(tuple),
    labels=tables,
    memory_bytes=st.none() | st.integers(1, 1 << 20).map(lambda mib: mib << 20),
    processes=st.none() | st.integers(1, 1 << 22),
    cpu=st.none() | st.floats(0.01, 1024),
    restart=st.sampled_from(RESTART_MODES),
    stop_signal=st.sampled_from(STOP_SIGNALS),
    stop_grace_s=seconds,
    wants_port=st.booleans(),
    probe=st.none() | probes,
    template=st.none() | st.just("messenger"),
    release=st.none() | st.just("0123abcd"),
    own=st.none() | st.fixed_dictionaries({}, optional={"env": tables, "memory_mb": st.integers(1, 99)}),
)
exits = st.builds(
    Exit,
    code=st.none() | st.integers(0, 255),
    signal=st.none() | st.integers(1, 64),
    at_wall=seconds,
    ran_s=seconds,
    cause=texts,
    note=texts,
    forks_refused=counts,
)
states = st.builds(
    BotState,
    phase=st.sampled_from(PHASES),
    wanted=st.booleans(),
    generation=counts,
    pid=st.none() | counts,
    since=seconds,
    started_at=st.none() | seconds,
    settled=st.booleans(),
    health=st.sampled_from(["unknown", "healthy", "unhealthy"]),
    health_note=texts,
    attempts=counts,
    restarts=counts,
    recovering=st.booleans(),
    then=st.sampled_from(get_args(Then)),
    cause=texts,
    deadline=st.none() | st.builds(Deadline, st.sampled_from(["retry", "settle", "reset", "kill"]), seconds),
    reason=texts,
    last_exit=st.none() | exits,
    outage_at=st.none() | seconds,
    recovery=st.builds(Recovery, counts, counts, counts, seconds, seconds),
)
