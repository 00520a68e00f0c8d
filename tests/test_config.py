"""bot_config.json: what is accepted, what is refused and in which words, and that all its copies agree.

`BOTD_UPDATE_DOCS=1 pytest tests/test_config.py` writes the table of docs/configuration.md anew.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from botd import config, config_cli, config_file, config_model
from botd.contract.errors import BotdError
from botd.contract.paths import Paths
from botd.core.settings import MIB, Settings

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "bot_config.json"
DOCS = ROOT / "docs/configuration.md"

SHORT = b"""{
  "resourceManagement": { "maxBotsPerUser": 50, "maxTotalBots": 200, "maxMemoryPerBot": 512, "memoryThreshold": 80 },
  "storageOptimization": { "useSymbolicLinks": true, "enableGarbageCollection": true },
  "botRecovery": { "autoRestart": true, "exponentialBackoff": true }
}"""


def parsed(document):
    return config_model.parse(json.dumps(document).encode(), "f.json")


def refusal(data):
    """The error that these bytes (or this document) earn."""
    if not isinstance(data, bytes):
        data = json.dumps(data).encode()
    with pytest.raises(BotdError) as caught:
        config_model.parse(data, "f.json")
    assert (caught.value.kind, caught.value.exit) == ("invalid", 9)
    assert caught.value.message.startswith("f.json: ")
    assert "botctl config check f.json" in caught.value.hint
    return caught.value


def only_problem(data):
    (problem,) = refusal(data).details["problems"]
    return problem["path"], problem["reason"], problem["hint"]


# --- one truth in three places --------------------------------------------------------------------


def test_the_shipped_file_the_model_and_the_settings_have_the_same_defaults():
    shipped = json.loads(SHIPPED.read_bytes())
    assert shipped == config.effective(Settings())
    assert shipped == config_model.BotConfig().model_dump(by_alias=True)
    assert config_model.load(str(SHIPPED)) == Settings()


def test_the_shipped_file_has_its_keys_in_the_order_of_the_table():
    shipped = json.loads(SHIPPED.read_bytes())
    assert [(block, key) for block in shipped for key in shipped[block]] == [(k.block, k.name) for k in config.KEYS]
    assert json.dumps(shipped) == json.dumps(config.effective(Settings()))


def test_every_setting_is_fed_by_exactly_one_key():
    fed = [(key.group, name) for key in config.KEYS for name in key.fields]
    there = [
        (group.name, inner.name) for group in fields(Settings) for inner in fields(getattr(Settings(), group.name))
    ]
    assert sorted(fed) == sorted(there)


def test_every_key_of_the_model_is_in_the_table():
    in_model = {(block, key) for block, keys in _schema_keys().items() for key in keys}
    assert in_model == {(key.block, key.name) for key in config.KEYS}


def _schema_keys():
    schema = config_model.json_schema()
    blocks = {name: ref["$ref"].rpartition("/")[2] for name, ref in schema["properties"].items()}
    return {name: schema["$defs"][model]["properties"] for name, model in blocks.items()}


# --- what is accepted -----------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"{}", b' {"monitoring": {}}\n', SHORT])
def test_the_short_form_means_the_defaults(data):
    assert config_model.parse(data, "f.json") == Settings()


def test_each_value_arrives_in_the_units_of_the_settings():
    got = parsed(
        {
            "resourceManagement": {
                "maxTotalBots": None,
                "maxMemoryPerBot": 7,
                "maxSwapPerBot": None,
                "maxProcessesPerBot": 9,
                "maxCpuPerBot": 2,
                "memoryThreshold": 82.5,
                "portRange": [5000, 5000],
            },
            "botRecovery": {"restartDelay": 1, "maxBackoffDelay": 2500},
            "output": {"maxLogSize": 3, "keepLogs": 0},
            "security": {"socketAccess": "group:bot-admins"},
        }
    )
    default = Settings()
    assert got == replace(
        default,
        limits=replace(
            default.limits,
            max_total_bots=None,
            max_memory_per_bot_bytes=7 * MIB,
            max_swap_per_bot_bytes=None,
            max_processes_per_bot=9,
            max_cpu_per_bot=2.0,
            memory_threshold_percent=82.5,
            port_first=5000,
            port_last=5000,
        ),
        restart=replace(default.restart, delay_s=0.001, max_delay_s=2.5),
        output=replace(default.output, max_bytes=3 * MIB, keep=0),
        security=replace(default.security, socket_access="group:bot-admins"),
    )


def _values(schema):
    """Values that the schema allows."""
    if "anyOf" in schema:
        return st.one_of(*map(_values, schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum", [schema.get("const")]))
    match schema["type"]:
        case "integer":
            return st.integers(schema["minimum"], schema["maximum"])
        case "number":
            return st.floats(schema["minimum"], schema["maximum"])
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
        case "array":
            return st.lists(_values(schema["items"]), min_size=2, max_size=2).map(sorted)
    return st.sampled_from(["owner", "everyone", "group:wheel"])


def _mend(document):
    """Make the document hold what a schema cannot say."""
    recovery = document.get("botRecovery", {})
    delay, cap = recovery.get("restartDelay", 250), recovery.get("maxBackoffDelay", 30_000)
    if delay > cap:
        recovery |= {"restartDelay": cap, "maxBackoffDelay": delay}
    for block in ("resourceManagement", "storageOptimization"):
        inner = document.get(block, {})
        if 0 < inner.get("cleanupInterval", 0) < 1000:
            inner["cleanupInterval"] = 0
    return document


DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        block: st.fixed_dictionaries({}, optional={key: _values(schema) for key, schema in keys.items()})
        for block, keys in _schema_keys().items()
    },
).map(_mend)


@settings(max_examples=150)
@given(DOCUMENTS)
def test_whatever_the_schema_allows_is_kept_exactly(document):
    shown = config.effective(parsed(document))
    assert config.settings_from_json(json.loads(json.dumps(shown))) == parsed(document)
    for block, keys in document.items():
        for key, value in keys.items():
            assert shown[block][key] == value


def test_what_changed_is_told_in_the_words_of_the_file():
    after = parsed({"resourceManagement": {"maxTotalBots": None}, "botRecovery": {"restartDelay": 100}})
    assert config.changes(Settings(), after) == [
        ("resourceManagement.maxTotalBots", 200, None),
        ("botRecovery.restartDelay", 250, 100),
    ]
    assert config.changes(after, after) == []


# --- what is refused ------------------------------------------------------------------------------

WRONG_VALUES = [
    ("resourceManagement", "maxTotalBots", -5, "must be at least 1, not -5"),
    ("resourceManagement", "maxBotsPerUser", 0, "must be at least 1, not 0"),
    ("resourceManagement", "maxBotsPerUser", None, "must be a whole number, not null"),
    ("resourceManagement", "maxBotsPerUser", True, "must be a whole number, not true"),
    ("resourceManagement", "maxBotsPerUser", 50.0, "must be a whole number, not 50.0"),
    ("resourceManagement", "maxBotsPerUser", 1 << 64, "must be at most 100000, not 18446744073709551616"),
    ("resourceManagement", "memoryThreshold", "80", 'must be a number, not "80"'),
    ("resourceManagement", "memoryThreshold", 100.5, "must be at most 100, not 100.5"),
    ("resourceManagement", "memoryThreshold", False, "must be a number, not false"),
    ("resourceManagement", "cleanupInterval", 5, "must be 0 (never by itself) or at least 1000, not 5"),
    ("resourceManagement", "cleanupInterval", -1, "must be at least 0, not -1"),
    ("resourceManagement", "portRange", [30000, 2000], "the first port (30000) is above the last (2000)"),
    ("resourceManagement", "portRange", [21000], "must be a pair: [FIRST, LAST]"),
    ("resourceManagement", "portRange", [21000, 21001, 21002], "must be a pair: [FIRST, LAST]"),
    ("resourceManagement", "portRange", "21000-29999", 'must be a list, not "21000-29999"'),
    ("botRecovery", "autoRestart", 1, "must be true or false, not 1"),
    ("botRecovery", "restartDelay", {}, "must be a whole number, not an object"),
    ("botRecovery", "maxBackoffDelay", 100, "must be at least restartDelay (250), not 100"),
    ("monitoring", "logLevel", 3, 'must be "debug", "info", "warning" or "error", not 3'),
    ("security", "socketAccess", "group:", 'must be "owner", "group:NAME" or "everyone", not "group:"'),
    ("security", "socketAccess", "owner\n", 'must be "owner", "group:NAME" or "everyone", not "owner\\n"'),
    ("security", "socketAccess", [], "must be a string, not a list"),
    ("security", "isolation", "uid", 'must be "none", not "uid"'),
    ("output", "keepLogs", "x" * 100, 'must be a whole number, not "' + "x" * 56 + "..."),
]


@pytest.mark.parametrize("block,key,value,reason", WRONG_VALUES)
def test_a_wrong_value_is_refused_with_its_path_and_the_reason(block, key, value, reason):
    path, told, _ = only_problem({block: {key: value}})
    assert (path, told) == (f"{block}.{key}", reason)


def test_the_port_that_is_wrong_is_named():
    path, told, _ = only_problem({"resourceManagement": {"portRange": [80, 29999]}})
    assert (path, told) == ("resourceManagement.portRange[0]", "must be at least 1024, not 80")


def test_a_long_first_delay_alone_is_told_about_the_default_cap():
    path, told, _ = only_problem({"botRecovery": {"restartDelay": 60000}})
    assert (path, told) == ("botRecovery.maxBackoffDelay", "must be at least restartDelay (60000), not 30000")


@pytest.mark.parametrize("value", [None, 3, [], "on", True])
def test_a_block_is_an_object(value):
    path, told, _ = only_problem({"monitoring": value})
    assert path == "monitoring"
    assert told.startswith("must be an object, not ")


@pytest.mark.parametrize(
    "document,path,hint",
    [
        ({"resourceManagement": {"maxBotPerUser": 1}}, "resourceManagement.maxBotPerUser", "mean maxBotsPerUser?"),
        ({"resourceManagement": {"max_total_bots": 1}}, "resourceManagement.max_total_bots", "mean maxTotalBots?"),
        ({"botrecovery": {}}, "botrecovery", "did you mean botRecovery?"),
        ({"maxTotalBots": 5}, "maxTotalBots", "it belongs in resourceManagement"),
        ({"botRecovery": {"logLevel": "info"}}, "botRecovery.logLevel", "it belongs in monitoring"),
        ({"x": 1}, "x", "known: resourceManagement, storageOptimization, botRecovery, monitoring, security, output"),
        ({"output": {"zzz": 1}}, "output.zzz", "known: maxLogSize, keepLogs"),
        ({"y" * 5000: 1}, "y" * 57 + "...", ""),
        ({"a\x1b[31m": 1}, "'a\\x1b[31m'", "known: "),
        ({"clé": 1}, "'cl\\xe9'", "known: "),
    ],
)
def test_an_unknown_key_is_told_where_to_go(document, path, hint):
    where, told, advice = only_problem(document)
    assert (where, told) == (path, "unknown key")
    assert hint in advice


def test_a_misspelt_word_is_told_the_nearest():
    assert only_problem({"monitoring": {"logLevel": "warn"}})[2] == "did you mean warning?"


def test_all_problems_are_told_at_once():
    error = refusal(
        b'{"resourceManagement": {"maxBotPerUser": 1, "maxTotalBots": -5, "memoryThreshold": NaN},'
        b' "botRecovery": {"autoRestart": 1, "restartDelay": 60000, "settleTime": 1, "settleTime": 2},'
        b' "monitorin": {}, "output": []}'
    )
    assert sorted(problem["path"] for problem in error.details["problems"]) == [
        "botRecovery.autoRestart",
        "botRecovery.maxBackoffDelay",
        "botRecovery.settleTime",
        "monitorin",
        "output",
        "resourceManagement.maxBotPerUser",
        "resourceManagement.maxTotalBots",
        "resourceManagement.memoryThreshold",
    ]
    assert error.message.startswith("f.json: 8 problems\n  ")
    assert len(error.message.splitlines()) == 9


def test_a_file_of_garbage_is_told_in_a_message_that_can_be_read():
    error = refusal({f"k{i}": i for i in range(5000)})
    assert error.details["count"] == 5000
    assert len(error.details["problems"]) == config_file.SHOWN_MAX
    assert error.message.endswith("and 4980 more")


@pytest.mark.parametrize(
    "data,reason",
    [
        (b"", "is empty; the shortest configuration is {}"),
        (b" \n\t", "is empty; the shortest configuration is {}"),
        (b"\xef\xbb\xbf{}", "begins with a byte order mark (save it as UTF-8 without one)"),
        (b"\xff\xfe{\x00}\x00", "line 1 is not UTF-8 (byte 0 of the file)"),
        (b'{\n"a": "\xe4"}', "line 2 is not UTF-8 (byte 8 of the file)"),
        (b"[]", "must be a JSON object, as in {}"),
        (b"null", "must be a JSON object, as in {}"),
        (b"NaN", "must be a JSON object, as in {}"),
        (b'{"output": {},}', "a comma too many"),
        (b"{} {}", "not JSON: extra data at line 1, column 4"),
        (b'{\n// why\n"output": {}}', "at line 2, column 1 (JSON has no comments)"),
        (b"{'output': {}}", "(JSON has double quotes only)"),
        (b'{"output": ', "not JSON: expecting value at line 1, column 1"),
        (b"[" * 100_000, "nested deeper than 64"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "a.a.a.a.a.a.a.a: nested deeper than 64"),
        (b'{"monitoring": {"sampleInterval": NaN}}', "monitoring.sampleInterval: NaN is not JSON"),
        (b'{"monitoring": {"sampleInterval": -Infinity}}', "monitoring.sampleInterval: -Infinity is not JSON"),
        (b'{"monitoring": {"sampleInterval": 1e999}}', "monitoring.sampleInterval: 1e999 is too large a number"),
        (b'{"monitoring": {"sampleInterval": ' + b"9" * 5000 + b"}}", "is too large a number"),
        (b'{"resourceManagement": {"portRange": [NaN, 2000]}}', "resourceManagement.portRange[0]: NaN is not JSON"),
        (b'{"output": {}, "output": {}}', "output: stands there more than once"),
        (b'{"output": {"keepLogs": 1, "keepLogs": 1}}', "output.keepLogs: stands there more than once"),
        (b'{"monitoring": {"logLevel": "\\ud800"}}', "monitoring.logLevel: a lone surrogate is no text"),
        (b'{"\\udfff": 1}', "'\\udfff': a lone surrogate is no text"),
        (b'{"output": {"keepLogs": 1 "maxLogSize": 2}}', "not JSON: expecting ',' delimiter at line 1, column 27"),
    ],
)
def test_what_is_no_proper_json_is_refused(data, reason):
    error = refusal(data)
    assert reason in error.message
    error.message.encode("utf-8")  # can be printed anywhere
    json.dumps(error.to_rpc(), ensure_ascii=False).encode("utf-8")


@settings(max_examples=300)
@given(
    st.one_of(st.binary(max_size=60), st.text(alphabet='{}[]":,0123456789eE.-tfnalsu\\ ', max_size=60).map(str.encode))
)
def test_no_bytes_bring_anything_but_settings_or_a_refusal(data):
    try:
        got = config_model.parse(data, "f.json")
    except BotdError as error:
        assert error.exit == 9
    else:
        assert isinstance(got, Settings)


# --- files ----------------------------------------------------------------------------------------


def read_refusal(path):
    with pytest.raises(BotdError) as caught:
        config_model.load(str(path))
    assert (caught.value.kind, caught.value.exit, caught.value.details["file"]) == ("invalid", 9, str(path))
    return caught.value.message.removeprefix(f"{path}: ")


def test_what_cannot_be_read_is_refused_with_the_reason(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "plain").write_text("{}")
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "big").open("wb") as big:
        big.truncate(config_file.SIZE_MAX + 1)
    assert read_refusal(tmp_path) == "is a directory"
    assert read_refusal(tmp_path / "loop") == "is a loop of symbolic links"
    assert read_refusal(tmp_path / "dangling") == "does not exist"
    assert read_refusal(tmp_path / "missing") == "does not exist"
    assert read_refusal(tmp_path / "plain/x") == "cannot be read: Not a directory"
    assert read_refusal(tmp_path / "pipe") == "is no regular file"
    assert read_refusal("/dev/zero") == "is no regular file"
    assert read_refusal(tmp_path / "big") == "is larger than 1048576 bytes: hardly a configuration"
    assert read_refusal(tmp_path / ("n" * 300)).startswith("cannot be read: File name too long")
    assert read_refusal("a\0b") == "a path cannot contain NUL"


def test_a_file_of_exactly_the_largest_size_is_read(tmp_path):
    file = tmp_path / "f.json"
    file.write_bytes(b"{}".ljust(config_file.SIZE_MAX))
    assert config_model.load(str(file)) == Settings()


def test_a_file_that_may_not_be_read_is_refused():
    folder = Path(tempfile.mkdtemp(prefix="b", dir="/tmp"))
    file = folder / "f.json"
    file.write_text("{}")
    file.chmod(0)
    folder.chmod(0o755)
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)  # root may read everything
        assert read_refusal(file) == f"uid {os.geteuid()} may not read it"
    finally:
        if root:
            os.seteuid(0)
        shutil.rmtree(folder)


# --- the command line -----------------------------------------------------------------------------


def test_check_prints_every_value_for_the_daemon(tmp_path, capsys):
    file = tmp_path / "f.json"
    file.write_text('{"output": {"keepLogs": 2}}')
    assert config_cli.main(["check", str(file), "--print"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert config.settings_from_json(answer["settings"]) == parsed({"output": {"keepLogs": 2}})
    file.write_text('{"output": {"keepLog": 2}}')
    assert config_cli.main(["check", str(file), "--print"]) == 9
    answer = json.loads(capsys.readouterr().out)
    assert answer["error"]["data"]["details"]["problems"][0]["hint"] == "did you mean keepLogs?"


def test_check_tells_a_person_what_differs_or_what_is_wrong(tmp_path, capsys):
    file = tmp_path / "f.json"
    file.write_text('{"resourceManagement": {"maxTotalBots": null}}')
    assert config_cli.main(["check", str(file)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{file}: valid; 1 key differs from the defaults",
        "  resourceManagement.maxTotalBots: null (default 200)",
    ]
    file.write_text('{"output": 3}')
    assert config_cli.main(["check", str(file)]) == 9
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        f"botd: {file}: output: must be an object, not 3",
        f"  correct it, then run: botctl config check {file}",
    ]


def test_check_without_a_file_looks_where_the_daemon_does(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("BOTD_HOME", str(tmp_path))
    monkeypatch.delenv("BOTD_CONFIG", raising=False)
    assert config_cli.main(["check"]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/bot_config.json: no such file; the defaults are in force\n"
    (tmp_path / "bot_config.json").write_text("[]")
    assert config_cli.main(["check"]) == 9
    monkeypatch.setenv("BOTD_CONFIG", f"{tmp_path}/other.json")
    assert config_cli.main(["check"]) == 9
    assert f"{tmp_path}/other.json: does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["check", "a", "b"], ["check", "--bogus"]])
def test_wrong_usage_ends_with_2(arguments, capsys):
    assert config_cli.main(arguments) == 2
    assert "usage: botd config" in capsys.readouterr().err


def test_schema_is_printed_and_admits_the_shipped_file(capsys):
    assert config_cli.main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema == config_model.json_schema()
    assert set(schema["properties"]) == set(json.loads(SHIPPED.read_bytes()))
    for block in schema["$defs"].values():
        assert block["additionalProperties"] is False
        for key in block["properties"].values():
            assert {"default", "description", "x-unit", "x-applies"} <= set(key)


# --- the daemon's side ----------------------------------------------------------------------------


def test_the_daemons_side_does_not_import_pydantic():
    code = "import sys, botd.config, botd.config_file; print([m for m in sys.modules if 'pydantic' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout == "[]\n"


def test_a_child_reads_the_file_for_the_daemon(tmp_path):
    file = tmp_path / "f.json"
    file.write_text('{"botRecovery": {"restartDelay": 0}}')
    got = asyncio.run(config.load_in_child(str(file)))
    assert got == parsed({"botRecovery": {"restartDelay": 0}})


def test_what_the_child_refuses_arrives_whole(tmp_path):
    file = tmp_path / "f.json"
    file.write_text('{"botRecovery": {"restartDelay": -1}, "outputs": {}}')
    with pytest.raises(BotdError) as here:
        config_model.load(str(file))
    with pytest.raises(BotdError) as there:
        asyncio.run(config.load_in_child(str(file)))
    assert there.value.to_rpc() == here.value.to_rpc()
    assert there.value.exit == 9


def test_without_a_file_the_defaults_hold_and_no_child_is_needed(tmp_path, monkeypatch):
    missing = str(tmp_path / "f.json")
    with pytest.raises(BotdError, match="does not exist"):
        asyncio.run(config.load_in_child(missing))
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    assert asyncio.run(config.load_in_child(missing, required=False)) == Settings()


def test_a_dangling_link_is_an_error_even_where_no_file_is_required(tmp_path):
    link = tmp_path / "f.json"
    link.symlink_to("nowhere")
    with pytest.raises(BotdError, match="does not exist"):
        asyncio.run(config.load_in_child(str(link), required=False))


def _fake_python(tmp_path, monkeypatch, script):
    fake = tmp_path / "python"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))


@pytest.mark.parametrize(
    "script,said",
    [
        ("echo 'MemoryError: none left' >&2; exit 1", "the check ended with status 1 and said: MemoryError: none left"),
        ("kill -9 $$", "the check ended with status -9 and said: nothing"),
        ("echo '[]'", "the check ended with status 0 and said: nothing"),
        ("echo '{}'", "the check ended with status 0"),
        ("echo 7", "the check ended with status 0"),
        ("""echo '{"settings": {"output": {}}}'""", "the checked configuration is incomplete"),
    ],
)
def test_a_child_that_cannot_say_is_an_error_of_ours_and_not_of_the_file(tmp_path, monkeypatch, script, said):
    _fake_python(tmp_path, monkeypatch, script)
    with pytest.raises(BotdError) as caught:
        asyncio.run(config.load_in_child(str(tmp_path / "f.json")))
    assert (caught.value.kind, caught.value.exit) == ("internal", 1)
    assert said in caught.value.message


def test_a_child_that_hangs_is_killed(tmp_path, monkeypatch):
    _fake_python(tmp_path, monkeypatch, f"echo $$ > {tmp_path}/pid; exec sleep 600")
    with pytest.raises(BotdError) as caught:
        asyncio.run(config.load_in_child(str(tmp_path / "f.json"), timeout_s=0.5))
    assert caught.value.kind == "timeout"
    assert "longer than 0.5 s" in caught.value.message
    if (tmp_path / "pid").exists():
        pid = int((tmp_path / "pid").read_text())
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_the_file_is_looked_for_in_the_contracts_order(tmp_path):
    paths = Paths(str(tmp_path))
    assert config.locate({"BOTD_CONFIG": "/e.json"}, paths, "/o.json") == ("/o.json", True)
    assert config.locate({"BOTD_CONFIG": "/e.json"}, paths) == ("/e.json", True)
    own = config.locate({"BOTD_HOME": str(tmp_path)}, paths)
    assert own == (f"{tmp_path}/bot_config.json", False)
    assert not own.found
    (tmp_path / "bot_config.json").write_text("{}")
    assert own.found


# --- the documentation ----------------------------------------------------------------------------


def _bounds(schema):
    if "anyOf" in schema:
        return ", ".join(filter(None, map(_bounds, schema["anyOf"])))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{word}`" for word in schema.get("enum", [schema.get("const")]))
    if schema["type"] == "boolean":
        return "`true`, `false`"
    if schema["type"] == "null":
        return "`null`"
    if schema["type"] == "array":
        return f"a pair, each {_bounds(schema['items'])}"
    if "pattern" in schema:
        return "`owner`, `group:NAME`, `everyone`"
    return f"{schema['minimum']:,} to {schema['maximum']:,}".replace(",", " ")


def _table():
    lines = []
    for block, keys in _schema_keys().items():
        lines += [f"### {block}", "", "| key | meaning | unit | default | allowed | a change takes effect |"]
        lines.append("| --- | --- | --- | --- | --- | --- |")
        for key, schema in keys.items():
            default = f"`{json.dumps(schema['default'])}`"
            cells = (f"`{key}`", schema["description"], schema["x-unit"], default, _bounds(schema), schema["x-applies"])
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def test_the_documentation_has_every_key_as_the_schema_has_it():
    text = DOCS.read_text()
    before, begin, rest = text.partition("<!-- keys: begin -->\n")
    _, end, after = rest.partition("<!-- keys: end -->")
    assert begin and end
    right = f"{before}{begin}{_table()}{end}{after}"
    if os.environ.get("BOTD_UPDATE_DOCS"):
        DOCS.write_text(right)
    assert DOCS.read_text() == right, "run: BOTD_UPDATE_DOCS=1 pytest tests/test_config.py"


def test_the_short_form_in_the_documentation_is_valid():
    block = DOCS.read_text().partition("```json\n")[2].partition("```")[0]
    assert config_model.parse(block.encode(), "docs") == Settings()
