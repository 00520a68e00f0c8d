"""What is on record of deleted bots: written, read, and read again when it is not what it was."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from state_bots import bot, ids, seconds, tables, unhurried

from botd.state import trash
from botd.state.trash import Discarded

SPEC = bot("alice/shop").spec
KEPT = Discarded("k1", "alice/shop", 10.5, 99.5, SPEC, {"TOKEN": "sesame"}, 21000, "/fleet.toml", 3.25)


def test_what_was_recorded_is_there_again(store):
    for item in (KEPT, replace(KEPT, key="k0", at_wall=5.0, standing="back", restored_as="bob/other")):
        with store.batch(durable=True) as batch:
            trash.put(batch, item)
    assert [item.key for item in trash.load(store)] == ["k0", "k1"]
    assert trash.load(store)[1] == KEPT
    with store.batch() as batch:
        trash.put(batch, KEPT.going())
        trash.drop(batch, "k0")
        trash.drop(batch, "no such key")
    [left] = trash.load(store)
    assert (left.standing, left.spec, left.secrets) == ("going", None, {})


@unhurried
@given(ids, seconds, seconds, tables)
def test_every_record_comes_back_as_it_was(bot_id, at, until, secrets):
    item = Discarded("k", bot_id, at, until, replace(SPEC, id=bot_id), secrets)
    assert trash.decode("k", bot_id, trash.encode(item), at) == item
    beside = trash.encode(item, secrets=False)
    assert trash.decode_note("k", beside) == replace(item, secrets={})


def test_no_secret_stands_beside_the_data_or_in_what_is_printed():
    assert "sesame" not in trash.encode(KEPT, secrets=False) + repr(KEPT)


def broken():
    body = json.loads(trash.encode(KEPT))
    wrong = {
        "until": ("soon", True, None, 1e300),
        "standing": ("lying",),
        "secrets": ({"A": 1}, []),
        "port": ("x", True),
        "source": (3,),
        "spec": ({"command": "sh"}, []),
        "created_at": (None,),
    }
    for key, value in ((key, value) for key, values in wrong.items() for value in values):
        yield json.dumps({**body, key: value})
    yield from ("", "[]", "null", "{", "[" * 100_000, json.dumps({"id": "../../etc"}))


@pytest.mark.parametrize("text", list(broken()), ids=lambda text: f"{len(text)}")
def test_one_that_cannot_be_read_is_kept_for_ever(store, text):
    with pytest.raises(ValueError):
        trash.decode_note("k", text)
    with store.batch() as batch:
        batch.run("INSERT INTO trash VALUES ('k', 'alice/shop', ?, 1.0)", (text,))
    [item] = trash.load(store)
    assert item == Discarded("k", "alice/shop", 1.0, float("inf"))
