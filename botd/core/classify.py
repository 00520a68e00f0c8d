"""What of a template is shared, copied, private or left out, and why. Pure: names, kinds and sizes in, classes out.

A decision about a folder holds for everything in it, unless the manifest names something below it. A *unit* is a
maximal subtree of one class: `node_modules` with its thousands of files is one, and so one link in a bot's folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from botd.contract.template import FILE_NAME
from botd.core import patterns
from botd.core.links import leads_to
from botd.core.patterns import Pattern

Class = Literal["link", "copy", "private", "ignored"]
Type = Literal["f", "d", "l"]

BIG = 1 << 20
"""Bytes from which a file that no program is likely to write is shared instead of copied."""

DEPENDENCIES = frozenset(
    {"node_modules", "bower_components", ".venv", "venv", "vendor", "site-packages", "__pypackages__"}
)
_IGNORED = frozenset({".git", ".hg", ".svn", ".DS_Store", "__pycache__", ".botdignore", FILE_NAME})
_IGNORED_ENDS = (".pyc", ".swp", "~")
_CODE = (".js", ".mjs", ".cjs", ".ts", ".mts", ".cts", ".jsx", ".tsx", ".py", ".pyw", ".sh", ".wasm", ".node", ".so")
_WRITTEN = (".json", ".jsonl", ".json5", ".txt", ".csv", ".log", ".ini", ".toml", ".yaml", ".yml", ".xml")
"""Also big, these are often what a program writes back to where it read them."""
_PRIVATE_FOLDERS = frozenset({"data", "storage", "session", "sessions"})
_SECRET_FOLDERS = frozenset({"session", "sessions"})
_EXAMPLES = (".example", ".sample", ".template", ".dist", ".defaults")


class Found(NamedTuple):
    """Something in a source. `path`: relative, with slashes; `target`: where a link says it leads."""

    path: str
    type: Type
    x: bool
    bytes: int
    target: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """`firm`: what is below follows it; `secret`: it never enters a release."""

    cls: Class
    why: str
    firm: bool = False
    secret: bool = False


@dataclass(frozen=True, slots=True)
class Unit:
    """A maximal subtree of one class; a link counts as a file. `files`, `bytes`: what of it the release has (0 for what
    is left out, and for a private path that only bots have).
    """

    path: str
    kind: Literal["file", "dir"]
    cls: Class
    why: str
    files: int
    bytes: int


_REST = Decision("copy", "first-party: small, and its own folder stays private")


class Rules:
    """The rules in force: those of the manifest's [files], of .botdignore, and the built-in ones."""

    def __init__(self, files: Mapping[str, Sequence[str]] | None = None, ignore_lines: Iterable[str] = ()) -> None:
        given = files or {}
        self._explicit: list[tuple[Class, list[Pattern]]] = [
            (cls, [patterns.compile_pattern(text) for text in given.get(cls, ())])
            for cls in ("private", "copy", "link")  # in this order: who says private means it
        ]
        self._ignore = [patterns.compile_pattern(text) for text in given.get("ignore", ())]
        self._ignore_file = patterns.compile_lines(ignore_lines)
        self.declared = tuple(text for text in given.get("private", ()) if patterns.is_literal(text))
        """Private paths that bots have even when the source lacks them; a slash at the end means a folder."""

    def ignored(self, path: str, folder: bool) -> str | None:
        """Why `path` is left out as a whole, None when it is not. Asked while walking, from the root downwards."""
        name = path.rpartition("/")[2]
        if name in _IGNORED or name.endswith(_IGNORED_ENDS):
            return f"built-in: {name if name in _IGNORED else '*' + _ending(name)}"
        if name == ".cache" and path.endswith("node_modules/.cache"):
            return "built-in: node_modules/.cache"
        if self._explicit_match(path, folder) is not None:
            return None
        found = patterns.first(self._ignore, path, folder)
        if found is not None:
            return f"the manifest: ignore = {found.text!r}"
        found = patterns.last(self._ignore_file, path, folder)
        return None if found is None else f".botdignore: {found.text}"

    def _explicit_match(self, path: str, folder: bool) -> Decision | None:
        for cls, those in self._explicit:
            found = patterns.first(those, path, folder)
            if found is not None:
                return Decision(cls, f"the manifest: {cls} = {found.text!r}", firm=True)
        return None

    def decide(self, found: Found, above: Decision | None, code_below: bool) -> Decision:
        """The class of one path. `above`: that of its folder; `code_below`: a folder that has programs in it."""
        name = found.path.rpartition("/")[2]
        decision = self._explicit_match(found.path, found.type == "d")
        if decision is None and above is not None and above.firm:
            decision = above
        if decision is None:
            decision = _by_rule(found, name, code_below)
        if decision.cls == "private" and found.type == "l" and (above is None or above.cls != "private"):
            # Moved into the data folder it would lead elsewhere.
            return decision if decision.secret else Decision("copy", "a link: it stays where it leads from")
        if decision.cls == "private" and not decision.secret and found.type != "d" and _is_secret(name):
            return Decision("private", f"{decision.why}; looks like a secret: never in a release", True, True)
        return decision


