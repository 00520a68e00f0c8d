"""Which bots there are, and what each of them is for."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

WITNESS = Path(__file__).parents[2] / "bots" / "witness.py"
ROLES = ("steady", "mortal", "asked", "parent", "mortal", "flood", "stubborn", "steady")
APPLIED = 3
SOURCE = "faults"


@dataclass(frozen=True)
class Member:
    """One bot. `kind` is the witness's; `untouched` ones are never asked for anything: one life, to the end."""

    id: str
    role: str
    kind: str
    untouched: bool = False
    finishes: bool = False
    """It may end well and then is not wanted any more, by its restart policy."""

    def spec(self, seed, labels=None):
        """What bots.create and fleet.apply take."""
        return {
            "id": self.id,
            "command": [sys.executable, "-I", "-S", str(WITNESS), str(seed), self.kind],
            "restart": "on-failure" if self.finishes else "always",
            "stop_grace_s": 0.2 if self.kind == "stubborn" else 5,
            "labels": labels or {},
        }


def muster(count):
    """So many bots of all roles, and those that apply is about. Three owners, so that selections differ."""
    out = []
    for i in range(count):
        role = ROLES[i % len(ROLES)]
        kind = "steady" if role == "asked" else role
        untouched = role in ("steady", "parent")
        out.append(Member(f"u{i % 3}/{role}-{i:02}", role, kind, untouched, finishes=role == "mortal" and i % 16 == 1))
    out += [Member(f"m/applied-{i}", "applied", "steady") for i in range(APPLIED)]
    return out


def passing(name, kind="steady"):
    """One that a storm creates and deletes."""
    return Member(f"p/{name}", "passing", kind)
