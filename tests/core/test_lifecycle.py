"""The life of a bot as dialogues: what happened goes in, what we want done comes out."""

from dataclasses import fields, replace

import pytest

from botd.contract.vocabulary import PHASES
from botd.core import recovery
from botd.core.bot import BotState, Deadline, Exit
from botd.core.effects import Acknowledge, Remove, Spawn, Terminate
from botd.core.events import (
    EVENTS,
    OF_A_LIFE,
    Adopted,
    Condemned,
    DeadlinePassed,
    DeleteRequested,
    Exited,
    HealthReported,
    Rebooted,
    RestartRequested,
    Running,
    Spawned,
    SpawnFailed,
    SpawnRefused,
    StartRequested,
    StopRequested,
)
from botd.core.lifecycle import KILL_MARGIN_S, TABLE, IllegalEvent, Rules
from botd.core.restart import REFUSED_RETRY_S

from .dialogue import POLICY, Dialogue, words

TERM = [Terminate(1, "SIGTERM", 10.0)]


# --- every cell -----------------------------------------------------------------------------------

# phase after, `stopping>` with what follows, then the effects; `=` the very same state, `!` illegal.
CELLS = """
                 | stopped         | starting                  | running                   | stopping              | backoff         | failed
StartRequested   | starting spawn2 | =                         | =                         | stopping>restart      | starting spawn2 | starting spawn2
StopRequested    | =               | stopping>stop term1/10    | stopping>stop term1/10    | =                     | stopped         | stopped
RestartRequested | starting spawn2 | stopping>restart term1/10 | stopping>restart term1/10 | stopping>restart      | starting spawn2 | starting spawn2
DeleteRequested  | = remove        | stopping>delete term1/10  | stopping>delete term1/10  | stopping>delete       | stopped remove  | stopped remove
Spawned          | !               | starting                  | !                         | stopping>stop         | !               | !
Running          | !               | running                   | !                         | stopping>stop         | !               | !
SpawnFailed      | = ack1          | backoff ack1              | !                         | stopped ack1          | = ack1          | = ack1
SpawnRefused     | !               | backoff                   | !                         | stopped               | !               | !
Adopted          | stopping>stop term2/10 | running            | running                   | stopping>stop term2/10 | running        | running
Exited           | = ack1          | backoff ack1              | backoff ack1              | stopped ack1          | = ack1          | = ack1
DeadlinePassed   | !               | !                         | running                   | stopping>stop kill1/0 | starting spawn2 | !
Condemned        | =               | =                         | stopping>retry term1/10   | =                     | =               | =
HealthReported   | =               | =                         | running                   | =                     | =               | =
Rebooted         | stopped         | backoff                   | backoff                   | stopped               | backoff         | backoff
"""  # noqa: E501 - a table is read across

EXAMPLES = {
    StartRequested: StartRequested(),
    StopRequested: StopRequested(),
    RestartRequested: RestartRequested(),
    DeleteRequested: DeleteRequested(),
    Spawned: Spawned(1, 77),
    Running: Running(1),
    SpawnFailed: SpawnFailed(1, "out of memory", permanent=False),
    SpawnRefused: SpawnRefused(1, "its lock is held"),
    Adopted: Adopted(2, 88, 900.0),
    Exited: Exited(1, Exit(3, None, at_wall=1.0, ran_s=1.0)),
    Condemned: Condemned(1, "memory", "too big"),
    HealthReported: HealthReported(1, healthy=True),
    Rebooted: Rebooted(),
}


def test_a_life_that_the_record_does_not_know_yet_is_taken_over():
    d = Dialogue().come_up().crash()
    d.say(Adopted(7, 88, d.now - 50.0))
    assert (d.state.phase, d.state.generation, d.state.pid) == ("running", 7, 88)
    assert d.state.started_at == d.now - 50.0
    d.pass_time()
    assert (d.state.settled, d.state.health) == (True, "healthy")
    assert d.exit(generation=7) == [Acknowledge(7)]


