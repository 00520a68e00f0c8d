"""bots.logs with follow: going on where one was, bots that come and go, readers that do not read."""

import os
from pathlib import Path

import pytest
from fleet_house import ALL, ids, until

from botd.contract.errors import BotdError


def lines_until(wire, last, **wanted):
    """Notifications up to the line `last`."""
    seen = []
    while True:
        notice = wire.notice()
        assert notice is not None
        seen.append(notice)
        if notice["method"] == "logs.line" and notice["params"]["line"] == last:
            return seen


def lines(notices):
    return [notice["params"]["line"] for notice in notices if notice["method"] == "logs.line"]


def test_positions_are_said_only_to_who_asks(fleet):
    fleet.create("alice/a", "print one + sleep")
    fleet.until_line("alice/a", "one")
    assert "positions" not in fleet.rpc("bots.logs", select=ids("alice/a"))
    answer = fleet.rpc("bots.logs", select=ids("alice/a"), resumable=True)
    assert set(answer["positions"]["alice/a"]) == {"stdout"}
    assert answer["notes"] == []


def test_following_goes_on_where_another_connection_ended(fleet):
    fleet.create("alice/a", "print one + until go + lines 3 0 + until more + print last + sleep")
    fleet.until_line("alice/a", "one")
    with fleet.connect() as wire:
        answer = wire.rpc("bots.logs", select=ids("alice/a"), follow=True, resumable=True, lines=10)
        assert [item["line"] for item in answer["items"]] == ["one"]
        fleet.touch("alice/a", "go")
        notices = lines_until(wire, "00000003")
    places = [notice["params"]["next"] for notice in notices]
    fleet.touch("alice/a", "more")
    fleet.until_line("alice/a", "last")
    for resume, expected in (
        (answer["positions"], ["00000001", "00000002", "00000003", "last"]),
        ({"alice/a": {"stdout": places[0]}}, ["00000002", "00000003", "last"]),
        ({"alice/a": {"stdout": places[2]}}, ["last"]),
        ({}, ["one", "00000001", "00000002", "00000003", "last"]),
    ):
        with fleet.connect() as wire:
            again = wire.rpc("bots.logs", select=ids("alice/a"), follow=True, resume=resume)
            assert again["items"] == []
            assert lines(lines_until(wire, "last")) == expected


@pytest.mark.parametrize(
    "place",
    ["", "x.y.z", "1.2", "1.2.3.4", "-1.0.0", "f" * 17 + ".0.0", "1.ffffffffffffffff.0", "1.0.fff8000000000000"],
)
def test_what_is_no_position_is_refused(fleet, place):
    fleet.create("alice/a", "sleep", start=False)
    error = fleet.refused("bots.logs", select=ids("alice/a"), follow=True, resume={"alice/a": {"stdout": place}})
    assert (error.kind, error.code) == ("invalid", -32602)


def test_bots_that_begin_to_match_are_joined(fleet):
    fleet.create("alice/a", "sleep", labels={"tier": "free"})
    with fleet.connect() as wire:
        wire.rpc("bots.logs", select={"any": [{"user": "alice"}]}, follow=True)
        fleet.create("bob/other", "print not mine + sleep")
        fleet.create("alice/new", "print hello + sleep")
        notices = lines_until(wire, "hello")
    assert [(notice["params"]["id"], notice["params"]["line"]) for notice in notices] == [("alice/new", "hello")]


def test_the_end_of_a_deleted_bot_is_told_and_a_new_one_of_its_name_is_joined(fleet):
    fleet.create("alice/a", "sleep")
    fleet.create("alice/b", "sleep")
    with fleet.connect() as wire:
        wire.rpc("bots.logs", select=ALL, follow=True)
        fleet.rpc("bots.delete", select=ids("alice/a"))
        ended = wire.notice()
        assert (ended["method"], ended["params"]["id"], ended["params"]["left"]) == ("logs.ended", "alice/a", 1)
        fleet.create("alice/a", "print again + sleep")
        assert lines(lines_until(wire, "again")) == ["again"]


def test_a_folder_that_somebody_removed_is_made_again_and_waited_on(fleet):
    fleet.create("alice/a", "print x + sleep", start=False)
    folder = Path(fleet.home, "logs", "alice", "a")
    os.rmdir(folder)
    with fleet.connect() as wire:
        wire.rpc("bots.logs", select=ids("alice/a"), follow=True)
        until(folder.is_dir)
        fleet.rpc("bots.start", select=ids("alice/a"))
        assert lines(lines_until(wire, "x")) == ["x"]


def test_a_damaged_file_is_a_note_beside_the_lines(fleet):
    fleet.create("alice/a", "print one + sleep")
    fleet.until_line("alice/a", "one")
    Path(fleet.home, "logs", "alice", "a", "out.log.2.gz").write_bytes(b"no gzip at all")
    answer = fleet.rpc("bots.logs", select=ids("alice/a"))
    assert [item["line"] for item in answer["items"]] == ["one"]
    assert len(answer["notes"]) == 1
    assert "out.log.2.gz cannot be read" in answer["notes"][0]


def test_a_reader_that_does_not_read_costs_next_to_nothing_and_is_told_what_it_missed(make_fleet):
    fleet = make_fleet({"output": {"maxLogSize": 1, "keepLogs": 2}, "botRecovery": {"settleTime": 100}}).up()
    fleet.create("alice/flood", "until go + flood 30000 200 + print done + sleep", wait=False)
    fleet.create("alice/calm", "sleep")
    stalled = [fleet.connect() for _ in range(3)]
    for wire in stalled:
        wire.rpc("bots.logs", select=ids("alice/flood"), follow=True, lines=0)
    pid = fleet.daemon_pid
    before = memory(pid)
    fleet.touch("alice/flood", "go")
    while last_line(fleet, "alice/flood") != "done":
        # Others are served meanwhile.
        assert fleet.bot("alice/calm")["phase"] == "running"
    # Three sockets with their buffers of a MiB, and what an answer of botd takes.
    assert memory(pid) - before < 40 << 20
    for wire in stalled:
        seen = lines_until(wire, "done")
        told = [notice["params"] for notice in seen if notice["method"] == "logs.missed"]
        got = lines(seen)
        assert any(entry["missed"] or entry["more"] for entry in told)
        assert len(got) + sum(entry["missed"] for entry in told) <= 30_001
        numbers = [int(line[:8]) for line in got[:-1]]
        assert numbers == sorted(set(numbers))
        wire.close()


def last_line(fleet, name):
    items = fleet.rpc("bots.logs", select=ids(name), lines=1)["items"]
    return items[0]["line"] if items else None


def memory(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) << 10


def test_a_wrong_expression_is_refused_before_anything_is_followed(fleet):
    fleet.create("alice/a", "sleep")
    with pytest.raises(BotdError) as refused:
        fleet.rpc("bots.logs", select=ids("alice/a"), follow=True, grep="(")
    assert refused.value.kind == "invalid"


def test_a_filter_goes_with_bots_that_join(fleet):
    fleet.create("alice/a", "sleep")
    with fleet.connect() as wire:
        wire.rpc("bots.logs", select=ALL, follow=True, grep="^keep", resumable=True)
        fleet.create("alice/b", "print drop this + print keep this + print drop that + print keep that + sleep")
        assert lines(lines_until(wire, "keep that")) == ["keep this", "keep that"]
