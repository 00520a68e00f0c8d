"""The trash and the clean-up as a person sees them."""

import json

import pytest
from botctl_fake import on_terminal, verdict, verdicts

ITEM = {
    "key": "alice+shop.0123456789ab", "id": "alice/shop", "user": "alice", "name": "shop",
    "deleted_at": "2026-11-22T10:00:00.000Z", "kept_until": "2036-11-29T10:00:00.000Z",
    "created_at": "2026-11-01T10:00:00.000Z", "bytes": 5 << 20, "path": "/h/trash/alice+shop.0123456789ab",
    "restorable": True, "port": 21000, "template": None, "release": None, "command": ["python3", "bot.py"],
    "directory": "/srv/shop", "env": {"PREFIX": "***"}, "labels": {"tier": "free"}, "secrets": ["TOKEN"],
}  # fmt: skip
LOST = {
    **ITEM,
    "key": "bob+lost.0123456789ab",
    "id": "bob/lost",
    "restorable": False,
    "command": None,
    "directory": None,
    "kept_until": None,
}


def listed(*items):
    return {"items": list(items), "bytes": sum(item["bytes"] for item in items)}


def test_the_list(run, fake):
    fake.script["trash.list"] = listed(ITEM, LOST)
    ran = run("trash", "list", "--user", "alice")
    assert ran.status == 0 and fake.called("trash.list") == [{"user": "alice"}]
    assert "alice/shop" in ran.out and "5M" in ran.out and "for ever" in ran.out
    assert run("trash", "list", "-o", "name").out.split() == [ITEM["key"], LOST["key"]]
    assert json.loads(run("trash", "list", "-o", "json").out)["items"][0] == ITEM
    fake.script["trash.list"] = listed()
    assert run("trash", "list") == (0, "", "")


def test_one_of_them(run, fake):
    fake.script["trash.list"] = listed(ITEM)
    shown = run("trash", "show", "alice/shop").out
    for word in ("alice+shop.0123456789ab", "python3 bot.py", "/srv/shop", "PREFIX", "TOKEN", "tier=free", "21000"):
        assert word in shown
    fake.script["trash.list"] = listed(LOST)
    assert "specification is lost" in run("trash", "show", "bob/lost").err
    fake.script["trash.list"] = listed()
    assert run("trash", "show", "alice/none").status == 4


def test_undelete_says_as_what(run, fake):
    fake.script["bots.undelete"] = verdicts(verdict(result="undeleted", phase="stopped", pid=None))
    assert run("undelete", "alice/shop", "--as", "bob/x", "--start", "--no-wait").status == 0
    assert fake.called("bots.undelete") == [
        {"id": "alice/shop", "as": "bob/x", "start": True, "wait": False, "timeout_s": 60.0}
    ]
    assert run("undelete", "alice/shop", "--as", "NO GOOD").status == 2


def test_emptying_asks_and_says_what_it_freed(run, fake):
    fake.script["trash.list"] = listed(ITEM)
    fake.script["trash.empty"] = {
        **verdicts(verdict(result="removed for good", phase=None, pid=None)),
        "freed_bytes": 1,
    }
    refused = run("trash", "empty")
    assert refused.status == 2 and "5M" in refused.err and "--yes" in refused.err
    assert fake.called("trash.empty") == []
    assert run("trash", "empty", "alice/shop", "--yes").status == 0
    assert run("trash", "empty", "--dry-run").status == 0
    assert fake.called("trash.empty") == [
        {"ids": ["alice/shop"], "user": None, "dry_run": False},
        {"ids": None, "user": None, "dry_run": True},
    ]


@pytest.mark.parametrize(("typed", "status"), [("y\n", 0), ("n\n", 1)])
def test_emptying_on_a_terminal(fake, typed, status):
    fake.script["trash.list"] = listed(ITEM)
    fake.script["trash.empty"] = {
        **verdicts(verdict(result="removed for good", phase=None, pid=None)),
        "freed_bytes": 1,
    }
    ran = on_terminal(fake, "trash", "empty", typed=typed)
    assert ran.status == status


def test_delete_for_good(run, fake):
    fake.script["bots.delete"] = verdicts(verdict(result="deleted for good", phase=None, pid=None))
    assert run("delete", "alice/shop", "--purge", "--yes").status == 0
    assert run("delete", "alice/shop", "--yes").status == 0
    assert [params.get("purge") for params in fake.called("bots.delete")] == [True, False]


def litter(count):
    for i in range(count):
        yield {
            "path": f"bots/a/b{i}", "id": f"a/b{i}", "kind": "bot folder", "bytes": 1 << 20, "data": False,
            "action": "would remove", "reason": f"its bot no longer exists; last changed {i} d ago",
        }  # fmt: skip
    yield {
        "path": "trash/k",
        "id": "a/x",
        "kind": "deleted bot",
        "bytes": 10,
        "action": "kept",
        "reason": "it waits; 3 d",
    }


def test_a_large_clean_up_is_told_by_reason(run, fake):
    fake.script["system.cleanup"] = {"items": list(litter(40)), "bots": 7}
    ran = run("cleanup", "--dry-run")
    lines = [line.split() for line in ran.out.splitlines()]
    assert lines[1][:5] == ["would", "remove", "bot", "folder", "40"] and "40M" in lines[1]
    assert ran.out.count("its bot no longer exists") == 1 and "d ago" not in ran.out
    assert lines[2][0] == "kept" and len(lines) == 3
    assert len(run("cleanup", "--dry-run", "-o", "wide").out.splitlines()) == 42
    assert len(json.loads(run("cleanup", "--dry-run", "-o", "json").out)["items"]) == 41
    fake.script["system.cleanup"] = {"items": list(litter(3)), "bots": 7}
    assert "2 d ago" in run("cleanup", "--dry-run").out