def test_a_life_that_is_to_be_deleted_is_taken_over_only_to_end():
    d = in_phase("running")
    d.say(DeleteRequested())
    assert d.say(Adopted(5, 88, d.now)) == [Terminate(5, "SIGTERM", 10.0)]
    assert d.exit(0, generation=5) == [Acknowledge(5), Remove()]


def test_a_life_is_not_adopted_in_place_of_a_later_one():
    d = in_phase("running")
    with pytest.raises(IllegalEvent, match="is not later than ours"):
        d.say(Adopted(1, 88, d.now))


def test_generations_that_the_keeper_has_seen_are_passed_over():
    d = in_phase("starting")
    d.say(SpawnRefused(1, "generation 1 was used already", spent=9))
    assert d.pass_time() == [Spawn(10)]


def in_phase(phase, **how):
    """A bot whose first life brought it into this phase."""
    d = Dialogue(**how)
    match phase:
        case "stopped":
            d.come_up()
            d.say(StopRequested())
            d.exit(0)
        case "starting":
            d.say(StartRequested())
        case "running":
            d.come_up()
        case "stopping":
            d.come_up()
            d.say(StopRequested())
        case "backoff":
            d.come_up().crash()
        case "failed":
            d.say(StartRequested())
            d.say(SpawnFailed(1, "no such file", permanent=True))
    assert (d.state.phase, d.state.generation) == (phase, 1)
    return d


def expected():
    head, *rows = [[cell.strip() for cell in line.split("|")] for line in CELLS.strip("\n").splitlines()]
    for name, *cells in rows:
        yield from ((phase, name, cell) for phase, cell in zip(head[1:], cells, strict=True))


def test_the_expectations_have_every_pair():
    names = {event.__name__: event for event in EVENTS}
    assert {(phase, names[name]) for phase, name, _ in expected()} == set(TABLE)
    assert len(TABLE) == len(PHASES) * len(EVENTS)


@pytest.mark.parametrize("phase,name,cell", list(expected()))
def test_every_cell(phase, name, cell):
    d = in_phase(phase)
    d.now += 100.0
    if name == "DeadlinePassed":
        if d.state.deadline is None:  # the only way that time could come to such a phase
            d.changed(deadline=Deadline("retry", d.now))
        event = DeadlinePassed(d.state.deadline)
    else:
        event = next(example for kind, example in EXAMPLES.items() if kind.__name__ == name)
    before = d.state
    if cell == "!":
        with pytest.raises(IllegalEvent, match=f"{name} cannot happen while {phase}"):
            d.say(event)
        assert d.state is before
        return
    effects = d.say(event)
    after = "=" if d.state is before or d.state == before else d.state.phase
    if after == "stopping":
        after += f">{d.state.then}"
    assert " ".join([after, *words(effects)]) == cell


# --- up and down by request -----------------------------------------------------------------------


def test_a_life_from_start_to_stop():
    d = Dialogue()
    assert d.say(StartRequested()) == [Spawn(1)]
    assert (d.state.phase, d.state.wanted, d.state.pid, d.state.deadline) == ("starting", True, None, None)
    assert d.say(Spawned(1, 4711)) == []
    assert (d.state.phase, d.state.pid) == ("starting", 4711)
    d.now += 0.1
    assert d.say(Running(1)) == []
    assert (d.state.phase, d.state.started_at, d.state.settled) == ("running", d.now, False)
    assert d.last_note() == ("started", "life 1 started, pid 4711")
    assert d.state.deadline.kind == "settle"
    assert 0.0 <= d.state.deadline.at - (d.now + POLICY.settle_s) < 0.1  # bots that started together settle together
    d.pass_time()
    assert (d.state.settled, d.state.health, d.state.deadline) == (True, "healthy", None)
    assert d.say(StopRequested("maintenance")) == TERM
    assert (d.state.phase, d.state.wanted, d.state.then) == ("stopping", False, "stop")
    assert d.state.deadline == Deadline("kill", d.now + 10.0 + KILL_MARGIN_S)
    assert d.exit(0) == [Acknowledge(1)]
    assert (d.state.phase, d.state.pid, d.state.deadline) == ("stopped", None, None)
    assert d.state.last_exit == Exit(0, None, at_wall=5.0, ran_s=0.5, cause="request")
    assert d.notes[-2:] == [("exited", "exited with code 0"), ("stopped", "maintenance")]
    assert d.state.restarts == d.state.attempts == 0
    assert d.state.recovery == recovery.Recovery()


