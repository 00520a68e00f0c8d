"""The core, broken on purpose: every break must fail a test, or the tests see less than they promise.

Each mutant is a copy of the package with one text of its source replaced; a part of the tests of the core
runs on it in a process of its own. Only failing tests count: a copy that cannot even be imported proves nothing.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DIALOGUES, WALK = "test_lifecycle.py", "test_random_walk.py"
RESTART, FLEET, RECOVERY = "test_restart.py", "test_fleet.py", "test_recovery.py"
ADMISSION, HEALTH = "test_admission.py", "test_health.py"


@dataclass(frozen=True)
class Mutant:
    name: str
    module: str
    old: str
    new: str
    by: str
    """The file that must find it, alone: mostly the walk, which was told nothing of it."""


def lifecycle(name, old, new, by=WALK):
    return Mutant(name, "lifecycle.py", old, new, by)


MUTANTS = [
    lifecycle(
        "the generation guard is dropped",
        "if isinstance(event, OF_A_LIFE) and event.generation != state.generation:",
        "if isinstance(event, OF_A_LIFE) and event.generation > state.generation:",
    ),
    lifecycle(
        "events of lives that were never begun are believed",
        "        if event.generation > state.generation:\n            raise",
        "        if False:\n            raise",
        DIALOGUES,
    ),
    lifecycle(
        "an old end is not acknowledged again",
        "if isinstance(event, (Exited, SpawnFailed)):\n            return",
        "if False:\n            return",
        DIALOGUES,
    ),
    lifecycle("an end is not acknowledged", '(ack, Note("exited"', '(Note("exited"'),
    lifecycle(
        "an end told twice is not acknowledged twice",
        "SpawnFailed))\n    return Decision(state, (Acknowledge(event.generation),))",
        "SpawnFailed))\n    return Decision(state)",
        DIALOGUES,
    ),
    lifecycle("a stale deadline is accepted", "(event.deadline != state.deadline or ", "(state.deadline is None or "),
    lifecycle("a deadline passes before its time", " or context.now < event.deadline.at):", "):", DIALOGUES),
    lifecycle(
        "a start while a life is on its way begins another",
        "StartRequested:   (_start,       _want, ",
        "StartRequested:   (_start,       _start,",
    ),
    lifecycle(
        "a start while a life runs begins another",
        "StartRequested:   (_start,       _want,          _want, ",
        "StartRequested:   (_start,       _want,          _start,",
    ),
    lifecycle(
        "a restart does not wait for the end of the life",
        "RestartRequested: (_start,       _restart,       _restart,",
        "RestartRequested: (_start,       _restart,       _start,",
    ),
    lifecycle(
        "what was to follow a stop is ignored",
        '    match state.then:\n        case "stop" | "delete":',
        '    match "stop":\n        case "stop" | "delete":',
    ),
    lifecycle("a delete forgets to remove", 'Remove() if state.then == "delete" else', "", DIALOGUES),
    lifecycle(
        "a stop does not say the last word",
        'return Decision(replace(state, wanted=False, then="stop", reason=event.why, attempts=0))',
        "return Decision(state)",
    ),
    lifecycle(
        "a deleted bot is stopped instead",
        '    if state.then == "delete":\n        return Decision(state)\n',
        "",
        DIALOGUES,
    ),
    lifecycle("a backoff has no deadline", 'deadline=Deadline("retry", c.now + delay_s),', "deadline=None,"),
    lifecycle(
        "a refused start has no deadline",
        '        since=c.now,\n        deadline=Deadline("retry", c.now + restart.REFUSED_RETRY_S),',
        "        since=c.now,\n        deadline=None,",
    ),
    lifecycle(
        "a stopping life is never killed", 'deadline=Deadline("kill", c.now + grace + KILL_MARGIN_S),', "deadline=None,"
    ),
    lifecycle(
        "a kill is asked for only once",
        'after = replace(state, deadline=Deadline("kill", c.now + KILL_MARGIN_S))',
        "after = replace(state, deadline=None)",
    ),
    lifecycle(
        "a running life never settles",
        'Deadline("settle", math.ceil((c.now + c.policy.settle_s) * 10.0) / 10.0)',
        "None",
    ),
    lifecycle(
        "the row of failures is never reset",
        "        return Decision(replace(state, attempts=0, deadline=None))",
        "        return Decision(replace(state, deadline=None))",
    ),
    lifecycle("the row of failures is reset at once", "max(c.now, state.started_at + c.policy.reset_after_s)", "c.now"),
    lifecycle("restarts are counted when they are refused, too", "automatic and not again", "automatic"),
    lifecycle(
        "attempts to recover are counted when refused, too", "if recovering and not again else", "if recovering else"
    ),
    lifecycle(
        "restarts are not counted", "restarts=state.restarts + (automatic and not again),", "restarts=state.restarts,"
    ),
    lifecycle(
        "restarts by request are counted",
        'attempts=0, recovering=recovering, reason="", automatic=False)',
        'attempts=0, recovering=recovering, reason="", automatic=True)',
    ),
    lifecycle("a recovery is counted as soon as it runs", "    if c.rules.probed and c.probing:", "    if False:"),
    lifecycle(
        "a failed recovery is not counted",
        "recovery.failed(state.recovery) if state.recovering and not state.settled else state.recovery",
        "state.recovery",
    ),
    lifecycle(
        "an outage begins anew with each crash",
        "outage_at=c.now if state.outage_at is None else state.outage_at,",
        "outage_at=c.now,",
    ),
    lifecycle(
        "admission is not asked",
        "    if c.refusal is not None:\n        reason",
        "    if False:\n        reason",
        DIALOGUES,
    ),
    lifecycle("a permanent failure is tried again", "    if event.permanent:", "    if False:", DIALOGUES),
    lifecycle("a crash is taken for a wish", "wanted=state.wanted and not down,", "wanted=False,"),
    lifecycle("a quota only restarts", 'down = event.cause == "quota"', "down = False", DIALOGUES),
    lifecycle(
        "a reboot leaves the old pid",
        '        _without_life(state, c),\n        phase="stopped",',
        '        state,\n        phase="stopped",',
    ),
    lifecycle(
        "a reboot stops everything",
        "    if not state.wanted:\n        return Decision(clean, notes)\n    waiting",
        "    return Decision(clean, notes)\n    waiting",
    ),
    Mutant("the cap is skipped", "restart.py", "delay = min(delay, policy.max_delay_s)", "pass", RESTART),
    Mutant("jitter goes above the cap", "restart.py", "(1.0 - JITTER * chance)", "(1.0 + JITTER * chance)", WALK),
    Mutant("there is no jitter", "restart.py", "(1.0 - JITTER * chance)", "1.0", RESTART),
    Mutant("the wait never grows", "restart.py", "if policy.exponential:", "if False:", RESTART),
    Mutant("it is never given up", "restart.py", "if attempt > policy.max_attempts:", "if False:", WALK),
    Mutant(
        "it is given up one too early",
        "restart.py",
        "attempt > policy.max_attempts",
        "attempt >= policy.max_attempts",
        WALK,
    ),
    Mutant(
        "a good run is not rewarded",
        "restart.py",
        "attempt = 1 if ran_s >= policy.reset_after_s else attempts + 1",
        "attempt = attempts + 1",
        RESTART,
    ),
    Mutant("the mode never is ignored", "restart.py", 'if mode == "never":', "if False:", RESTART),
    Mutant("an unknown end counts as clean", "bot.py", "return self.code == 0", "return not self.code", RESTART),
    Mutant(
        "successes are attempts",
        "recovery.py",
        "successes=stats.successes + 1,",
        "attempts=stats.attempts + 1,",
        RECOVERY,
    ),
    Mutant(
        "the worst time is the last one",
        "recovery.py",
        "worst_s=max(stats.worst_s, took_s),",
        "worst_s=took_s,",
        RECOVERY,
    ),
    Mutant(
        "the rate counts what is still open",
        "recovery.py",
        "done = stats.successes + stats.failures",
        "done = stats.attempts",
        RECOVERY,
    ),
    Mutant(
        "one bot too many is admitted",
        "admission.py",
        "of_user + adding > limits.max_bots_per_user",
        "of_user + adding > limits.max_bots_per_user + 1",
        ADMISSION,
    ),
    Mutant(
        "the threshold itself is admitted",
        "admission.py",
        "memory_percent < limits",
        "memory_percent <= limits",
        ADMISSION,
    ),
    Mutant(
        "a deadline is forgotten when it changes",
        "fleet.py",
        "if state.deadline is not None and state.deadline != before.deadline:",
        "if state.deadline is not None and before.deadline is None:",
        WALK,
    ),
    Mutant(
        "a moved deadline passes at its old time",
        "fleet.py",
        "if bot is not None and bot.state.deadline == deadline:",
        "if bot is not None and bot.state.deadline is not None:",
        WALK,
    ),
    Mutant(
        "phases are counted once",
        "fleet.py",
        "            self.phases[before.phase] -= 1\n            self",
        "            self",
        WALK,
    ),
    Mutant("one failed probe is enough", "health.py", "failures >= probe.failures", "failures >= 1", HEALTH),
    Mutant(
        "failures add up for ever",
        "health.py",
        "after = replace(state, failures=0, verdict=True,",
        "after = replace(state, verdict=True,",
        HEALTH,
    ),
    Mutant(
        "there is no start grace", "health.py", "in_grace = state.verdict is None and", "in_grace = False and", HEALTH
    ),
]


RUNNER = """
import os, signal, sys
import hypothesis, pytest  # once for all of them: importing takes longer than testing

