"""A home and sources for the tests of the release store."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import tarfile
import tempfile
import zipfile
from pathlib import Path

from botd import crash
from botd.contract.paths import Paths
from botd.storage import releases
from botd.storage.releases import objects

ROOT = Path(__file__).parents[2]


class House:
    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="b", dir="/tmp"))
        self.paths = Paths(str(self.folder / "h"))
        (self.folder / "h").mkdir(0o700)
        self.source = self.folder / "source"
        self.source.mkdir()

    def close(self):
        subprocess.run(["chmod", "-R", "u+rwx", self.folder], check=True)
        subprocess.run(["rm", "-rf", self.folder], check=True)

    def write(self, files, source=None):
        """Files by their paths; a value that begins with -> is a link, None a folder."""
        for path, content in files.items():
            target = (source or self.source) / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                target.mkdir(exist_ok=True)
            elif isinstance(content, str) and content.startswith("->"):
                target.symlink_to(content[2:])
            else:
                target.write_bytes(content if isinstance(content, bytes) else content.encode())

    def add(self, source=None, template="m", **more):
        return releases.add(self.paths, template, str(source or self.source), **more)

    def load(self, added, template="m"):
        return releases.load(self.paths, template, added.hash)

    def tree(self, added, template="m"):
        return Path(self.load(added, template).tree)

    def paths_of(self, added, template="m"):
        return {entry.path for entry in releases.entries(self.load(added, template))}

    def classes(self, added):
        return {unit.path: unit.cls for unit in self.load(added).units}

    def check_all(self):
        """Nothing half done can be seen: every release is whole, and nothing lies about."""
        for template in self.templates():
            for hash in releases.list_releases(self.paths, template):
                assert releases.verify(releases.load(self.paths, template, hash)) == []

    def check_tidy(self):
        assert [name for name in os.listdir(self.paths.staging) if not name.endswith(".lock")] == []
        assert objects.collect(self.paths, dry=True) == objects.Collected()

    def templates(self):
        return [name for name in sorted(os.listdir(self.paths.templates)) if not name.startswith(".")]

    def die_at(self, point, work, passes=1):
        """Do `work` in a process that dies at the crash point. Whether it did."""
        pid = os.fork()
        if pid == 0:
            try:
                crash._name, crash._passes = point, passes
                work()
            finally:
                os._exit(0)
        _, status = os.waitpid(pid, 0)
        return os.WIFSIGNALED(status) and os.WTERMSIG(status) == 9


def points():
    """All crash points of the store, found in the source."""
    text = "".join(path.read_text() for path in sorted((ROOT / "botd/storage/releases").glob("*.py")))
    return sorted(set(re.findall(r'crash_point\("([^"]+)"\)', text)))


NPM = {
    "package.json": json.dumps({"name": "shop", "main": "index.js", "dependencies": {"a": "1", "@s/b": "1"}}),
    "index.js": "require('a')",
    "lib/util.js": "1",
    "config.json": "{}",
    ".env": "TOKEN=hunter2",
    "data/seed.json": "[]",
    "appstate.json": "[]",
    "node_modules/.package-lock.json": "{}",
    "node_modules/a/index.js": "module.exports = 1",
    "node_modules/a/cli.js": "#!/usr/bin/env node\n",
    "node_modules/.bin/a": "->../a/cli.js",
    "node_modules/@s/b/index.js": "module.exports = 2",
    "node_modules/.cache/x": "x",
    ".git/HEAD": "ref",
}


def tar(path, members, mode="w:gz"):
    """Members: (name, type or content, link target)."""
    with tarfile.open(path, mode) as archive:
        for name, content, *more in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                info.mode = more[0] if more else 0o644
                archive.addfile(info, io.BytesIO(content))
            else:
                info.type = getattr(tarfile, content)
                info.linkname = more[0] if more else ""
                archive.addfile(info)
    return path


def zip_of(path, members):
    """Members: (name, content, Unix mode)."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content, mode in members:
            info = zipfile.ZipInfo(name)
            info.create_system = 3
            info.external_attr = mode << 16
            archive.writestr(info, content)
    return path