def test_a_bot_is_asked_with_its_own_signal_and_grace():
    d = Dialogue(rules=Rules(stop_signal="SIGINT", stop_grace_s=0.5)).come_up()
    assert d.say(StopRequested()) == [Terminate(1, "SIGINT", 0.5)]
    assert d.state.deadline.at == d.now + 0.5 + KILL_MARGIN_S


def test_a_life_that_lingers_is_killed_again_and_again():
    d = Dialogue().come_up()
    d.say(StopRequested())
    for _ in range(3):
        assert d.pass_time() == [Terminate(1, "SIGKILL", 0.0)]
        assert d.state.deadline == Deadline("kill", d.now + KILL_MARGIN_S)
    assert d.exit(None, signal=9) == [Acknowledge(1)]
    assert (d.state.phase, d.state.last_exit.words()) == ("stopped", "killed by SIGKILL")


def test_a_restart_ends_the_life_and_begins_a_new_one():
    d = Dialogue().come_up()
    assert d.say(RestartRequested()) == TERM
    assert (d.state.wanted, d.state.then) == (True, "restart")
    assert d.exit(0) == [Acknowledge(1), Spawn(2)]
    assert (d.state.phase, d.state.generation) == ("starting", 2)
    assert (d.state.restarts, d.state.attempts, d.state.recovery.attempts) == (0, 0, 0)


def test_a_restart_of_a_life_on_its_way_replaces_it():
    d = in_phase("starting")
    assert d.say(RestartRequested()) == TERM
    d.say(Spawned(1, 9))
    d.say(Running(1))
    assert d.state.phase == "stopping"
    assert d.exit(0) == [Acknowledge(1), Spawn(2)]


def test_start_while_stopping_starts_again_when_the_life_has_ended():
    d = in_phase("stopping")
    assert d.say(StartRequested()) == []
    assert (d.state.phase, d.state.wanted, d.state.then) == ("stopping", True, "restart")
    assert d.exit(0) == [Acknowledge(1), Spawn(2)]


def test_the_last_word_while_stopping_counts():
    d = Dialogue().come_up()
    d.say(RestartRequested())
    assert d.say(StopRequested()) == []
    assert (d.state.wanted, d.state.then) == (False, "stop")
    assert d.exit(0) == [Acknowledge(1)]
    assert d.state.phase == "stopped"


def test_delete_ends_the_life_first():
    d = Dialogue().come_up()
    assert d.say(DeleteRequested()) == TERM
    assert d.exit(0) == [Acknowledge(1), Remove()]


def test_delete_cannot_be_taken_back_by_start_or_stop():
    d = Dialogue().come_up()
    d.say(DeleteRequested())
    for request in (StartRequested(), RestartRequested()):
        with pytest.raises(IllegalEvent, match="it is being deleted"):
            d.say(request)
    before = d.state
    d.say(StopRequested())
    assert d.state == before
    assert d.exit(0)[-1] == Remove()


def test_a_stop_of_a_spawn_in_flight_waits_for_it():
    d = Dialogue()
    d.say(StartRequested())
    assert d.say(StopRequested()) == TERM
    d.say(Spawned(1, 9))
    assert d.state.pid == 9
    d.say(Running(1))
    assert (d.state.phase, d.state.started_at) == ("stopping", d.now)
    assert d.exit(None, signal=15) == [Acknowledge(1)]
    assert d.state.phase == "stopped"