for folder, *files in (word.split(":") for word in sys.argv[1:]):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os.chdir(folder)
        os.dup2(os.open("told", os.O_WRONLY | os.O_CREAT), 1)
        sys.path.insert(0, folder)
        status = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-c", "pytest.ini", *files])
        sys.stdout.flush()
        os._exit(status)
    print(folder, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def run(jobs):
    """pytest's exit status for each {folder: files of its copy}; what was said is in the file `told` there."""
    words = [":".join([str(folder), *(f"tests/core/{file}" for file in files)]) for folder, files in jobs.items()]
    environment = os.environ | {"BOTD_WALKS": "30", "BOTD_STEPS": "300", "CI": "1"}
    environment |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("BOTD_SEED", None)
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, *words],
        cwd="/",
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return {Path(folder): int(status) for folder, status in map(str.split, done.stdout.splitlines())}


def copy(folder, mutant=None):
    """The package and its tests, with one text replaced."""
    for part in ("botd/contract", "botd/core", "tests/core"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "botd/__init__.py").touch()
    (folder / "pytest.ini").write_text("[pytest]\n")
    if mutant is not None:
        source = folder / "botd/core" / mutant.module
        text = source.read_text()
        assert text.count(mutant.old) == 1, f"{mutant.module} has {text.count(mutant.old)} times: {mutant.old}"
        source.write_text(text.replace(mutant.old, mutant.new))
    return folder


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory):
    """{name: (exit status, what was said)} of all mutants that can be made, two at a time."""
    folders = {}
    for number, mutant in enumerate(MUTANTS):
        with contextlib.suppress(AssertionError):  # told by the mutant's own test
            folders[mutant.name] = copy(tmp_path_factory.mktemp(f"m{number}"), mutant)
    jobs = [(folders[mutant.name], [mutant.by]) for mutant in MUTANTS if mutant.name in folders]
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(run, (dict(jobs[::2]), dict(jobs[1::2])))
    told = first | second
    return {name: (told[folder], (folder / "told").read_text()) for name, folder in folders.items()}


def test_the_core_as_it_is_passes_and_the_copy_is_what_is_tested(tmp_path):
    copy(tmp_path)
    (tmp_path / "tests/core/test_where.py").write_text(
        "def test_where():\n"
        "    import botd.core.lifecycle as core\n"
        f"    assert core.__file__ == {str(tmp_path / 'botd/core/lifecycle.py')!r}\n"
    )
    files = sorted({mutant.by for mutant in MUTANTS})
    assert run({tmp_path: ["test_where.py", *files]}) == {tmp_path: 0}, (tmp_path / "told").read_text()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_is_found(mutant, verdicts, tmp_path):
    if mutant.name not in verdicts:
        copy(tmp_path, mutant)  # says what is wrong with it
    status, told = verdicts[mutant.name]
    assert status == 1, f"{mutant.by} did not fail:\n{told}"
