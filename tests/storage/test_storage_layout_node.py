"""Real Node programs in folders made from a template: each trap of naive links, and that it is none here."""

import json
import os
import shutil
import subprocess

import pytest
from layout_house import House, read, write

from botd.storage import releases

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="needs node")

BOTS = ("alice/shop", "bob/shop")
LOOK = """
const fs = require('fs'), path = require('path');
const shared = require('shared');
console.log(JSON.stringify({
  dirname: __dirname, filename: __filename, cwd: process.cwd(), main: require.main.filename, argv: process.argv[1],
  config: require('./config.json').who, helper: require('./lib/helper').where, inner: require('./lib').name,
  shared: shared.where, its_own: shared.dependency, deep: require('shared/deep/file').where,
}));
"""
LOOK_ESM = """
import fs from 'fs';
import { fileURLToPath } from 'url';
import { where } from 'shared-esm';
import folder_main from 'folder-main';
import { name } from './lib/esm.mjs';
console.log(JSON.stringify({ url: fileURLToPath(import.meta.url), cwd: process.cwd(), where, folder: folder_main.name,
  name, config: JSON.parse(fs.readFileSync(new URL('./config.json', import.meta.url))).who }));
"""
WRITE = """
const fs = require('fs'), path = require('path');
fs.writeFileSync(path.join(__dirname, 'session.json.txt'), process.argv[2]);
fs.writeFileSync('beside-cwd.txt', process.argv[2]);
fs.writeFileSync(path.join(__dirname, 'appstate.json'), process.argv[2]);
fs.appendFileSync(path.join(__dirname, 'lib/log.txt'), process.argv[2]);
const config = path.join(__dirname, 'config.json');
fs.writeFileSync(config + '.tmp', JSON.stringify({ who: process.argv[2] }));
fs.renameSync(config + '.tmp', config);
"""
READ = """
const fs = require('fs');
console.log(['session.json.txt', 'beside-cwd.txt', 'appstate.json', 'lib/log.txt'].map(
  (name) => fs.readFileSync(__dirname + '/' + name, 'utf8')).join(' '), require('./config').who);
"""
FILES = {
    "package.json": '{"name": "bot", "main": "index.js", "dependencies": {"shared": "1"}}',
    "index.js": LOOK,
    "index.mjs": LOOK_ESM,
    "write.js": WRITE,
    "read.js": READ,
    "lib/helper.js": "exports.where = __dirname",
    "lib/index.js": "exports.name = 'lib'",
    "lib/esm.mjs": "export const name = 'esm'",
    "config.json": '{"who": "seed"}',
    "botd-template.toml": 'schema = 1\n[files]\nprivate = ["appstate.json"]\n',
    "node_modules/shared/package.json": '{"name": "shared", "version": "1.0.0", "main": "main.js"}',
    "node_modules/shared/main.js": "exports.where = __dirname; exports.dependency = require('dependency').version",
    "node_modules/shared/deep/file.js": "exports.where = __dirname",
    "node_modules/shared/node_modules/dependency/index.js": "exports.version = 'inner'",
    "node_modules/dependency/index.js": "exports.version = 'outer'; exports.from = 'shared'",
    "node_modules/shared-esm/package.json": '{"name": "shared-esm", "type": "module", "exports": "./index.js"}',
    "node_modules/shared-esm/index.js": """
import dep from 'dependency'; export const where = import.meta.url + dep.version""",
    "node_modules/folder-main/package.json": '{"name": "folder-main", "main": "./dist"}',
    "node_modules/folder-main/dist/index.js": "module.exports = require('./part')",
    "node_modules/folder-main/dist/part.js": "exports.name = 'folder'",
    "node_modules/tool/cli.js": "#!/usr/bin/env node\nconsole.log('tool', require('dependency').version)",
    "node_modules/.bin/tool": ("../tool/cli.js",),
}


@pytest.fixture(scope="module")
def house():
    one = House()
    source = one.source(FILES)
    os.chmod(f"{source}/node_modules/tool/cli.js", 0o755)
    one.first = one.release(source)
    for bot in BOTS:
        one.bring(one.first, bot)
    yield one
    one.close()


@pytest.mark.parametrize("bot", BOTS)
def test_commonjs_finds_itself_in_its_own_folder_and_packages_in_the_release(house, bot):
    app, shared = house.app(bot=bot), f"{house.first.tree}/node_modules/shared"
    assert json.loads(house.node("index.js", bot=bot)) == {
        "dirname": app,
        "filename": f"{app}/index.js",
        "cwd": app,
        "main": f"{app}/index.js",
        "argv": f"{app}/index.js",
        "config": "seed",
        "helper": f"{app}/lib",
        "inner": "lib",
        "shared": shared,
        "its_own": "inner",
        "deep": f"{shared}/deep",
    }


def test_modules_find_themselves_and_a_commonjs_package_whose_main_is_a_folder(house):
    bot = BOTS[0]
    assert json.loads(house.node("index.mjs", bot=bot)) == {
        "url": house.app("index.mjs", bot),
        "cwd": house.app(bot=bot),
        "where": f"file://{house.first.tree}/node_modules/shared-esm/index.jsouter",
        "folder": "folder",
        "name": "esm",
        "config": "seed",
    }


def test_a_folder_given_as_the_program_is_its_main(house):
    assert json.loads(house.node(".", bot=BOTS[0]))["main"] == house.app("index.js", BOTS[0])


