"""Templates of the size that people have: a Node bot with its packages, a Python bot with its environment.

No network: packages are npm's own where npm is installed, which is a real tree, and made ones for the rest.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

NODE_FILES, NODE_BYTES = 3000, 35_000_000
PYTHON_FILES, PYTHON_BYTES = 1500, 20_000_000
_SEED = 20_240_501
_NODE_BOT = """
const fs = require('fs'), path = require('path');
const { size } = require('./src/catalogue');
const file = path.join(__dirname, 'session.json');
const before = fs.existsSync(file) ? JSON.parse(fs.readFileSync(file)).id : null;
fs.writeFileSync(file, JSON.stringify({ id: process.env.BOT_ID }));
fs.writeFileSync('verdict.json', JSON.stringify({ id: process.env.BOT_ID, before, packages: size,
  code: __dirname, folder: process.cwd() }));
setInterval(() => {}, 1 << 30);
"""
_NODE_CATALOGUE = """
const fs = require('fs'), path = require('path');
const names = JSON.parse(fs.readFileSync(path.join(__dirname, 'packages.json')));
exports.size = names.map((name) => require(name)).length;
"""
_PYTHON_BOT = """
import json, os, signal
import shared_000, shared_001.part_01
here = os.path.dirname(os.path.abspath(__file__))
path = os.path.join(here, "session.json")
before = json.load(open(path))["id"] if os.path.exists(path) else None
with open(path, "w") as file:
    json.dump({"id": os.environ["BOT_ID"]}, file)
with open("verdict.json", "w") as file:
    json.dump({"id": os.environ["BOT_ID"], "before": before, "packages": 2, "code": here, "folder": os.getcwd()}, file)
signal.pause()
"""


def node(folder: str) -> None:
    """A template of NODE_FILES files and NODE_BYTES bytes in the new folder `folder`."""
    chance = random.Random(_SEED)
    _write(f"{folder}/index.js", _NODE_BOT)
    _write(f"{folder}/src/catalogue.js", _NODE_CATALOGUE)
    for number in range(14):
        _write(f"{folder}/src/commands/command-{number:02}.js", _javascript(chance, 2500))
    for number in range(6):
        _write(f"{folder}/src/events/event-{number}.js", _javascript(chance, 1500))
    _write(f"{folder}/README.md", _text(chance, 4000))
    _write(f"{folder}/config.json", '{"prefix": "!"}')
    _write(f"{folder}/package.json", '{"name": "messenger", "version": "1.0.0", "main": "index.js"}')
    _real_packages(f"{folder}/node_modules")
    made = _fill(folder, chance, NODE_FILES, NODE_BYTES)
    _write(f"{folder}/src/packages.json", str(made[:3]).replace("'", '"'))


def python(folder: str) -> None:
    """A template with a virtual environment of some PYTHON_FILES files and PYTHON_BYTES bytes, compiled as pip does."""
    chance = random.Random(_SEED)
    _write(f"{folder}/bot.py", _PYTHON_BOT)
    for number in range(14):
        _write(f"{folder}/commands/command_{number:02}.py", _python(chance, 2500))
    _write(f"{folder}/commands/__init__.py", "")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", f"{folder}/.venv"], check=True)
    (packages,) = Path(folder).glob(".venv/lib/python*/site-packages")
    each = PYTHON_BYTES // PYTHON_FILES
    for number in range(PYTHON_FILES // 15):
        package = packages / f"shared_{number:03}"
        _write(f"{package}/__init__.py", f"NAME = {number}\n")
        for part in range(14):
            _write(f"{package}/part_{part:02}.py", _python(chance, int(each * chance.uniform(0.3, 1.7))))
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(packages)], check=True)


def _real_packages(folder: str) -> None:
    npm = shutil.which("npm")
    if npm is not None:
        own = Path(npm).resolve().parent.parent / "node_modules"
        if own.is_dir():
            shutil.copytree(own, folder, symlinks=True)


def _fill(folder: str, chance: random.Random, files: int, size: int) -> list[str]:
    """Add packages until there are so many files and bytes; their names."""
    there = [Path(here, name) for here, _, names in os.walk(folder) for name in names]
    left, bytes_left = files - len(there) - 1, size - sum(path.lstat().st_size for path in there)
    names: list[str] = []
    while left > 0:
        count = min(left, chance.randint(4, 40))
        name = f"@made/pack-{len(names):03}" if len(names) % 7 == 3 else f"made-{len(names):03}"
        names.append(name)
        root = f"{folder}/node_modules/{name}"
        share = max(200, bytes_left // left)
        _write(f"{root}/package.json", f'{{"name": "{name}", "version": "1.0.0", "main": "lib"}}')
        _write(f"{root}/lib/index.js", "module.exports = __dirname;\n")
        for number in range(count - 2):
            _write(f"{root}/lib/part-{number}.js", _javascript(chance, int(share * chance.uniform(0.2, 1.8))))
        left -= max(2, count)
        bytes_left -= share * max(0, count - 2)
    return names


def _javascript(chance: random.Random, size: int) -> str:
    return f"exports.name = {chance.randrange(10**9)};\n// {_text(chance, size)}\n"


def _python(chance: random.Random, size: int) -> str:
    return f"NAME = {chance.randrange(10**9)}\n# {_text(chance, size)}\n"


def _text(chance: random.Random, size: int) -> str:
    """No two files alike, or they would be stored once."""
    return chance.randbytes(max(1, size // 2)).hex()


def _write(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Path(path).write_text(text)