def test_a_spawn_that_fails_while_it_is_stopped_is_the_end_of_it():
    d = Dialogue()
    d.say(StartRequested())
    d.say(StopRequested())
    assert d.say(SpawnFailed(1, "no such file", permanent=True)) == [Acknowledge(1)]
    assert (d.state.phase, d.state.last_exit) == ("stopped", None)


def test_stopping_what_waits_or_failed_needs_nobody():
    for phase in ("backoff", "failed"):
        d = in_phase(phase)
        assert d.say(StopRequested("enough")) == []
        assert (d.state.phase, d.state.wanted, d.state.deadline, d.state.reason) == ("stopped", False, None, "enough")
        assert (d.state.attempts, d.state.outage_at) == (0, None)
        assert d.last_note() == ("stopped", "enough")


# --- by itself ------------------------------------------------------------------------------------


def test_a_crash_is_tried_again_after_growing_waits_and_given_up():
    d = Dialogue().come_up()
    for attempt, wait in enumerate((1.0, 2.0, 4.0), start=1):
        d.crash(code=3)
        assert (d.state.phase, d.state.attempts, d.state.restarts) == ("backoff", attempt, attempt - 1)
        assert d.state.deadline == Deadline("retry", d.now + wait)
        assert d.state.reason == f"exited with code 3; restart {attempt} of 3"
        assert d.notes[-2:] == [
            ("exited", "exited with code 3 after 500 ms"),
            ("backoff", f"exited with code 3; restart {attempt} of 3 in {wait:.1f} s"),
        ]
        d.retry()
        assert d.state.restarts == attempt
    assert d.exit(code=3) == [Acknowledge(4)]
    assert (d.state.phase, d.state.wanted, d.state.deadline) == ("failed", True, None)
    assert d.state.reason == "exited with code 3; gave up after 3 restarts in a row (autoRestartMaxAttempts)"
    assert d.last_note() == ("failed", d.state.reason)
    assert recovery.view(d.state.recovery)["success_rate"] == 0.0
    assert (d.state.recovery.attempts, d.state.recovery.failures) == (3, 3)


def test_chance_takes_from_the_wait():
    d = Dialogue().come_up()
    d.chance = 0.999
    d.crash()
    assert d.now + 0.75 <= d.state.deadline.at < d.now + 0.76


def test_a_life_that_ran_well_ends_the_row_of_failures():
    d = Dialogue().come_up().crash().retry().crash().retry()
    assert d.state.attempts == 2
    assert d.state.deadline.kind == "settle"
    started = d.state.started_at
    d.pass_time()
    assert d.state.deadline == Deadline("reset", started + POLICY.reset_after_s)
    d.pass_time()
    assert (d.state.attempts, d.state.deadline) == (0, None)
    d.crash()
    assert d.state.attempts == 1
    assert d.state.restarts == 2


def test_a_life_that_ran_long_enough_counts_as_one_even_when_time_was_not_told():
    d = Dialogue().come_up().crash().retry().crash().retry()
    d.crash(ran=60.0)
    assert (d.state.phase, d.state.attempts) == ("backoff", 1)


def test_an_immediate_restart_needs_no_detour():
    d = Dialogue(policy=replace(POLICY, delay_s=0.0)).come_up()
    assert d.exit() == [Acknowledge(1), Spawn(2)]
    assert (d.state.phase, d.state.attempts, d.state.restarts, d.state.recovering) == ("starting", 1, 1, True)


def test_an_immediate_restart_waits_where_starts_are_refused():
    d = Dialogue(policy=replace(POLICY, delay_s=0.0)).come_up()
    d.refusal = "memory is short"
    assert d.exit() == [Acknowledge(1)]
    assert (d.state.phase, d.state.deadline) == ("backoff", Deadline("retry", d.now))


