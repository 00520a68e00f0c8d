"""Virtual environments that work from wherever a release lies.

A virtual environment knows the place where it was made by three things. `pyvenv.cfg` names the interpreter that it was
made from, which stays. The scripts in bin/ begin with the absolute path of the environment's own interpreter: that is
replaced by a line of sh that finds the interpreter beside the script, so a script is the same in every release (stored
once) and works behind a link, in a moved home and in a path that is too long or has blanks. `activate` is left out.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import posixpath
import re
import stat
import subprocess
from collections.abc import Iterable, Mapping

from botd.core.classify import Found
from botd.storage.releases import programs

EDITED_MAX = 1 << 20
"""A bigger file is no console script."""
_SHEBANG = re.compile(rb"\A#![ \t]*(/[^\r\n]*/((?:python|pypy)[0-9.]*t?))([ \t]+[^\r\n]*?)?[ \t]*\r?\n")
_SH = re.compile(
    rb"\A#!/bin/sh\r?\n'''exec' [^\r\n]*?((?:python|pypy)[0-9.]*t?)[\"']?( [^\r\n]*)? \"\$0\" \"\$@\"\r?\n"
    rb"' '''\r?\n"
)
_INTERPRETER = re.compile(r"\A(?:python|pypy)[0-9.]*t?\Z")


class Venvs:
    """The environments of one tree, by their folders; remembers what it edited, for the RECORDs that name it."""

    def __init__(self, folders: Iterable[str]) -> None:
        self._folders = frozenset(folders)
        self._edited: dict[str, tuple[str, int]] = {}
        self.notes: list[str] = []

    def interpreter(self, link: Found) -> bool:
        """Whether an absolute link is the interpreter of an environment; the one that may lead out of the tree."""
        folder, _, name = link.path.rpartition("/")
        above, _, bin = folder.rpartition("/")
        if bin != "bin" or above not in self._folders or not _INTERPRETER.match(name):
            return False
        return is_interpreter(link.target)

    def edits(self, path: str) -> bool:
        """Whether `edit` may change this file, so that it has to be read as a whole."""
        folder, _, name = path.rpartition("/")
        if folder in self._folders:
            return name == "pyvenv.cfg"
        above, _, below = folder.rpartition("/")
        if below == "bin" and above in self._folders:
            return True
        if not any(path.startswith(f"{venv}/") for venv in self._folders):
            return False
        return (name == "RECORD" and below.endswith(".dist-info")) or name.endswith(".pth")

    def edit(self, path: str, data: bytes) -> bytes:
        """The file as it stands in a release. Asked in the order of the paths: bin/ before lib/."""
        folder, _, name = path.rpartition("/")
        if name == "RECORD":
            return self._record(folder, data)
        if name.endswith(".pth"):
            self._look_at_pth(path, data)
            return data
        out = _config(data) if folder in self._folders else _script(data)
        if out != data:
            digest = base64.urlsafe_b64encode(hashlib.sha256(out).digest()).rstrip(b"=").decode()
            self._edited[path] = (f"sha256={digest}", len(out))
        return out

    def _record(self, folder: str, data: bytes) -> bytes:
        """The list of a package's files with the hashes of what was edited, and without byte code."""
        packages = posixpath.dirname(folder)
        try:
            rows = list(csv.reader(io.StringIO(data.decode(), newline="")))
        except (UnicodeDecodeError, csv.Error):
            return data
        out = io.StringIO(newline="")
        writer = csv.writer(out, lineterminator="\n")
        for row in rows:
            if len(row) == 3:
                path = posixpath.normpath(f"{packages}/{row[0]}")
                if path.endswith(".pyc"):
                    continue
                if path in self._edited:
                    row = [row[0], self._edited[path][0], str(self._edited[path][1])]
            writer.writerow(row)
        return out.getvalue().encode()

    def _look_at_pth(self, path: str, data: bytes) -> None:
        for line in data.decode("utf-8", "replace").splitlines():
            if line.startswith("/") and len(self.notes) < 20:
                self.notes.append(f"{path}: leads to {line[:200]!r}, which is no part of the release (pip install -e?)")


def is_interpreter(target: str) -> bool:
    """Whether a path is that of a Python interpreter of this machine."""
    if not target.startswith("/") or not _INTERPRETER.match(posixpath.basename(target)):
        return False
    try:
        st = os.stat(target)
    except OSError:
        return False
    return stat.S_ISREG(st.st_mode) and bool(st.st_mode & 0o111)


def is_trusted(interpreter: str) -> bool:
    """Whether botd may run this program: nobody but root and its own user can put another one in its place."""
    if not is_interpreter(interpreter) or os.path.realpath(interpreter) != interpreter:
        return False
    path = interpreter
    while True:
        st = os.stat(path)
        sticky = stat.S_ISDIR(st.st_mode) and st.st_mode & stat.S_ISVTX
        if st.st_uid not in (0, os.geteuid()) or (st.st_mode & 0o022 and not sticky):
            return False
        if path == "/":
            return True
        path = os.path.dirname(path)


def _script(data: bytes) -> bytes:
    found = _SHEBANG.match(data) or _SH.match(data)
    if found is None:
        return data
    if found.re is _SHEBANG:
        name, options = found[2], (found[3] or b"").strip()
    else:
        name, options = found[1], (found[2] or b"").strip()
    options = b" " + options if re.fullmatch(rb"[-A-Za-z0-9 ]+", options) else b""
    # To sh three quotes are an empty string and a quote; to Python they are a string that nobody reads.
    beside = b'"$(dirname -- "$(realpath -- "$0")")"'
    head = b"#!/bin/sh\n'''exec' %b/'%b'%b \"$0\" \"$@\"\n' '''\n" % (beside, name, options)
    return head + data[found.end() :]


def _config(data: bytes) -> bytes:
    """pyvenv.cfg without the line that only tells where it was made."""
    return b"".join(line for line in data.splitlines(True) if line.partition(b"=")[0].strip() != b"command")


def compile_all(tree: str, venv: str, environ: Mapping[str, str]) -> str | None:
    """Precompile the packages of an environment; a problem in words.

    With unchecked hashes the byte code holds whatever the times of the files are, and nobody ever tries to write it
    anew. The names in it are relative to the tree: Python puts the real ones in when it imports, so they are equal in
    all releases. -I and -S: nothing of the environment itself is run for it.
    """
    interpreter = os.path.realpath(f"{tree}/{venv}/bin/python")
    if interpreter.startswith(f"{os.path.realpath(tree)}/") or not is_trusted(interpreter):
        return "its interpreter is none of this machine's own; it was not precompiled"
    command = [interpreter, "-I", "-S", "-m", "compileall", "-q", "-q", "-f", "--invalidation-mode", "unchecked-hash"]
    done = subprocess.run(
        [*command, "-s", tree, f"{tree}/{venv}/lib"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=dict(environ), check=False,
        preexec_fn=programs.die_with_parent,
    )  # fmt: skip
    # 1: some files are of another version of Python, as packages have them for testing.
    if done.returncode in (0, 1) and not done.stderr.strip():
        return None
    return f"could not be precompiled: {done.stderr.decode('utf-8', 'replace').strip()[-300:]}"
