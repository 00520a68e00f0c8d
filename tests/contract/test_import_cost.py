"""Every quick command pays for what the contract imports, so that is pinned."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    f"botd.contract.{path.stem}" for path in (ROOT / "botd/contract").glob("*.py") if path.stem != "__init__"
)
HEAVY = {
    "asyncio", "pydantic", "rich", "typer", "psutil", "dataclasses", "typing", "inspect", "logging", "subprocess",
    "socket", "ssl", "sqlite3", "pathlib", "difflib", "tomllib", "datetime", "argparse", "botd.core", "botd.config",
}  # fmt: skip
# What the smallest commands need; not even `re`, and so no `enum` and no `json`.
LIGHT = ("botd.contract.vocabulary", "botd.contract.errors", "botd.contract.paths", "botd.contract.selector")

# What `import os` brings, which every interpreter with `site` has loaded already.
OS = {"os", "os.path", "posixpath", "genericpath", "stat", "_stat", "_collections_abc", "abc", "_abc"}


def imported_by(*modules):
    """What importing these brings in, beyond a bare interpreter of the same kind."""
    code = f"import sys; before = set(sys.modules); import {', '.join(modules)}; print(*set(sys.modules) - before)"
    # -S: what an editable installation loads at start is no cost of ours.
    command = [sys.executable, "-S", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", MODULES)
def test_the_contract_imports_nothing_heavy(module):
    assert imported_by(module) & HEAVY == set()


def test_the_lightest_part_imports_nothing_but_itself():
    foreign = {name for name in imported_by(*LIGHT) if not name.startswith("botd")}
    assert foreign <= {"__future__", *OS}


def test_the_pin_would_notice():
    assert "difflib" in imported_by("botd.contract.errors, difflib")
