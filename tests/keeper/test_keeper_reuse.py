"""Numbers of processes that are given out again: forced, in a pid namespace where the next number can be chosen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.root
INSIDE = Path(__file__).with_name("reuse_inside.py")
UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


@pytest.mark.parametrize(
    ("containment", "without"),
    [("auto", ""), ("tree", "controllers"), ("tree", "controllers,unique_inodes"), ("tree", "controllers,pidfd_info")],
)
def test_no_foreign_process_is_signalled(containment, without):
    if subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no pid namespace may be made here")
    done = subprocess.run(
        [*UNSHARE, sys.executable, str(INSIDE), containment, without],
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    assert "no foreign process signalled" in done.stdout
    print(done.stdout)