@pytest.mark.parametrize(
    "mode,code,phase",
    [
        ("always", 0, "backoff"),
        ("on-failure", 0, "stopped"),
        ("never", 0, "stopped"),
        ("always", 1, "backoff"),
        ("on-failure", 1, "backoff"),
        ("never", 1, "failed"),
        ("on-failure", None, "backoff"),
        ("never", None, "failed"),
    ],
)
def test_the_restart_mode_decides(mode, code, phase):
    d = Dialogue(rules=Rules(restart=mode)).come_up()
    d.say(Exited(1, Exit(code, None, at_wall=0.0)))
    assert d.state.phase == phase
    assert d.state.wanted == (phase != "stopped")
    assert d.state.reason
    if code is None:
        assert "ended with an unknown status" in d.state.reason


def test_a_program_that_cannot_be_executed_is_not_tried_again():
    d = Dialogue()
    d.say(StartRequested())
    assert d.say(SpawnFailed(1, "exec 'nope': No such file or directory", permanent=True)) == [Acknowledge(1)]
    assert (d.state.phase, d.state.wanted) == ("failed", True)
    assert d.state.reason == "cannot start: exec 'nope': No such file or directory"


def test_a_start_that_failed_for_now_is_tried_again_and_counted():
    d = Dialogue()
    d.say(StartRequested())
    assert d.say(SpawnFailed(1, "fork: try again", permanent=False)) == [Acknowledge(1)]
    assert (d.state.phase, d.state.attempts) == ("backoff", 1)
    assert d.state.deadline == Deadline("retry", d.now + 1.0)
    assert d.pass_time() == [Spawn(2)]


def test_a_refused_start_is_tried_again_uncounted():
    d = Dialogue()
    d.say(StartRequested())
    assert d.say(SpawnRefused(1, "its lock is held")) == []
    assert (d.state.phase, d.state.attempts, d.state.restarts) == ("backoff", 0, 0)
    assert d.state.deadline == Deadline("retry", d.now + REFUSED_RETRY_S)
    assert d.state.reason == "waiting to start: its lock is held"
    assert d.pass_time() == [Spawn(2)]
    assert (d.state.restarts, d.state.recovery.attempts) == (0, 0)


def test_a_refused_restart_is_one_restart_and_one_attempt_however_often_it_is_refused():
    d = Dialogue().come_up().crash()
    assert d.pass_time() == [Spawn(2)]
    for generation in (2, 3, 4):
        d.say(SpawnRefused(generation, "its lock is held"))
        assert d.pass_time() == [Spawn(generation + 1)]
    d.run()
    assert (d.state.restarts, d.state.attempts, d.state.recovery.attempts) == (1, 1, 1)
    d.pass_time()
    assert (d.state.recovery.successes, d.state.recovering) == (1, False)


def test_a_retry_waits_while_starts_are_refused_and_says_so_once():
    d = Dialogue().come_up().crash()
    noted = len(d.notes)
    for percent in (91, 92, 93):
        d.refusal = f"{percent} % of the memory is in use"
        assert d.pass_time() == []
        assert (d.state.phase, d.state.deadline) == ("backoff", Deadline("retry", d.now + REFUSED_RETRY_S))
        assert d.state.reason == f"waiting to start: {percent} % of the memory is in use"
    assert d.notes[noted:] == [("refused", "waiting to start: 91 % of the memory is in use")]
    d.refusal = None
    assert d.pass_time() == [Spawn(2)]
    assert d.state.restarts == 1


def test_a_request_forgets_the_row_of_failures():
    for request in (StartRequested(), RestartRequested(), StartRequested(recover=True)):
        d = Dialogue().come_up().crash().retry().crash()
        assert d.state.attempts == 2
        assert d.say(request) == [Spawn(3)]
        assert (d.state.attempts, d.state.restarts) == (0, 1)


