"""What of a template is shared, copied, private or left out."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botd.core.classify import BIG, Found, Rules, decide_all, units
from botd.core.entrypoint import find, missing_packages
from botd.core.links import leads_to
from botd.core.patterns import compile_lines, compile_pattern, last


def tree(*paths):
    """Files (sizes after a colon, `->` for links), and their folders before them."""
    out = {}
    for text in paths:
        path, _, target = text.partition("->")
        path, _, size = path.partition(":")
        folder = path.endswith("/")
        parts = path.strip("/").split("/")
        for i in range(1, len(parts)):
            above = "/".join(parts[:i])
            out.setdefault(above, Found(above, "d", False, 0))
        name = "/".join(parts)
        if folder:
            out[name] = Found(name, "d", False, 0)
        elif target:
            out[name] = Found(name, "l", False, 0, target)
        else:
            out[name] = Found(name, "f", False, int(size or 1))
    return list(out.values())


def classes(found, **files):
    rules = Rules(files)
    kept = [one for one in found if not any(rules.ignored(p, True) for p in above(one.path))]
    kept = [one for one in kept if rules.ignored(one.path, one.type == "d") is None]
    decisions = decide_all(kept, rules)
    return {unit.path: unit for unit in units(kept, decisions, {}, rules)}


def above(path):
    parts = path.split("/")
    return ["/".join(parts[:i]) for i in range(1, len(parts))]


def short(found, **files):
    return {path: unit.cls for path, unit in classes(found, **files).items()}


def test_dependencies_are_one_link_each_wherever_they_are():
    found = tree("index.js", "node_modules/a/config.json", "node_modules/a/cert.pem", "packages/x/node_modules/b/i.js")
    found += tree("packages/x/main.js", ".venv/lib/data/x.py", "vendor/lib.js")
    assert short(found) == {
        "index.js": "copy",
        "node_modules": "link",
        "packages/x/node_modules": "link",
        "packages/x/main.js": "copy",
        ".venv": "link",
        "vendor": "link",
    }


@pytest.mark.parametrize(
    ("path", "cls", "secret"),
    [
        ("appstate.json", "private", True),
        ("lib/appstate.json", "private", True),
        ("config.json", "private", False),
        ("lib/config.json", "copy", False),
        (".env", "private", True),
        (".env.local", "private", True),
        (".env.example", "copy", False),
        ("session-1.json", "private", True),
        ("session.js", "copy", False),
        ("cookies.json", "private", True),
        ("key.pem", "private", True),
        ("a/b.key", "private", True),
        ("bot.sqlite3", "private", False),
        ("bot.sqlite-wal", "private", False),
        ("x/store.db", "private", False),
        ("bot.js", "copy", False),
        (f"model.bin:{BIG}", "link", False),
        (f"model.bin:{BIG - 1}", "copy", False),
        (f"bundle.js:{BIG}", "copy", False),
        (f"users.json:{BIG}", "copy", False),
    ],
)
def test_files_by_rule(path, cls, secret):
    found = tree(path)
    decisions = decide_all(found, Rules())
    decision = decisions[path.partition(":")[0]]
    assert (decision.cls, decision.secret) == (cls, secret)
    assert decision.why


def test_private_folders_are_so_at_the_root_and_without_programs():
    found = tree("data/a.json", "data/appstate.json", "sessions/x", "src/data/y.json", "storage/", "session/index.js")
    got = classes(found)
    assert {path: unit.cls for path, unit in got.items()} == {
        "data": "private",
        "sessions": "private",
        "src": "copy",
        "storage": "private",
        "session": "copy",
    }
    assert got["data"].files == 1  # the login in it is left out
    assert got["sessions"].files == 0
    assert "programs" in got["session"].why


def test_the_manifest_wins_and_is_named():
    found = tree("vendor/a.js", "assets/x.bin", "state/y.json", "certs/ca.pem", "data/d")
    got = classes(found, copy=["vendor/", "certs/*.pem", "data"], link=["assets"], private=["state/"])
    assert {path: unit.cls for path, unit in got.items()} == {
        "vendor": "copy",
        "assets": "link",
        "state": "private",
        "certs": "copy",
        "data": "copy",
    }
    assert got["assets"].why == "the manifest: link = 'assets'"


def test_what_is_named_inside_a_folder_splits_it():
    got = short(
        tree("node_modules/a/i.js", "node_modules/b/x.json", "node_modules/b/i.js"), private=["node_modules/b/x.json"]
    )
    assert got == {"node_modules/a": "link", "node_modules/b/i.js": "link", "node_modules/b/x.json": "private"}
    assert short(tree("src/a.js", "src/.env")) == {"src/a.js": "copy", "src/.env": "private"}


def test_a_folder_with_something_private_alone_in_it_stays_a_folder_of_the_bot():
    assert short(tree("conf/.env")) == {"conf/.env": "private"}
    assert short(tree("empty/")) == {"empty": "copy"}


def test_private_paths_that_the_source_lacks():
    got = classes(tree("src/a.js", "src/b.js"), private=["state.json", "src/login.json", "cache/", "*.tmp"])
    assert {p: (u.kind, u.cls, u.files) for p, u in got.items()} == {
        "src/a.js": ("file", "copy", 1),
        "src/b.js": ("file", "copy", 1),
        "src/login.json": ("file", "private", 0),
        "state.json": ("file", "private", 0),
        "cache": ("dir", "private", 0),
    }


def test_a_link_among_dependencies_to_first_party_code_is_made_anew():
    found = tree(
        "packages/b/i.js", "node_modules/a/i.js", "node_modules/.bin/a->../a/i.js", "node_modules/b->../packages/b"
    )
    assert short(found) == {
        "packages": "copy",
        "node_modules/a": "link",
        "node_modules/.bin": "link",
        "node_modules/b": "copy",
    }


def test_a_private_name_that_is_a_link_stays_in_the_folder():
    assert short(tree("config.json->prod.json", "prod.json"))["config.json"] == "copy"
    assert short(tree(".env->prod.env"))[".env"] == "private"


@pytest.mark.parametrize("path", [".git", "a/.svn", "x/__pycache__", "a.pyc", "b.swp", "c~", "node_modules/.cache"])
def test_what_is_ignored_by_rule(path):
    assert "built-in" in Rules().ignored(path, True)


def test_ignored_by_manifest_and_by_file():
    rules = Rules({"ignore": ["docs/"]}, ["*.log", "!keep.log", "# comment", "", "/top"])
    assert "manifest" in rules.ignored("docs", True)
    assert rules.ignored("docs", False) is None
    assert ".botdignore" in rules.ignored("a/b.log", False)
    assert rules.ignored("a/keep.log", False) is None
    assert rules.ignored("top", False) and not rules.ignored("a/top", False)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("*.js", ["a.js", "x/y/b.js"], ["a.json", "a.js/x"]),
        ("/a.js", ["a.js"], ["x/a.js"]),
        ("src/*.js", ["src/a.js"], ["src/x/a.js", "y/src/a.js"]),
        ("src/**", ["src/a", "src/a/b"], ["src", "xsrc/a"]),
        ("**/b", ["b", "a/b", "a/c/b"], ["ab"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["ab", "a/xb"]),
        ("?.txt", ["a.txt"], ["ab.txt", "/.txt"]),
        ("[a-c].x", ["a.x", "q/c.x"], ["d.x"]),
        ("[!a].x", ["b.x"], ["a.x", "/.x"]),
        ("[", ["["], ["a"]),
        ("[z-a]", ["[z-a]"], ["z"]),
        ("a+b.(c)", ["a+b.(c)"], ["aab.c"]),
    ],
)
def test_patterns(pattern, yes, no):
    made = compile_pattern(pattern)
    assert [path for path in yes if not made.matches(path, False)] == []
    assert [path for path in no if made.matches(path, False)] == []


def test_a_pattern_of_many_stars_is_no_trap():
    assert not compile_pattern("*" * 200 + "x").matches("a" * 5000, False)


@pytest.mark.parametrize(
    ("path", "links", "end"),
    [
        ("l", {"l": "a/b"}, "a/b"),
        ("a/l", {"a/l": "../b"}, "b"),
        ("a/l", {"a/l": ".."}, ""),
        ("a/l", {"a/l": "../.."}, None),
        ("l", {"l": "/etc"}, None),
        ("l", {"l": "l"}, None),
        ("l", {"l": "m/../../x", "m": "a/b"}, "x"),  # what a path means is not what it reads like
        ("l", {"l": "m/../../x", "m": "."}, None),
        ("l", {"l": "a/../../x"}, None),
    ],
)
def test_where_links_lead(path, links, end):
    assert leads_to(path, links) == end


@pytest.mark.parametrize(
    ("files", "package", "command"),
    [
        (["a.js"], {"main": "a.js"}, ["{node}", "a.js"]),
        (["lib/index.js"], {"main": "./lib"}, ["{node}", "lib/index.js"]),
        (["a.js"], {"main": "a"}, ["{node}", "a.js"]),
        (["a.js", "b.js"], {"main": "a.js", "scripts": {"start": "node ./b.js --x"}}, ["{node}", "b.js", "--x"]),
        (["index.js"], {"scripts": {"start": "node gone.js"}}, ["{node}", "index.js"]),
        (["index.js"], {"scripts": {"start": "node index.js && rm x"}, "main": 3}, ["{node}", "index.js"]),
        (["index.js", "main.py"], None, ["{node}", "index.js"]),
        (["app.py", "bot.py"], None, ["{python}", "bot.py"]),
        (["__main__.py"], [], ["{python}", "__main__.py"]),
        (["x.py"], None, None),
    ],
)
def test_the_program_is_recognised(files, package, command):
    found = find(files, package if isinstance(package, dict) else None)
    assert (found and found[0]) == command
    assert found is None or found[1]


def test_missing_packages():
    package = {"dependencies": {"a": "1", "@x/b": "1", "c": "2"}}
    assert missing_packages(package, {"node_modules/a", "node_modules/@x/b"}) == ["c"]
    assert missing_packages({"dependencies": []}, ()) == []


NAMES = st.sampled_from(
    ["a.js", "data", "src", "node_modules", ".env", "config.json", "vendor", "x", "big.bin", "__pycache__", "session"]
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


@st.composite
def trees(draw):
    out = {}
    for path in draw(st.lists(PATHS, min_size=1, max_size=25, unique=True)):
        parts = above(path)
        if any(out.get(part, "d") != "d" for part in parts) or path in out:
            continue
        out.update(dict.fromkeys(parts, "d"))
        out[path] = draw(st.sampled_from("fffdl"))
    return [
        Found(p, t, False, draw(st.sampled_from([1, BIG])) if t == "f" else 0, "a.js" if t == "l" else "")
        for p, t in sorted(out.items())
    ]


MANIFESTS = st.fixed_dictionaries(
    {},
    optional={
        key: st.lists(PATHS | st.sampled_from(["*.js", "x/", "**/a.js"]), max_size=2)
        for key in ("link", "copy", "private")
    },
)


@given(trees(), MANIFESTS)
def test_units_are_disjoint_whole_and_of_one_class(found, files):
    rules = Rules(files)
    decisions = decide_all(found, rules)
    made = units(found, decisions, {}, rules)
    paths = [unit.path for unit in made]
    assert len(set(paths)) == len(paths)
    for unit in made:
        assert not set(above(unit.path)) & set(paths), "a unit in another one"
        assert posixpath.normpath(unit.path) == unit.path
    for one in found:
        covering = [u for u in made if u.path == one.path or u.path in above(one.path)]
        if one.type == "d" and not covering:
            continue  # a folder of several classes is in no unit; what is in it is
        assert len(covering) == 1, one
        assert covering[0].cls == decisions[one.path].cls
        assert covering[0].why
    kept = [one for one in found if one.type != "d" and not decisions[one.path].secret]
    assert sum(unit.files for unit in made) == len(kept)
    assert sum(unit.bytes for unit in made) == sum(one.bytes for one in kept)
    by_path = {unit.path: unit for unit in made}
    for unit in made:  # maximal: no folder with nothing but units of one class, its own, in it
        parent = posixpath.dirname(unit.path)
        if parent:
            inner = {u.cls for p, u in by_path.items() if p.startswith(f"{parent}/")}
            inner |= {decisions[one.path].cls for one in found if one.path.startswith(f"{parent}/")}
            own = decisions[parent].cls if parent in decisions else None
            assert inner != {own}


@given(st.lists(st.text("ab*?[]!/#.", max_size=8), max_size=4), PATHS)
def test_no_line_is_an_error(lines, path):
    last(compile_lines(lines), path, False)
