"""`python -I -S look.py DATABASE`: SQLite's finding about a file, "ok" or what is wrong. For a process of its own.

The file must have been folded together with its log; whoever has it open is not disturbed, because nothing is locked.
"""

import sqlite3
import sys
from urllib.parse import quote


def main(path: str) -> str:
    try:
        connection = sqlite3.connect(f"file:{quote(path)}?mode=ro&immutable=1", uri=True)
        try:
            (finding,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        return str(error)
    return str(finding)


if __name__ == "__main__":
    print(main(sys.argv[1]))