# --- lives that must end --------------------------------------------------------------------------


def test_a_life_condemned_for_its_memory_starts_again_by_the_policy():
    d = Dialogue().come_up()
    assert d.say(Condemned(1, "memory", "memory 600 MiB over its limit of 512 MiB")) == TERM
    assert (d.state.phase, d.state.wanted, d.state.then) == ("stopping", True, "retry")
    assert d.last_note() == ("condemned", "memory 600 MiB over its limit of 512 MiB")
    assert d.exit(0) == [Acknowledge(1)]
    assert (d.state.phase, d.state.attempts, d.state.last_exit.cause) == ("backoff", 1, "memory")
    assert d.state.reason == "memory 600 MiB over its limit of 512 MiB; restart 1 of 3"
    assert d.notes[-2][1] == "ended for its memory"
    assert d.pass_time() == [Spawn(2)]
    assert d.state.cause == ""


def test_a_clean_exit_of_a_condemned_life_is_still_a_failure():
    d = Dialogue(rules=Rules(restart="on-failure")).come_up()
    d.say(Condemned(1, "unhealthy", "3 probes failed"))
    d.exit(0)
    assert d.state.phase == "backoff"


def test_a_life_condemned_for_a_quota_stays_down():
    d = Dialogue().come_up()
    d.say(Condemned(1, "quota", "the disk quota is used up"))
    assert (d.state.wanted, d.state.then) == (False, "stop")
    d.exit(0)
    assert (d.state.phase, d.state.reason) == ("stopped", "the disk quota is used up")


def test_condemned_lives_fail_in_the_end_like_crashing_ones():
    d = Dialogue(policy=replace(POLICY, max_attempts=1)).come_up()
    d.say(Condemned(1, "memory", "too big"))
    d.exit(0)
    d.retry()
    d.say(Condemned(2, "memory", "too big"))
    d.exit(0)
    assert (d.state.phase, d.state.recovery.attempts, d.state.recovery.failures) == ("failed", 1, 1)


# --- recovery -------------------------------------------------------------------------------------


def test_a_recovery_is_counted_when_the_new_life_has_settled():
    d = Dialogue().come_up()
    went_down = d.now
    d.crash().retry()
    assert (d.state.recovering, d.state.outage_at, d.state.recovery.attempts) == (True, went_down, 1)
    assert d.state.recovery.successes == 0
    took = d.state.started_at - went_down
    d.pass_time()
    assert (d.state.recovering, d.state.outage_at) == (False, None)
    assert d.state.recovery == recovery.Recovery(1, 1, 0, took, took)
    assert d.last_note() == ("recovered", "recovered 1.0 s after it went down")


def test_one_outage_over_several_attempts_is_measured_from_its_beginning():
    d = Dialogue().come_up()
    went_down = d.now
    d.crash().retry().crash().retry()
    d.pass_time()
    stats = d.state.recovery
    assert (stats.attempts, stats.successes, stats.failures) == (2, 1, 1)
    assert stats.worst_s == stats.total_s == 3.0 == d.state.started_at - went_down


def test_a_recovery_asked_for_is_counted_from_the_beginning_of_the_outage():
    d = Dialogue(policy=replace(POLICY, max_attempts=0)).come_up()
    d.crash()
    assert d.state.phase == "failed"
    d.now += 50.0
    assert d.say(StartRequested(recover=True)) == [Spawn(2)]
    d.run().pass_time()
    assert d.state.recovery == recovery.Recovery(1, 1, 0, 50.0, 50.0)


def test_recovering_what_is_not_down_is_no_recovery():
    d = Dialogue()
    d.come_up(StartRequested(recover=True)).pass_time()
    assert d.state.recovery.attempts == 0


def test_a_plain_start_closes_the_outage_uncounted():
    d = in_phase("failed")
    d.say(StartRequested())
    assert (d.state.recovering, d.state.outage_at) == (False, None)
    d.run().pass_time()
    assert d.state.recovery.successes == 0


