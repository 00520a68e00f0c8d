"""What a keeper of any released version left behind is understood for ever: journals, and states of a handover.

The files in data/ are never edited; a new format gets a new file (journal-2, handover-2.json).
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from botd.keeper import handover, lean, resume
from botd.keeper.journal import Journal

DATA = Path(__file__).parent / "data"
JOURNALS = sorted(DATA.glob("journal-*"))
HANDOVERS = sorted(DATA.glob("handover-*.json"))


@pytest.mark.parametrize("file", JOURNALS, ids=lambda file: file.name)
def test_an_old_journal_says_what_it_said(file, house):
    path = house.path("keeper.journal")
    shutil.copy(file, path)
    for _ in range(2):  # as it was, and as it is after it was compacted
        journal = Journal(path)
        assert journal.damaged == 0
        assert journal.spent == {"alice/old": 12, "alice/shop": 3, "alice/news": 7, "bob/x": 1, "bob/y": 2, "bob/z": 5}
        assert {key: record["pid"] for key, record in journal.open.items()} == {("alice/shop", 3): 4242}
        assert journal.open["alice/shop", 3]["go"] is True
        assert {key: (what["op"], what.get("code")) for key, what in journal.ended.items()} == {
            ("alice/news", 7): ("exited", 3),
            ("bob/x", 1): ("failed", None),
        }


@pytest.mark.parametrize("file", JOURNALS, ids=lambda file: file.name)
def test_a_keeper_starts_with_an_old_journal(file, house):
    os.mkdir(house.path("run"))
    shutil.copy(file, house.path("run", "keeper.journal"))
    keeper = house.up()
    finals = {(s["id"], s["gen"]): s["final"] for s in keeper.states}
    assert (finals["alice/news", 7]["code"], finals["alice/news", 7]["exact"]) == (3, True)
    assert finals["bob/x", 1]["errno"] == 2
    assert finals["alice/shop", 3]["exact"] is False  # of another boot
    keeper.ask_start("bob/z", 5, ["sleep", "1"])
    assert keeper.expect("refused", "bob/z", 5)["spent"] == 5
    assert "unexpected" not in house.keeper_log()


@pytest.mark.parametrize("file", HANDOVERS, ids=lambda file: file.name)
def test_an_old_state_of_a_handover_is_understood(file):
    memfd = handover.write(json.loads(file.read_text()))
    try:
        state = resume.read(memfd)
    finally:
        os.close(memfd)
    resume.check(state, "/var/lib/botd", open_fds=False)
    assert handover.descriptors(state) == [3, 9, 21, 22, 23, 31, 32, 41, 44, 42, 43, 51, 61, 62]
    lives = {about["id"]: resume._life(about) for about in state["lives"]}
    assert (lives["alice/news"].final["code"], lives["alice/news"].live) == (3, False)
    assert (lives["alice/shop"].kill_at, lives["alice/shop"].stop_signal) == (1240.5, 15)
    assert (lives["bob/ends"].status, lives["bob/ends"].child, lives["bob/ends"].killed) == (-1, False, 2)
    assert (lives["bob/young"].report, lives["bob/young"].running) == (b"exe", False)
    assert lives["bob/x"].unrecorded


@pytest.mark.parametrize("file", HANDOVERS, ids=lambda file: file.name)
def test_every_format_has_its_file_and_damage_is_refused(file):
    assert HANDOVERS[-1].name == f"handover-{handover.FORMAT}.json"
    text = file.read_text()
    for name in json.loads(text).keys() - {"format", "boot"}:
        state = json.loads(text)
        del state[name]
        with pytest.raises(resume.Unfit):
            resume.check(state, "/var/lib/botd", open_fds=False)
    for spoil in ({"lives": [{}]}, {"lives": 3}, {"home": "/elsewhere"}, {"orphans": [["bob/x", "y", {}, []]]}):
        with pytest.raises(resume.Unfit):
            resume.check({**json.loads(text), **spoil}, "/var/lib/botd", open_fds=False)
    for data in (b"", b"\x05", b"[1, 2]", b'{"format": "1"}', b'{"format": 99}', b"\xff" * 40):
        memfd = os.memfd_create("test")
        os.write(memfd, len(data).to_bytes(8, "little") + data)
        with pytest.raises(resume.Unfit):
            resume.read(memfd)
        os.close(memfd)


def test_the_state_travels_as_it_is():
    state = {"text": "é\udcff", "n": 2**53, "deep": [{"a": None}]}
    memfd = handover.write(state)
    try:
        size = int.from_bytes(os.pread(memfd, 8, 0), "little")
        assert lean.loads(os.pread(memfd, size, 8).decode("ascii")) == state
    finally:
        os.close(memfd)
