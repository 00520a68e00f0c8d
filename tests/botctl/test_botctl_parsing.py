"""One declaration, two readers: the small parser and Typer must understand the same."""

import inspect
import subprocess
import sys

import pytest
from botctl_fake import bot, clean_environ, page

from botctl import app, options, tree
from botctl.__main__ import _quick

_VERBS = sorted(tree.VERBS)

# What a quick command may not import, because its reader waits for it.
_HEAVY = {
    *("typer", "click", "rich", "pydantic", "psutil", "asyncio", "dataclasses", "typing", "inspect", "subprocess"),
    *("json", "re", "enum", "socket", "logging", "datetime", "importlib.metadata", "tomllib", "shlex", "collections"),
}


@pytest.fixture(scope="module")
def application():
    return app._build()


@pytest.fixture
def built(application, monkeypatch):
    """Building the application takes a tenth of a second: once is enough here."""
    monkeypatch.setattr(app, "_build", lambda: application)


@pytest.mark.parametrize(
    "argv",
    [
        ("list",),
        ("list", "-o", "wide", "user:alice"),
        ("ps", "-q"),
        ("status", "alice/shop"),
        ("is-active", "alice/shop"),
        ("stop", "alice/shop"),
        ("health",),
        ("completion", "bash"),
    ],
)
def test_a_quick_command_imports_nothing_heavy(fake, argv):
    fake.script["bots.list"] = fake.script["bots.status"] = page(bot(reason="waits"))
    fake.script["bots.logs"] = {"items": [{"line": "x", "at": "2026-01-02T03:04:05Z"}]}
    fake.script["bots.stop"] = page()
    fake.script["bots.health"] = page() | {"summary": {"total": 1, "percentage": 100.0}}
    code = "import sys; from botctl.__main__ import main; s = main(); print(*sys.modules, file=sys.stderr); sys.exit(s)"
    # -I and -S: what `site` and .pth files of the machine bring along is not ours.
    path = [entry for entry in sys.path if entry]
    code = f"import sys; sys.path[:] = {path!r}; {code}"
    command = [sys.executable, "-I", "-S", "-c", code, *argv]
    ran = subprocess.run(command, env=clean_environ(fake), capture_output=True, text=True, check=False)
    loaded = set(ran.stderr.splitlines()[-1].split())
    assert "botctl.options" in loaded, ran.stderr
    assert not loaded & _HEAVY
    assert ran.stdout or argv == ("stop", "alice/shop")


def test_every_verb_is_declared_where_the_tree_says():
    for verb in _VERBS:
        command = tree.find(verb)
        assert command is not None
        assert verb == command.name or verb in command.aliases
    assert tree.find("explode") is None


@pytest.mark.parametrize("verb", _VERBS)
def test_a_command_takes_exactly_what_is_declared(verb):
    command = tree.find(verb)
    taken = list(inspect.signature(command.run).parameters)[1:]
    declared = [param.name for param in (*command.arguments, *command.options)]
    assert sorted(taken) == sorted(declared)


def _calls_of(command):
    """Ordinary calls that use each option once, in each of its spellings."""
    words = [argument.choices[0] if argument.choices else "alice/shop" for argument in command.arguments]
    yield words
    if any(argument.many for argument in command.arguments):
        yield [*words, "--", "-x", "--all"]
    for option in command.all_options:
        value = (
            option.choices[0]
            if option.choices
            else {"text": "some text", "whole": str(int(option.low or 1)), "number": "2.5", "flag": ""}[option.kind]
        )
        for flag in option.flags:
            if option.kind == "flag":
                yield [*words, flag]
            else:
                yield [*words, flag, value]
                if flag.startswith("--"):
                    yield [f"{flag}={value}", *words]
            if option.many:
                yield [*words, flag, value, flag, "other"]
        if option.off:
            yield [option.off, *words]


@pytest.mark.parametrize("verb", _VERBS)
def test_both_readers_understand_the_same(verb, built):
    command = tree.find(verb)
    for words in _calls_of(command):
        argv = [*verb.split(), *words]
        quick = _quick(argv)
        assert quick is not None, argv
        found, values = app.understand(argv)
        assert (found.name, values) == (quick[0].name, quick[1]), argv


@pytest.mark.parametrize("option", [*options.GLOBAL, options.YES], ids=lambda option: option.name)
def test_global_options_stand_before_the_verb_too(option, built):
    value = [] if option.kind == "flag" else ["json"]
    for flag in option.flags:
        argv = [flag, *value, "stop", "a/b"]
        assert app.understand(argv)[1] == _quick(argv)[1]


@pytest.mark.parametrize(
    "argv",
    [
        (),
        ("--help",),
        ("list", "--help"),
        ("list", "-h"),
        ("list", "--outptu", "json"),
        ("list", "-o"),
        ("list", "-o", "xml"),
        ("list", "-ojson"),
        ("list", "-q=1"),
        ("list", "--quiet=1"),
        ("stop", "--timeout", "x", "a/b"),
        ("stop", "--timeout", "--all"),
        ("bulk", "explode", "--all"),
        ("is-active",),
        ("is-active", "a/b", "c/d"),
        ("daemon",),
        ("daemon", "explode"),
        ("explode",),
        ("-o", "json"),
        ("-x", "list"),
        ("--version",),
    ],
)
def test_what_is_unusual_is_left_to_typer(argv):
    assert _quick(list(argv)) is None


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (("lsit",), "did you mean list?"),
        (("-o", "json", "stauts"), "did you mean status?"),
        (("daemon", "stpo"), "did you mean stop?"),
        (("config", "xyzzy"), "botctl config show|check|schema|reload"),
        (("xyzzy",), "botctl --help"),
        (("list", "--ouput", "json"), "--output"),
        (("list", "-o", "xml"), "'table', 'wide', 'json', 'jsonl', 'name'"),
        (("is-active",), "botctl is-active --help"),
        (("bulk", "explode", "--all"), "explode"),
        (("stop", "--timeout", "nan", "a/b"), "--timeout is no number"),
        (("-q",), "no verb is given"),
    ],
)
def test_mistakes_are_explained(run, built, argv, told):
    ran = run(*argv)
    assert ran.status == 2
    assert told in ran.err
    assert ran.err.startswith("botctl: ")
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("verb", ["", *_VERBS, *tree.NOUNS])
def test_every_help_is_there(run, built, verb):
    ran = run(*verb.split(), "--help")
    assert ran.status == 0
    assert "Usage: botctl" in ran.out
    command = tree.find(verb)
    for option in command.all_options if command else ():
        assert option.flags[-1] in ran.out


def test_the_help_names_every_verb_and_no_hidden_one(run):
    out = run().out
    for verb in _VERBS:
        shown = verb.partition(" ")[0]
        assert (f" {shown} " in out) == (verb not in ("ps", "ls")), verb
    for absent in ("top", "user", "session", "audit", "alert", "graph"):
        assert f"│ {absent} " not in out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_verbs_options_and_ids(run, shell):
    script = run("completion", shell).out
    for word in (
        "template list -o name",
        "rollback",
        "is-active",
        "performance",
        "max-failures",
        "list -o name",
        "--no-autostart",
        "jsonl",
    ):
        assert word in script
    assert "{" + "verbs" not in script