def test_a_recovery_that_is_stopped_has_no_outcome():
    d = Dialogue().come_up().crash().retry()
    d.say(StopRequested())
    d.exit(0)
    assert (d.state.recovery.successes, d.state.recovery.failures, d.state.recovering) == (0, 0, False)


# --- health ---------------------------------------------------------------------------------------


def test_a_probed_bot_is_recovered_only_when_its_probe_says_so():
    d = Dialogue(rules=Rules(probed=True)).come_up()
    d.crash().retry()
    d.pass_time()  # settle time alone
    assert (d.state.settled, d.state.recovering, d.state.health) == (False, True, "unknown")
    assert d.state.deadline.kind == "reset"
    d.now += 3.0
    assert d.say(HealthReported(2, healthy=True)) == []
    assert (d.state.settled, d.state.recovering, d.state.health) == (True, False, "healthy")
    assert d.state.recovery.successes == 1
    assert d.state.recovery.worst_s == 6.0
    assert d.state.deadline == Deadline("reset", d.state.started_at + POLICY.reset_after_s)


def test_the_probe_may_settle_a_life_before_its_time():
    d = Dialogue(rules=Rules(probed=True)).come_up()
    d.say(HealthReported(1, healthy=True, note="200"))
    assert (d.state.settled, d.state.health, d.state.deadline) == (True, "healthy", None)
    assert d.last_note() == ("healthy", "200")


def test_time_alone_makes_nobody_believe_in_a_bot_with_a_probe():
    d = Dialogue(rules=Rules(probed=True)).come_up()
    d.pass_time()
    assert (d.state.phase, d.state.settled, d.state.health) == ("running", False, "unknown")
    d.say(HealthReported(1, healthy=True))
    assert (d.state.settled, d.state.health) == (True, "healthy")


def test_where_no_probe_is_asked_time_is_believed():
    d = Dialogue(rules=Rules(probed=True), probing=False).come_up()
    d.pass_time()
    assert (d.state.settled, d.state.health) == (True, "healthy")


def test_time_does_not_forget_what_the_probe_said():
    d = Dialogue(rules=Rules(probed=True)).come_up()
    d.say(HealthReported(1, healthy=False, note="503"))
    d.pass_time()
    assert (d.state.health, d.state.health_note) == ("unhealthy", "503")


def test_health_is_told_when_it_changes_and_not_each_time():
    d = Dialogue(rules=Rules(probed=True)).come_up()
    for healthy in (True, True, False, False, True):
        d.say(HealthReported(1, healthy=healthy, note="up" if healthy else "down"))
    assert [note for note in d.notes if note[0] in ("healthy", "unhealthy")] == [
        ("healthy", "up"),
        ("unhealthy", "down"),
        ("healthy", "up"),
    ]


def test_an_unhealthy_report_settles_nothing():
    d = Dialogue(rules=Rules(probed=True)).come_up().crash().retry()
    d.say(HealthReported(2, healthy=False, note="503"))
    assert (d.state.settled, d.state.recovery.successes, d.state.health) == (False, 0, "unhealthy")


# --- out of date, told twice, never begun ---------------------------------------------------------


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("kind", OF_A_LIFE)
def test_an_event_of_an_earlier_life_changes_nothing(phase, kind):
    d = in_phase(phase)
    before = d.changed(generation=2).state
    effects = d.say(EXAMPLES[kind])
    assert d.state is before
    assert effects == ([Acknowledge(1)] if kind in (Exited, SpawnFailed) else [])


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("kind", OF_A_LIFE)
def test_an_event_of_a_life_never_begun_is_illegal(phase, kind):
    d = in_phase(phase)
    before = d.changed(generation=0).state
    with pytest.raises(IllegalEvent, match="life 1 was never begun; the last one is 0"):
        d.say(EXAMPLES[kind])
    assert d.state is before


