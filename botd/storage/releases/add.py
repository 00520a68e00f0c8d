"""A new release: looked at, classified, brought in, named by its content, and there at once or not at all.

All of it happens in a private folder of .staging. It is on disk (syncfs) before anything of it can be seen: before its
files become objects that others share, and before the one rename that makes it a release.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botd.contract.errors import BotdError, invalid
from botd.contract.manifest import NAME_PATTERN
from botd.contract.paths import Paths
from botd.contract.template import FILE_NAME
from botd.contract.vocabulary import NAME_RULE, Exit
from botd.core import classify, entrypoint
from botd.core.classify import Decision, Found, Rules
from botd.core.links import leads_to
from botd.crash import crash_point
from botd.storage import tree
from botd.storage.releases import build, model, programs, scan, source, venv
from botd.storage.releases.intake import Intake, Progress
from botd.storage.releases.publish import publish
from botd.storage.releases.scan import Scan
from botd.storage.releases.source import open_source
from botd.storage.releases.staging import Stage, recover, unavailable

_ATTEMPTS = 3
_TOLD_MAX = 100
_KNOWN = frozenset({FILE_NAME, ".botdignore"})
"""They say what a release is to be, and nobody expects them in it."""
_is_name = re.compile(NAME_PATTERN).match


@dataclass(frozen=True, slots=True)
class Added:
    """A release that is there now. `new`: it was not before; `files`, `bytes`: what it has; `stored_bytes`: what it
    took on disk beyond what others had; `notes`: what its owner should know; `left_out`: "path: why" of the source.
    """

    hash: str
    new: bool
    files: int
    bytes: int
    stored_bytes: int
    notes: list[str]
    left_out: list[str]


def add(
    paths: Paths,
    template: str,
    where: str,
    *,
    manifest: str | Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    dry: bool = False,
) -> Added:
    """Make a release of a folder or an archive. May take long; may be killed at any instant.

    With `dry` everything is done but the last step: what it would be is told, and nothing of it kept.

    `manifest`: a file, or what stands in one; default: botd-template.toml in the source. Raises BotdError: invalid
    (exit 9), naming the path and what to do; denied for what cannot be read; conflict when the source does not hold
    still; unavailable when the disk refuses.
    """
    if not _is_name(template):
        raise invalid("name", f"{template!r} is no name of a template", hint=f"a name is {NAME_RULE}")
    recover(paths)
    try:
        with Stage(paths) as stage:
            opened = open_source(paths, where, stage.path, manifest)
            try:
                for attempt in range(_ATTEMPTS):
                    try:
                        return _Addition(paths, template, stage.path, opened, manifest, progress, dry).run()
                    except scan.Changed as change:
                        if attempt == _ATTEMPTS - 1:
                            raise BotdError(
                                "conflict",
                                f"{scan.shown(change.path) or where}: changes while it is read",
                                hint="stop what writes there, or leave it out (.botdignore), and try again",
                            ) from None
                        _set_aside(stage.path, attempt)
            finally:
                os.close(opened.fd)
    except OSError as error:
        raise unavailable(error.filename or paths.templates, error) from error
    raise AssertionError("unreachable")


def _set_aside(stage: str, attempt: int) -> None:
    for name in ("release", "made"):
        if os.path.lexists(f"{stage}/{name}"):
            os.rename(f"{stage}/{name}", f"{stage}/{name}.{attempt}")


class _Addition:
    """One attempt."""

    def __init__(
        self,
        paths: Paths,
        template: str,
        stage: str,
        opened: source.Source,
        manifest: str | Mapping[str, Any] | None,
        progress: Progress | None,
        dry: bool,
    ) -> None:
        self._paths = paths
        self._template = template
        self._stage = stage
        self._root = opened.fd
        self._path = opened.path
        self._given = manifest
        self._progress = progress
        self._dry = dry
        self._notes = list(opened.notes)

    def run(self) -> Added:
        manifest = source.manifest_of(self._root, self._given)
        lines = (source.read(self._root, ".botdignore") or b"").decode("utf-8", "surrogateescape").splitlines()
        rules = Rules(manifest.get("files"), lines)
        left_out = self._left_out(manifest)
        seen = scan.scan(self._root, rules, left_out, manifest["max_files"], manifest["max_bytes"])
        crash_point("store-scanned")
        decisions = classify.decide_all(seen.found, rules)
        secret = frozenset(path for path, decision in decisions.items() if decision.secret)
        wanted = [one for one in seen.found if one.path not in secret]
        self._notes += seen.notes
        venvs = venv.Venvs(seen.venvs)
        self._check_links(seen, wanted, venvs)
        manifest = self._complete(manifest, seen, wanted)

        intake = Intake(self._paths, self._stage, self._progress)
        intake.bring(self._root, seen, wanted, venvs)
        scan.check_unchanged(self._root, seen, rules, left_out, secret)
        crash_point("store-brought")
        made = self._make_venv(manifest, intake)
        environments = [*seen.venvs, *([build.VENV] if made else [])]
        for folder in environments:
            problem = venv.compile_all(intake.tree, folder, programs.environ(os.environ))
            if problem:
                self._notes.append(f"{folder}: {problem}")
            intake.adopt(folder)
        crash_point("store-compiled")
        self._notes += venvs.notes
        known = {one.path for one in seen.found}
        more = [Found(e.path, e.type, e.x, e.bytes, e.digest) for e in intake.entries if e.path not in known]
        sizes = {entry.path: entry.bytes for entry in intake.entries}
        every = [one._replace(bytes=sizes.get(one.path, one.bytes)) for one in seen.found] + more
        decisions = classify.decide_all([*seen.found, *more], rules)
        units = classify.units(every, decisions, seen.ignored, rules)
        hash = model.compute_hash(manifest, intake.entries)
        index = model.index_document(hash, units, intake.entries)
        if self._dry:
            new, stored = hash not in model.list_releases(self._paths, self._template), 0
        else:
            new, stored = publish(self._paths, self._template, manifest, index, intake)
        return Added(
            hash,
            new,
            index["files"],
            index["bytes"],
            stored,
            list(dict.fromkeys(self._notes))[:_TOLD_MAX],
            _told(seen, decisions),
        )

    @staticmethod
    def _left_out(manifest: Mapping[str, Any]) -> dict[str, str]:
        python = manifest.get("python", {})
        out = {}
        if "requirements" in python:
            out[build.VENV] = f"made anew from {python['requirements']}"
        if "wheels" in python:
            out[python["wheels"].rstrip("/")] = f"installed into {build.VENV}"
        return out

    @staticmethod
    def _check_links(seen: Scan, wanted: list[Found], venvs: venv.Venvs) -> None:
        links = {one.path: one.target for one in seen.found if one.type == "l"}
        inner = {path: target for path, target in links.items() if not target.startswith("/")}
        for one in wanted:
            if one.type != "l" or venvs.interpreter(one):
                continue
            what = f"is a link to {scan.shown(one.target)!r}"
            if one.target.startswith("/"):
                hint = "make it relative, put what it leads to into the template, or leave it out (.botdignore)"
                if "/bin/python" in one.path:
                    hint = "it is no Python of this machine: make the environment here, or use [python] requirements"
                raise scan.refused(one.path, f"{what}, an absolute path", hint)
            if leads_to(one.path, inner) is None:
                hint = "put what it leads to into the template, or leave it out: name it in .botdignore"
                raise scan.refused(one.path, f"{what}, which leads out of the template or in a circle", hint)

    def _complete(self, manifest: dict[str, Any], seen: Scan, wanted: list[Found]) -> dict[str, Any]:
        """The manifest with all that was found out: it is what the release goes by."""
        out = dict(manifest)
        files = {one.path for one in wanted if one.type != "d"}
        package = self._package(files)
        if "command" not in out:
            found = entrypoint.find(files, package)
            if found is None:
                self._notes.append("no command: none is in the manifest, and no program was recognised; bots bring one")
            else:
                out["command"] = found[0]
                self._notes.append(f"the command is {' '.join(found[0])}: {found[1]}")
        python = dict(out.get("python", {}))
        if "requirements" in python:
            if python["requirements"] not in files:
                raise invalid(
                    "python.requirements",
                    f"{python['requirements']} is not there",
                    hint="write its path from the root of the template; it must not be ignored",
                    exit=Exit.INVALID,
                )
            python["venv"] = build.VENV
        elif "venv" in python:
            python["venv"] = python["venv"].rstrip("/")
            if python["venv"] not in seen.venvs:
                why = f"{python['venv']} is no virtual environment (it has no {scan.VENV_MARK})"
                raise invalid("python.venv", why, hint="make one: python3 -m venv .venv", exit=Exit.INVALID)
        else:
            own = next((name for name in (".venv", "venv") if name in seen.venvs), None)
            if own is not None:
                python["venv"] = own
        if python:
            out["python"] = python
        if out.get("node", {}).get("check"):
            missing = entrypoint.missing_packages(package, {one.path for one in wanted})
            self._notes += [f"package.json: {name} is not in node_modules; npm install brings it" for name in missing]
        return out

    def _package(self, files: set[str]) -> dict[str, Any] | None:
        if "package.json" not in files:
            return None
        try:
            package = json.loads(source.read(self._root, "package.json") or b"")
        except (ValueError, RecursionError):
            self._notes.append("package.json: is no JSON")
            return None
        return package if isinstance(package, dict) else None

    def _make_venv(self, manifest: Mapping[str, Any], intake: Intake) -> bool:
        """Make the environment that the manifest asks for, and bring it into the tree."""
        python = manifest.get("python", {})
        if "requirements" not in python:
            return False
        folder = f"{self._stage}/made"
        build.make(folder, intake.tree, self._path, python)
        fd = os.open(folder, tree.DIRECTORY)
        try:
            seen = scan.scan(fd, Rules(), {}, manifest["max_files"], manifest["max_bytes"])
            intake.bring(fd, seen, seen.found, venv.Venvs(seen.venvs))
        finally:
            os.close(fd)
        crash_point("store-venv-brought")
        return True


def _told(seen: Scan, decisions: Mapping[str, Decision]) -> list[str]:
    """What of the source is not in the release, and why; the secrets first."""
    out = sorted(f"{one.path}: {decisions[one.path].why}" for one in seen.found if _is_told(one, decisions))
    out += sorted(f"{path}: {why}" for path, (_, why) in seen.ignored.items() if path not in _KNOWN)
    if seen.byte_code:
        out.append(f"{scan.BYTE_CODE}: built-in: byte code, {seen.byte_code} times")
    more = len(out) - _TOLD_MAX
    return [*out[:_TOLD_MAX], f"and {more} more"] if more > 0 else out


def _is_told(one: Found, decisions: Mapping[str, Decision]) -> bool:
    """Of a folder that is left out with all that is in it the folder alone is told."""
    above = decisions.get(one.path.rpartition("/")[0])
    return decisions[one.path].secret and (above is None or not above.secret)
