"""The wheel: what is in it, and that the programs of an installed one run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from botd import __version__

ROOT = Path(__file__).parent.parent
SUFFIXES = {".py", ".typed", ".json", ".md", ".toml", ".js"}
PATIENCE_S = 120


def run(*command: str | Path, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, **options)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built as pip builds it for anybody, with the build tool from the package index."""
    folder = tmp_path_factory.mktemp("wheel")
    source = _used_checkout(folder / "source")
    done = run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "--wheel-dir", folder, source)
    if re.search(r"No matching distribution found for hatchling", done.stderr):
        pytest.skip("no package index that has hatchling, which builds the wheel")
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def _used_checkout(copy: Path) -> Path:
    """The checkout as it looks after somebody has tried the examples and the programs."""
    copy.mkdir()
    for name in ("botd", "botctl", "examples", "tests"):
        shutil.copytree(ROOT / name, copy / name)
    for name in ("pyproject.toml", "README.md", "LICENSE", "bot_config.json", ".gitignore"):
        shutil.copy(ROOT / name, copy / name)
    for name in (
        "examples/secrets/alice/app_secret",
        "examples/replies.jsonl",
        "examples/messenger-node/node_modules/x/x.js",
        "examples/messenger-python/data/seen.json",
        "examples/graph_api/__pycache__/client.pyc",
        "botd/__pycache__/app.pyc",
    ):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text("left behind")
    return copy


@pytest.fixture(scope="module")
def names(wheel) -> set[str]:
    """The files of the wheel beside its metadata."""
    return {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The bin folder of an environment with the wheel in it, its dependencies borrowed from the running one."""
    home = tmp_path_factory.mktemp("installed")
    assert run(sys.executable, "-m", "venv", "--without-pip", home).returncode == 0
    pip = (sys.executable, "-m", "pip", "--python", home / "bin" / "python")
    done = run(*pip, "install", "--quiet", "--no-deps", "--no-index", "--no-compile", wheel)
    assert done.returncode == 0, done.stderr
    (packages,) = home.glob("lib/python*/site-packages")
    # Only its path: the editable installation of the checkout, which is in a .pth file there, is not followed.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin"


def call(installed: Path, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "BOTD_HOME": str(home / "fleet"), "BOTCTL_AUTOSTART": "0"}
    return run(installed / words[0], *words[1:], cwd=home, env=environment)


def test_every_module_of_the_checkout_is_in_the_wheel(names):
    for package in ("botd", "botctl"):
        for path in (ROOT / package).rglob("*.py"):
            assert str(path.relative_to(ROOT)) in names


def test_the_reference_configuration_and_the_examples_are_in_the_wheel(names, wheel):
    shipped = zipfile.ZipFile(wheel).read("botd/bot_config.json")
    assert shipped == (ROOT / "bot_config.json").read_bytes()
    examples = {name.removeprefix("botctl/") for name in names if name.startswith("botctl/examples/")}
    assert examples == {
        f"examples/{path}"
        for path in (
            "README.md",
            "fleet.toml",
            "make_secrets.py",
            "graph_api/client.py",
            "graph_api/stand_in.py",
            "messenger-node/bot.js",
            "messenger-python/bot.py",
        )
    }


def test_nothing_else_is_in_the_wheel(names):
    for name in names - {"botctl/bin/botctl", f"botd-{__version__}.data/scripts/botctl"}:
        assert name.startswith(("botd/", "botctl/")), name
        assert Path(name).suffix in SUFFIXES, name
    for word in ("secrets/", "test", "__pycache__", "node_modules", "data/seen", ".jsonl"):
        found = [name for name in names if word in name and name != "botctl/secrets.py"]
        assert not found, found


def test_the_metadata_names_python_and_the_dependencies(wheel):
    text = zipfile.ZipFile(wheel).read(f"botd-{__version__}.dist-info/METADATA").decode()
    assert "\nRequires-Python: >=3.11\n" in text
    needed = set(re.findall(r"^Requires-Dist: ([a-z-]+)[^;\n]*$", text, re.MULTILINE))
    assert needed == {"filelock", "psutil", "pydantic", "rich", "tomli-w", "typer"}


@pytest.mark.parametrize("program", ["botctl", "botd"])
def test_an_installed_program_says_its_version(installed, tmp_path, program):
    done = call(installed, tmp_path, program, "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{program} {__version__}\n", "")


def test_the_installed_one_runs_its_own_code(installed, tmp_path):
    """Not the checkout's, which the interpreter of these tests has on its path."""
    where = "import botd, botctl; print(botd.__file__, botctl.__file__)"
    done = call(installed, tmp_path, "python", "-c", where)
    assert done.returncode == 0, done.stderr
    assert all(path.startswith(str(installed.parent)) for path in done.stdout.split())


def test_an_installed_botctl_does_without_the_checkout(installed, tmp_path):
    done = call(installed, tmp_path, "botctl", "list")
    assert done.returncode == 7, done.stderr
    assert "botd is not running" in done.stderr
    schema = call(installed, tmp_path, "botctl", "config", "schema")
    assert schema.returncode == 0, schema.stderr
    assert "resourceManagement" in json.loads(schema.stdout)["properties"]
    shown = call(installed, tmp_path, "botctl", "--help")
    assert shown.returncode == 0, shown.stderr
    assert "apply" in shown.stdout
    assert not os.path.exists(tmp_path / "fleet"), "looking must not make a fleet"
