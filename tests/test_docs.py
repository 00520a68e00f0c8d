"""What docs/ says of the code is what the code says. `python tests/test_docs.py` prints the table to paste."""

from __future__ import annotations

import re
from pathlib import Path

from botd.contract.vocabulary import PHASES
from botd.core.events import EVENTS
from botd.core.lifecycle import TABLE

DOCS = Path(__file__).parent.parent / "docs"

WORDS = {
    "_start": "→ starting",
    "_unwant": "→ stopped",
    "_remove": "→ gone",
    "_want": "wanted",
    "_stop": "→ stopping, then stopped",
    "_restart": "→ stopping, then starting",
    "_delete": "→ stopping, then gone",
    "_condemn": "→ stopping, then by policy",
    "_start_while_stopping": "then starting",
    "_stop_while_stopping": "then stopped",
    "_delete_while_stopping": "then gone",
    "_spawned": "pid",
    "_running": "→ running",
    "_running_while_stopping": "noted",
    "_spawn_failed": "→ backoff or failed",
    "_spawn_refused": "→ backoff (uncounted)",
    "_adopted": "→ running or stopping",
    "_exited": "→ by policy",
    "_ended": "→ what was to follow",
    "_told_again": "acknowledged",
    "_time_passed": "settled, or row reset",
    "_kill": "killed again",
    "_retry": "→ starting",
    "_health": "health",
    "_rebooted": "→ starting if wanted",
    "_same": "·",
}


def state_table() -> str:
    lines = ["| event | " + " | ".join(PHASES) + " |", "| --- " * (len(PHASES) + 1) + "|"]
    for event in EVENTS:
        cells = []
        for phase in PHASES:
            handler = TABLE[phase, event]
            cells.append("✗" if handler is None else WORDS[handler.__name__])
        lines.append(f"| {event.__name__} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def test_the_state_table_in_the_docs_is_that_of_the_code() -> None:
    text = (DOCS / "architecture.md").read_text()
    found = re.search(r"<!-- state table -->\n(.*?)\n<!-- end -->", text, re.DOTALL)
    assert found is not None
    assert found[1] == state_table()


def test_links_inside_the_docs_lead_somewhere() -> None:
    for page in [*DOCS.glob("*.md"), DOCS.parent / "README.md"]:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


if __name__ == "__main__":
    print(state_table())