def _by_rule(found: Found, name: str, code_below: bool) -> Decision:
    at_root = "/" not in found.path
    if found.type == "d":
        if name in DEPENDENCIES:
            return Decision("link", f"dependencies: {name} is shared", firm=True)
        if at_root and name in _PRIVATE_FOLDERS:
            if code_below:
                return Decision("copy", f"{name}/ is private by rule, but there are programs in it")
            secret = name in _SECRET_FOLDERS
            why = f"private by rule: {name}/" + ("; sessions are never in a release" if secret else "")
            return Decision("private", why, firm=True, secret=secret)
        return _REST
    if _is_secret(name):
        return Decision("private", f"private by rule: {name}; looks like a secret: never in a release", True, True)
    if (at_root and name == "config.json") or ".sqlite" in name or name.endswith(".db"):
        return Decision("private", "private by rule: bots write their own", firm=True)
    big = found.type == "f" and found.bytes >= BIG and not found.x
    if big and not name.lower().endswith(_CODE + _WRITTEN):
        return Decision("link", "big and read only: shared", firm=True)
    return _REST


def _is_secret(name: str) -> bool:
    if name == "appstate.json" or name.endswith((".pem", ".key")):
        return True
    if name.startswith(".env"):
        return not name.endswith(_EXAMPLES)
    return name.startswith(("session", "cookies")) and name.endswith(".json")


def _ending(name: str) -> str:
    return next(end for end in _IGNORED_ENDS if name.endswith(end))


def decide_all(found: Sequence[Found], rules: Rules) -> dict[str, Decision]:
    """The decision about every path. `found` has folders before what is in them.

    A link among dependencies that leads to first-party code is no dependency: it is made anew in each bot's folder,
    or the shared one would lead every bot to code that all of them share.
    """
    code = {
        f.path.partition("/")[0]
        for f in found
        if f.type == "f" and "/" in f.path and f.path.endswith(_CODE) and not _among_dependencies(f.path)
    }
    out: dict[str, Decision] = {}
    for one in found:
        out[one.path] = rules.decide(one, out.get(one.path.rpartition("/")[0]), one.path in code)
    links = {one.path: one.target for one in found if one.type == "l"}
    for path in links:
        if out[path].cls != "link":
            continue
        end = leads_to(path, links)
        if end is not None and end in out and out[end].cls != "link":
            out[path] = Decision("copy", f"leads to first-party code: {end}")
    return out


def _among_dependencies(path: str) -> bool:
    return not DEPENDENCIES.isdisjoint(path.split("/"))


class _Node:
    __slots__ = ("bytes", "classes", "decision", "files", "folder", "inner")

    def __init__(self, decision: Decision | None, folder: bool) -> None:
        self.decision = decision
        self.folder = folder
        self.inner: dict[str, _Node] = {}
        self.files = 0
        self.bytes = 0
        self.classes: set[Class] = set()


def units(
    found: Sequence[Found], decisions: Mapping[str, Decision], ignored: Mapping[str, tuple[bool, str]], rules: Rules
) -> tuple[Unit, ...]:
    """The units of a tree, sorted by path. `ignored`: path -> (is it a folder, why)."""
    root = _Node(None, True)
    for one in found:
        decision = decisions[one.path]
        node = _at(root, one.path)
        node.decision, node.folder = decision, one.type == "d"
        if one.type != "d" and not decision.secret:
            node.files, node.bytes = 1, one.bytes
    files = {one.path for one in found if one.type != "d"}
    for text in rules.declared:
        path = text.strip("/")
        if any(path.startswith(f"{file}/") for file in files):
            continue  # below a file there is nothing
        node = _at(root, path)
        if node.decision is None:
            node.decision = Decision("private", f"the manifest: private = {text!r}", firm=True)
            node.folder = text.endswith("/")
    out = [Unit(path, "dir" if folder else "file", "ignored", why, 0, 0) for path, (folder, why) in ignored.items()]
    for name, node in root.inner.items():
        _sum_up(node)
        _collect(name, node, out)
    return tuple(sorted(out, key=lambda unit: unit.path))


def _at(root: _Node, path: str) -> _Node:
    node = root
    for part in path.split("/"):
        node = node.inner.setdefault(part, _Node(None, True))
    return node


def _sum_up(node: _Node) -> None:
    if node.decision is not None:
        node.classes.add(node.decision.cls)
    for below in node.inner.values():
        _sum_up(below)
        node.files += below.files
        node.bytes += below.bytes
        node.classes |= below.classes


def _collect(path: str, node: _Node, out: list[Unit]) -> None:
    if node.decision is not None and len(node.classes) == 1:
        kind: Literal["file", "dir"] = "dir" if node.folder else "file"
        out.append(Unit(path, kind, node.decision.cls, node.decision.why, node.files, node.bytes))
        return
    for name, below in node.inner.items():
        _collect(f"{path}/{name}", below, out)
