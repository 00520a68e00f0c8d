"""docs/contract.md and docs/guide.md name what the code has: `python tests/test_contract_docs.py` prints the tables."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from botd.contract.manifest import DEFAULTS, MANIFEST, PROBE, expand
from botd.contract.methods import METHODS, NOTIFICATIONS, Method
from botd.contract.template import check_template
from botd.contract.vocabulary import HEALTH, KINDS, PHASES, Exit, RpcCode
from botd.server.views import FIELDS

DOCS = Path(__file__).parent.parent / "docs"
CONTRACT = (DOCS / "contract.md").read_text()
GUIDE = (DOCS / "guide.md").read_text()


def code(words) -> str:
    return ", ".join(f"`{word}`" for word in words)


def method_table() -> str:
    rows = ["| method | who | parameters | what it does |", "| --- | --- | --- | --- |"]
    return "\n".join([*rows, *(_method_row(method) for method in METHODS.values())])


def _method_row(method: Method) -> str:
    required = method.params["required"]
    optional = [name for name in method.params["properties"] if name not in (*required, "request_id")]
    params = ", ".join([*(f"**`{name}`**" for name in required), *(f"`{name}`" for name in optional)])
    name = f"`{method.name}`" + (" ✎" if method.mutates else "") + (" ⇶" if method.stream else "")
    return f"| {name} | {method.who} | {params} | {method.summary} |"


def kind_table() -> str:
    rows = ["| kind | code | exit |", "| --- | --- | --- |"]
    return "\n".join([*rows, *(f"| `{kind}` | {code} | {exit} |" for kind, (code, exit) in KINDS.items())])


def notification_table() -> str:
    rows = ["| notification | meaning and params |", "| --- | --- |"]
    return "\n".join([*rows, *(f"| `{name}` | {text} |" for name, text in NOTIFICATIONS.items())])


TABLES = {"methods": method_table, "kinds": kind_table, "notifications": notification_table}


def block(text: str, name: str) -> str:
    found = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- end -->", text, re.DOTALL)
    assert found is not None, f"no block <!-- {name} -->"
    return found[1]


def first_cells(text: str) -> list[str]:
    """The words in backquotes of the first column of a table, its two heading lines left out."""
    rows = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [word for row in rows for word in re.findall(r"`([^`]+)`", row.split("|")[1])]


def third_cells(text: str) -> dict[str, str]:
    """Key -> what stands in its third column."""
    cells = [row.split("|") for row in text.splitlines() if row.startswith("|")]
    return {row[1].strip(" `"): row[3].strip(" `") for row in cells}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_the_contract_is_that_of_the_code(name):
    assert block(CONTRACT, name) == TABLES[name]()


def test_every_key_of_a_bot_is_documented_and_none_that_it_has_not():
    assert sorted(first_cells(block(CONTRACT, "bot"))) == sorted(FIELDS)


def test_every_exit_status_is_documented():
    known = {value for name, value in vars(Exit).items() if name.isupper()}
    assert {int(row.split("|")[1]) for row in block(CONTRACT, "exits").splitlines()[2:]} == known


def test_the_codes_of_the_specification_are_documented():
    for name, value in vars(RpcCode).items():
        if name.isupper():
            assert f"{value}" in CONTRACT, name


def test_the_words_for_phases_and_health_are_documented():
    assert first_cells(block(CONTRACT, "phases")) == list(PHASES)
    assert first_cells(block(CONTRACT, "health")) == list(HEALTH)


def test_every_key_of_a_manifest_is_documented():
    bot = MANIFEST["properties"]["bot"]["items"]["properties"]
    assert sorted(first_cells(block(GUIDE, "fleet.toml"))) == sorted(bot)
    assert first_cells(block(GUIDE, "probe")) == list(PROBE["properties"])


def test_the_defaults_of_a_manifest_are_as_documented():
    bots, probes = third_cells(block(GUIDE, "fleet.toml")), third_cells(block(GUIDE, "probe"))
    for key, value in DEFAULTS.items():
        assert bots[key] == json.dumps(value), key
    for key, schema in PROBE["properties"].items():
        if "default" in schema:
            assert probes[key] == json.dumps(schema["default"]), key


def test_every_manifest_of_the_guide_is_valid():
    import tomllib

    found = [text for text in re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL) if "schema = 1" in text]
    assert found
    for text in found:
        document = tomllib.loads(text)
        assert expand(document, "/somewhere") if "bot" in document else check_template(document)


def test_every_json_line_of_the_contract_is_json():
    lines = [line for text in re.findall(r"```json\n(.*?)```", CONTRACT, re.DOTALL) for line in text.splitlines()]
    assert lines
    for line in lines:
        json.loads(line)


if __name__ == "__main__":
    for table in TABLES.values():
        print(table(), end="\n\n")
