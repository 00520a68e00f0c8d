"""What a check of the machine finds."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypedDict

    Level = Literal["good", "warning", "problem"]

    class Finding(TypedDict):
        """`remedy` is empty where nothing needs to be done."""

        check: str
        level: Level
        text: str
        remedy: str


GOOD: Level = "good"
WARN: Level = "warning"
FAIL: Level = "problem"


def finding(check: str, level: Level, text: str, remedy: str = "") -> Finding:
    return {"check": check, "level": level, "text": text, "remedy": remedy}
