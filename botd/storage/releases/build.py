"""A virtual environment made of a list of requirements, beside the tree that it is then brought into.

Wheels only: an sdist runs its own code while it is built, with the rights of botd. Pip itself does not stay in it.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
from collections.abc import Mapping

from botd.contract.errors import BotdError
from botd.contract.vocabulary import Exit
from botd.crash import crash_point
from botd.storage.releases import programs
from botd.storage.releases.venv import is_trusted

VENV = ".venv"
_WORDS_MAX = 1500
_PIP_OF_OTHERS = [22, 3]
"""The pip that can install into an environment that it is not part of (--python)."""


def make(folder: str, tree: str, source: str, python: Mapping[str, str]) -> None:
    """Make `folder`/.venv of the [python] section `python`: requirements from the `tree`, wheels from the `source`.

    Raises BotdError: invalid with the words of pip, unavailable when there is no usable Python.
    """
    interpreter = _interpreter(python.get("interpreter", "python3"))
    venv = f"{folder}/{VENV}"
    os.mkdir(folder, 0o700)
    _run([interpreter, "-I", "-m", "venv", "--without-pip", venv], folder, "the virtual environment cannot be made")
    crash_point("store-venv-made")
    requirements = os.path.join(tree, python["requirements"])
    command = [
        *_pip(interpreter), "--python", f"{venv}/bin/python", "--no-input", "--disable-pip-version-check", "install",
        "--quiet", "--no-compile", "--no-warn-script-location", "--only-binary", ":all:", "--requirement", requirements,
    ]  # fmt: skip
    if "wheels" in python:
        command += ["--no-index", "--find-links", os.path.join(source, python["wheels"])]
    _run(command, os.path.dirname(requirements), f"{python['requirements']} cannot be installed")


def _interpreter(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise BotdError("unavailable", f"there is no {name} to make the virtual environment with", hint="install it")
    # The program itself: a shim in front of it, or an environment around it, is not what a bot shall depend on.
    path = _ask(found, "import os, sys; print(os.path.realpath(getattr(sys, '_base_executable', sys.executable)))")
    if not is_trusted(path):
        raise BotdError(
            "unavailable",
            f"{found} is no Python that botd may use{path and ': '}{path}",
            hint="it and the folders above it must belong to root or to the user of botd, writable for nobody else",
        )
    return path


def _pip(interpreter: str) -> list[str]:
    """How to run pip: the one that is installed, else what comes with Python for new environments (slower: a zip)."""
    told = _ask(interpreter, "import pip; print(*pip.__version__.split('.')[:2])")
    if [int(part) for part in told.split() if part.isdigit()] < _PIP_OF_OTHERS:
        folder = _ask(interpreter, "import ensurepip, os; print(os.path.dirname(ensurepip.__file__))")
        for wheel in sorted(glob.glob(f"{glob.escape(folder)}/_bundled/pip-*.whl"), reverse=True):
            return [interpreter, f"{wheel}/pip"]
    return [interpreter, "-I", "-m", "pip"]


def _ask(interpreter: str, code: str) -> str:
    """What a line of Python prints; nothing when it fails."""
    return subprocess.run(
        [interpreter, "-I", "-c", code], env=programs.environ(os.environ), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False,
        preexec_fn=programs.die_with_parent,
    ).stdout.strip()  # fmt: skip


def _run(command: list[str], folder: str, failure: str) -> None:
    done = subprocess.run(
        command, cwd=folder, env=programs.environ(os.environ), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, check=False, preexec_fn=programs.die_with_parent,
    )  # fmt: skip
    if done.returncode == 0:
        return
    words = done.stdout.decode("utf-8", "replace").strip()[-_WORDS_MAX:]
    hint = "only wheels are installed; where there is none: pip wheel -w wheels -r FILE, and name wheels in [python]"
    raise BotdError("invalid", f"{failure}: {words or f'status {done.returncode}'}", hint=hint, exit=Exit.INVALID)
