"""Small templates of real Node and Python bots, and what to ask of a fleet that has them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from fleet_house import WITHIN_S, ids

NODE = """
const fs = require("fs"), path = require("path");
const file = path.join(__dirname, "session.json");
if (!fs.existsSync(file)) fs.writeFileSync(file, JSON.stringify({ of: process.env.BOT_ID }));
console.log("%s", process.env.BOT_ID, process.env.MOOD, require("dep"), JSON.parse(fs.readFileSync(file)).of);
setInterval(() => {}, 1000);
"""
PYTHON = """
import json, os, sys, time
from vendor import dep
file = os.path.join(os.path.dirname(os.path.abspath(__file__)), "session.json")
if not os.path.exists(file):
    with open(file, "w") as out:
        json.dump({"of": os.environ["BOT_ID"]}, out)
print("%s", os.environ["BOT_ID"], os.environ["MOOD"], dep.NAME, json.load(open(file))["of"], flush=True)
while True:
    time.sleep(1000)
"""
MANIFEST = """
schema = 1
env = { MOOD = "calm" }
labels = { kind = "demo" }
restart = "on-failure"
memory_mb = 200
[files]
private = ["session.json"]
"""


def write_node(folder, word="one"):
    if shutil.which("node") is None:
        pytest.skip("there is no node here")
    return _write(folder, {"index.js": NODE % word, "node_modules/dep/index.js": 'module.exports = "dep";\n'})


def write_python(folder, word="one"):
    files = {"bot.py": PYTHON % word, "vendor/__init__.py": "", "vendor/dep.py": 'NAME = "dep"\n'}
    return _write(folder, files)


def _write(folder, files):
    for name, text in {**files, "botd-template.toml": MANIFEST}.items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(folder)


def add(fleet, path, name="messenger"):
    return fleet.rpc("templates.add", name=name, path=path)


def create(fleet, bot_id, template="messenger", *, start=True, **own):
    spec = {"id": bot_id, "template": template, **own}
    return fleet.rpc("bots.create", spec=spec, start=start, timeout_s=WITHIN_S)["items"][0]


def app(fleet, bot_id, file=""):
    return Path(fleet.home, "bots", bot_id, "app", file)


def session(fleet, bot_id):
    """What a bot wrote beside its code."""
    return json.loads(app(fleet, bot_id, "session.json").read_text())["of"]


def template(fleet, name="messenger"):
    """Its row, or None."""
    return next((one for one in fleet.rpc("templates.list")["items"] if one["name"] == name), None)


def forget(fleet):
    """Every bot and every template goes."""
    fleet.clear()
    for one in fleet.rpc("templates.list")["items"]:
        fleet.rpc("templates.remove", name=one["name"])


def restart(fleet, bot_id):
    return fleet.rpc("bots.restart", select=ids(bot_id), timeout_s=WITHIN_S)["items"][0]
