"""`make faults`: the long form of the fault suite; driver/__main__.py says what it takes."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e")]

from driver.long_form import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