def test_programs_of_packages_run_through_dot_bin(house):
    assert house.run("node_modules/.bin/tool", bot=BOTS[0]) == "tool outer"


def test_each_writes_beside_its_own_code_and_sees_only_its_own(house):
    for bot in BOTS:
        house.node("write.js", bot, bot=bot)
    for bot in BOTS:
        assert house.node("read.js", bot=bot) == " ".join([bot] * 5)
        assert read(house.data("appstate.json", bot)) == bot
        assert not house.bring(house.first, bot).changed
        assert json.loads(read(house.data("config.json", bot)))["who"] == bot
    assert releases.verify(house.first) == []


@pytest.fixture
def fresh():
    one = House()
    yield one
    one.close()


OWN = """
import own from 'dependency';
import { createRequire } from 'module';
const require = createRequire(import.meta.url);
console.log(own.from, require('dependency').from, require('shared').dependency, require('folder-main').name);
"""


@pytest.mark.parametrize("where", ["app", "data"])
def test_a_package_of_the_bots_own_wins_and_the_others_stay_shared(fresh, where):
    first = fresh.release({**FILES, "own.mjs": OWN})
    second = fresh.release({**FILES, "own.mjs": OWN + "// later"})
    fresh.bring(first)
    os.unlink(fresh.app("node_modules"))
    if where == "data":
        os.symlink("../data/node_modules", fresh.app("node_modules"))
    write(f"{fresh.app() if where == 'app' else fresh.data()}/node_modules/dependency/index.js", "exports.from = 'own'")
    for release, changed in ((first, False), (second, True), (first, True)):
        assert fresh.bring(release).changed is changed
        assert fresh.node("own.mjs") == "own own inner folder"


def test_a_private_module_finds_the_shared_packages(fresh):
    manifest = '[files]\nprivate = ["settings.js"]\n'
    files = {**FILES, "settings.js": "exports.from = require('dependency').from + __dirname"}
    fresh.bring(fresh.release({**files, "botd-template.toml": f"schema = 1\n{manifest}"}))
    assert fresh.node("-p", "require('./settings').from") == f"shared{fresh.data()}"


PNPM = {
    "index.js": """
const a = require('a'); console.log(a.name, a.b, a.where); try { require('b') } catch { console.log('no b') }""",
    "index.mjs": "import a from 'a'; import main from 'main'; console.log(a.name, a.b, main.name)",
    "node_modules/a": (".pnpm/a@1.0.0/node_modules/a",),
    "node_modules/main": (".pnpm/main@1.0.0/node_modules/main",),
    "node_modules/.pnpm/a@1.0.0/node_modules/a/index.js": """
exports.name = 'a'; exports.b = require('b').name; exports.where = __dirname""",
    "node_modules/.pnpm/a@1.0.0/node_modules/b": ("../../b@2.0.0/node_modules/b",),
    "node_modules/.pnpm/b@2.0.0/node_modules/b/index.js": "exports.name = 'b2'",
    "node_modules/.pnpm/main@1.0.0/node_modules/main/package.json": '{"main": "lib"}',
    "node_modules/.pnpm/main@1.0.0/node_modules/main/lib/index.js": "exports.name = 'main'",
}


@pytest.mark.parametrize("links", [True, False])
def test_a_tree_of_pnpm(fresh, links):
    release = fresh.release(PNPM)
    fresh.bring(release, links=links)
    root = release.tree if links else fresh.app()
    assert fresh.node("index.js") == f"a b2 {root}/node_modules/.pnpm/a@1.0.0/node_modules/a\nno b"
    assert fresh.node("index.mjs") == "a b2 main"


def test_a_workspace_is_first_party_code(fresh):
    files = {
        "index.js": "const lib = require('@work/lib'); lib.write(process.argv[2]);"
        " console.log(lib.where, require('other').x)",
        "packages/lib/index.js": "const fs = require('fs'); exports.where = __dirname;"
        " exports.write = (text) => fs.writeFileSync(__dirname + '/state', text)",
        "node_modules/@work/lib": ("../../packages/lib",),
        "node_modules/other/index.js": "exports.x = 'shared'",
    }
    release = fresh.release(files)
    for bot in BOTS:
        fresh.bring(release, bot)
        assert fresh.node("index.js", bot, bot=bot) == f"{fresh.app('packages/lib', bot)} shared"
    assert [read(fresh.app("packages/lib/state", bot)) for bot in BOTS] == list(BOTS)


def test_a_tree_that_npm_made(fresh):
    if shutil.which("npm") is None:
        pytest.skip("needs npm")
    source = fresh.source({"index.js": "console.log(require('left').name)", "left/index.js": "exports.name = 'left'"})
    write(f"{source}/package.json", '{"name": "bot", "version": "1.0.0"}')
    write(f"{source}/left/package.json", '{"name": "left", "version": "1.0.0", "bin": "index.js"}')
    env = {**os.environ, "npm_config_cache": f"{source}/.cache", "npm_config_update_notifier": "false"}
    quiet = {"cwd": source, "env": env, "check": True, "capture_output": True}
    subprocess.run(["npm", "pack", "./left"], **quiet)
    subprocess.run(["npm", "install", "--offline", "--no-audit", "--no-fund", "./left-1.0.0.tgz"], **quiet)
    shutil.rmtree(f"{source}/.cache")
    shutil.rmtree(f"{source}/left")
    release = fresh.release(source)
    fresh.bring(release)
    assert fresh.node("index.js") == "left"
    assert os.readlink(fresh.app("node_modules")) == f"{release.tree}/node_modules"
