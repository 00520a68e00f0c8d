"""botd-template.toml."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botd.contract.errors import BotdError
from botd.contract.manifest import SPEC
from botd.contract.schema import check
from botd.contract.template import MAX_BYTES, PLACEHOLDERS, TEMPLATE, bot_defaults, check_template


def refusal(document):
    with pytest.raises(BotdError) as caught:
        check_template(document)
    assert caught.value.kind == "invalid" and caught.value.exit == 9
    return caught.value


def test_the_shortest_one():
    assert check_template({"schema": 1}) == {"schema": 1, "max_files": 200_000, "max_bytes": MAX_BYTES}


def test_a_full_one_comes_back_as_it_is():
    full = {
        "schema": 1,
        "files": {"link": ["assets/"], "copy": ["vendor/"], "private": ["login.json", "cache/"], "ignore": ["*.md"]},
        "max_files": 10,
        "max_bytes": 1000,
        "command": ["{python}", "main.py", "--data={data}", '{"json": 1}'],
        "env": {"A": "b"},
        "labels": {"tier": "free"},
        "probe": {
            "kind": "http",
            "url": "http://127.0.0.1:{port}/",
            "timeout_s": 5,
            "failures": 3,
            "start_grace_s": 20,
        },
        "stop_signal": "SIGINT",
        "stop_grace_s": 3,
        "memory_mb": 100,
        "processes": 10,
        "cpu": 0.5,
        "port": True,
        "restart": "on-failure",
        "python": {"requirements": "requirements.txt", "wheels": "wheels", "interpreter": "python3.11"},
        "node": {"check": True},
    }
    assert check_template(full) == full
    assert set(full) == set(TEMPLATE["properties"])
    check({"id": "a/b", **bot_defaults(full)}, SPEC)


@pytest.mark.parametrize(
    ("more", "path", "reason"),
    [
        ({"schema": 2}, "schema", "must be one of 1"),
        ({"comand": ["x"]}, "comand", "unknown key"),
        ({"directory": "x"}, "directory", "unknown key"),
        ({"command": "x"}, "command", "must be a list"),
        ({"command": [" "]}, "command[0]", "no name"),
        ({"files": {"links": []}}, "files.links", "unknown key"),
        ({"files": {"link": "x"}}, "files.link", "must be a list"),
        ({"files": {"link": [""]}}, "files.link[0]", "must not be empty"),
        ({"files": {"link": ["/"]}}, "files.link[0]", "means everything"),
        ({"files": {"link": ["a", "../b"]}}, "files.link[1]", "leads out of the template"),
        ({"files": {"link": ["./a"]}}, "files.link[0]", "no plain path"),
        ({"files": {"copy": ["a//b"]}}, "files.copy[0]", "no plain path"),
        ({"files": {"copy": ["!a"]}}, "files.copy[0]", "takes back"),
        ({"files": {"copy": ["a\nb"]}}, "files.copy[0]", "control character"),
        ({"files": {"copy": ["a"], "link": ["a"]}}, "files.copy[0]", "stands already at files.link[0]"),
        ({"max_files": 0}, "max_files", "must be at least 1"),
        ({"python": {"venv": "/x"}}, "python.venv", "is absolute"),
        ({"python": {"venv": "../x"}}, "python.venv", "leads out"),
        ({"python": {"venv": "v", "requirements": "r"}}, "python", "together"),
        ({"python": {"wheels": "w"}}, "python.wheels", "with requirements only"),
        ({"node": {"check": 1}}, "node.check", "must be true or false"),
        ({"probe": {"kind": "tcp"}}, "probe", "needs the bot's port"),
    ],
)
def test_every_mistake_is_told_with_its_path(more, path, reason):
    error = refusal({"schema": 1, **more})
    assert error.details["path"] == path
    assert reason in error.message


def test_values_of_the_environment_are_not_repeated():
    assert "hunter2" not in str(refusal({"schema": 1, "env": {"A": ["hunter2"]}}).to_rpc())


DOCS = Path(__file__).parents[2] / "docs/templates.md"
AS_IN_A_FLEET = "as of a bot in [fleet.toml](contract.md)"


def key_table():
    rows = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, schema in TEMPLATE["properties"].items():
        if name in ("files", "python", "node"):
            rows += [_row(f"{name}.{key}", inner) for key, inner in schema["properties"].items()]
        else:
            rows.append(_row(name, schema))
    return "\n".join(rows)


def _row(name, schema):
    default = f"{schema['default']:,}" if "default" in schema else ""
    meaning = "always 1" if name == "schema" else schema.get("description", AS_IN_A_FLEET)
    return f"| `{name}` | {schema['type']} | {default} | {meaning} |"


def test_the_docs_have_every_key():
    """`BOTD_UPDATE_DOCS=1 pytest tests/contract/test_template.py` writes the table anew."""
    text = DOCS.read_text()
    right = re.sub(
        r"(<!-- template keys -->\n).*?(<!-- end -->)", lambda m: f"{m[1]}{key_table()}\n{m[2]}", text, flags=re.DOTALL
    )
    if os.environ.get("BOTD_UPDATE_DOCS"):
        DOCS.write_text(right)
    assert DOCS.read_text() == right, "run: BOTD_UPDATE_DOCS=1 pytest tests/contract/test_template.py"
    assert {f"{{{name}}}" for name in PLACEHOLDERS} == set(re.findall(r"^\| `(\{\w+\})` \|", text, re.MULTILINE))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from([*TEMPLATE["properties"], "link", "venv", "kind", "x"]), inner, max_size=3)
    ),
)


@given(JSON, st.sampled_from(sorted(TEMPLATE["properties"])))
def test_no_document_brings_anything_but_a_manifest_or_a_refusal(value, key):
    for document in (value, {"schema": 1, key: value}, {"schema": 1, key: {"link": [value], "venv": value}}):
        try:
            manifest = check_template(document)
        except BotdError as error:
            assert error.exit == 9
        else:
            assert check_template(manifest) == manifest