def test_an_end_that_is_told_twice_is_acknowledged_twice():
    d = Dialogue().come_up().crash()
    before = d.state
    assert d.exit(generation=1) == [Acknowledge(1)]
    assert d.state == before


def test_a_deadline_that_no_longer_stands_is_ignored():
    d = Dialogue().come_up().crash()
    old = d.state.deadline
    d.say(StartRequested())
    d.now = old.at + 1.0
    before = d.state
    assert d.say(DeadlinePassed(old)) == []
    assert d.state is before


def test_a_deadline_of_another_kind_or_time_is_ignored():
    d = Dialogue().come_up().crash()
    stands = d.state.deadline
    d.now = stands.at + 100.0
    for other in (stands._replace(kind="reset"), stands._replace(at=stands.at - 0.5)):
        assert d.say(DeadlinePassed(other)) == []
    assert d.state.phase == "backoff"


def test_a_deadline_does_not_pass_before_its_time():
    d = Dialogue().come_up().crash()
    d.now = d.state.deadline.at - 0.001
    assert d.say(DeadlinePassed(d.state.deadline)) == []
    assert d.state.phase == "backoff"


# --- a new boot -----------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ("starting", "running", "backoff", "failed"))
def test_what_was_wanted_begins_anew_after_a_reboot(phase):
    d = in_phase(phase)
    d.now = 3.0
    assert d.say(Rebooted()) == []
    assert (d.state.phase, d.state.wanted, d.state.attempts) == ("backoff", True, 0)
    assert d.state.deadline == Deadline("retry", 3.0)
    assert (d.state.outage_at, d.state.started_at, d.state.pid) == (None, None, None)
    assert d.pass_time() == [Spawn(2)]
    assert (d.state.restarts, d.state.recovery.attempts) == (0, 0)


def test_a_life_lost_at_a_reboot_is_told_so_and_not_guessed():
    d = in_phase("running")
    d.say(Rebooted())
    assert (d.state.last_exit.known, d.state.last_exit.cause) == (False, "reboot")
    assert d.state.last_exit.words() == "lost at a reboot of the machine"
    assert d.last_note() == ("exited", "lost at a reboot of the machine")


def test_a_reboot_keeps_how_the_last_life_ended_where_none_ran():
    d = in_phase("backoff")
    last = d.state.last_exit
    d.say(Rebooted())
    assert d.state.last_exit == last


@pytest.mark.parametrize(
    "request_,phase,effects",
    [
        (StopRequested(), "stopped", []),
        (DeleteRequested(), "stopped", [Remove()]),
        (RestartRequested(), "backoff", []),
        (Condemned(1, "memory", "big"), "backoff", []),
        (Condemned(1, "quota", "big"), "stopped", []),
    ],
)
def test_a_reboot_while_stopping_ends_as_it_was_meant(request_, phase, effects):
    d = Dialogue().come_up()
    d.say(request_)
    assert d.say(Rebooted()) == effects
    assert d.state.phase == phase


def test_numbers_of_lives_go_on_after_a_reboot():
    d = Dialogue().come_up().crash().retry()
    d.say(Rebooted())
    assert d.pass_time() == [Spawn(3)]


def test_a_state_has_no_field_that_a_new_life_forgets_to_reset():
    """Whatever describes one life must not leak into the next."""
    used = Dialogue(rules=Rules(probed=True)).come_up()
    used.say(HealthReported(1, healthy=True, note="fine"))
    used.say(Condemned(1, "memory", "too big"))
    used.exit(0)
    used.pass_time()
    kept = {"generation", "wanted", "attempts", "restarts", "recovery", "recovering", "outage_at", "last_exit"}
    fresh = BotState()
    for field in fields(BotState):
        if field.name not in kept | {"phase", "since", "reason"}:
            assert getattr(used.state, field.name) == getattr(fresh, field.name), field.name
