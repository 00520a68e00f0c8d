"""Figures of storage on record."""

from __future__ import annotations

from botd.core.quota import Usage
from botd.state import usage
from botd.state.store import Store


def test_figures_and_levels_come_back(store, path):
    with store.batch() as batch:
        usage.put(batch, {"a/x": (Usage(10, 2), 100.0), "a/y": (Usage(1, 0), 90.0)}, {"a": "near"}, 110.0)
    with store.batch() as batch:
        usage.put(batch, {"a/x": (Usage(20, 3), 120.0)}, {"b": "over"}, 120.0)
        usage.drop(batch, ["a/y", "a", "never/there"])
    store.close()
    again = Store.open(path)
    assert usage.load(again) == usage.Stored({"a/x": (Usage(20, 3), 120.0)}, {"b": "over"})
    again.close()


def test_a_row_that_does_not_read_is_measured_anew(store):
    rows = [("a/x", '{"private": 1}'), ("a/y", "[]"), ("a/z", "{"), ("u", '{"level": "mad"}'), ("v", "{}")]
    rows += [("w", '{"level": []}'), ("a/n", '{"private": null, "logs": 1}'), ("a/m", '{"private": -5, "logs": 1}')]
    with store.batch() as batch:
        batch.run_many("INSERT INTO usage (id, body, at) VALUES (?, ?, 1.0)", rows)
    assert usage.load(store) == usage.Stored({"a/m": (Usage(0, 1), 1.0)}, {})
