"""A home with templates and bots' folders, without a daemon: what the tests of a bot's folder live in."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from botd.contract.paths import Paths
from botd.storage import folders, layout, releases

BOT = "alice/shop"


class House:
    """`source` is what a person edits, `release` what is made of it, `bring` what a bot gets."""

    def __init__(self):
        self.home = tempfile.mkdtemp(prefix="b", dir="/tmp")
        self.paths = Paths(self.home)
        folders.prepare_home(self.paths)
        self._sources = tempfile.mkdtemp(prefix="s", dir="/tmp")

        self._made = {}

    def clear(self):
        """All but the templates goes."""
        for name in sorted(os.listdir(self.home)):
            if name != "templates":
                self._remove(f"{self.home}/{name}")
        folders.prepare_home(self.paths)

    def close(self):
        self._remove(self.home, self._sources)

    @staticmethod
    def _remove(*folders):
        if os.geteuid() != 0:
            # Releases are read-only folders, in which only root can remove anything.
            subprocess.run(["chmod", "-R", "u+rwX", *folders], check=False)
        subprocess.run(["rm", "-rf", *folders], check=True)

    # --- templates --------------------------------------------------------------------------------------------

    def source(self, files, name="messenger"):
        """A folder with these files: path -> text, a link (a tuple with its target), or None for a folder."""
        root = f"{self._sources}/{name}"
        subprocess.run(["rm", "-rf", root], check=True)
        os.makedirs(root)
        for path, what in files.items():
            at = f"{root}/{path}"
            os.makedirs(os.path.dirname(at), exist_ok=True)
            if what is None:
                os.mkdir(at)
            elif isinstance(what, tuple):
                os.symlink(what[0], at)
            else:
                with open(at, "w") as file:
                    file.write(what)
        return root

    def release(self, files, name="messenger"):
        """A release of a template with these files, or of the folder that is named."""
        key = name, repr(files)
        if isinstance(files, str) or key not in self._made:
            source = files if isinstance(files, str) else self.source(files, name)
            self._made[key] = releases.add(self.paths, name, source).hash
        return releases.load(self.paths, name, self._made[key])

    # --- bots -------------------------------------------------------------------------------------------------

    def bring(self, release, bot=BOT, **options):
        return layout.bring(self.paths, bot, release, **options)

    def app(self, path="", bot=BOT):
        return f"{self.paths.bot_app(bot)}/{path}".rstrip("/")

    def data(self, path="", bot=BOT):
        return f"{self.paths.bot_data(bot)}/{path}".rstrip("/")

    def run(self, *command, bot=BOT, env=None, check=True):
        """Run a program as the keeper does: in app/, with an environment that says nothing special. Its output."""
        done = subprocess.run(
            command,
            cwd=self.app(bot=bot),
            env={"PATH": os.environ["PATH"], "HOME": self.data(bot=bot), **(env or {})},
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout.strip() if check else done

    def node(self, *arguments, **options):
        return self.run("node", *arguments, **options)

    def python(self, *arguments, **options):
        return self.run(sys.executable, *arguments, **options)


def read(path):
    with open(path) as file:
        return file.read()


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)


def picture(root):
    """Everything below a folder: path -> text of a file, target of a link, None for a folder."""
    found = {}
    for here, names, files in os.walk(root):
        for name in (*names, *files):
            at = f"{here}/{name}"
            path = os.path.relpath(at, root)
            if os.path.islink(at):
                found[path] = ("->", os.readlink(at))
            elif os.path.isdir(at):
                found[path] = None
            elif os.path.isfile(at):
                with open(at, errors="surrogateescape") as file:
                    found[path] = file.read()
            else:
                found[path] = "something else"
    return found
