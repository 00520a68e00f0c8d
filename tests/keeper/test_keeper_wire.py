"""The wire between botd and the keeper, where one end dies in the middle of a word."""

from __future__ import annotations

import os
import socket

import pytest

from botd.keeper import wire


@pytest.fixture
def ends():
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for one in pair:
        one.setblocking(False)
    yield pair
    for one in pair:
        one.close()


def test_what_the_other_end_said_before_it_died_is_heard_also_when_it_had_not_listened(ends):
    """The kernel tells of the reset first; the descriptors behind it would be lost with the words they came with."""
    ours, theirs = ends
    wire.send(ours, {"op": "ack", "id": "u/bot", "gen": 1})
    reader, writer = os.pipe()
    wire.send(theirs, {"op": "started", "id": "u/bot", "gen": 2, "fds": ["out"]}, (reader,))
    wire.send(theirs, {"op": "running", "id": "u/bot", "gen": 2})
    theirs.close()
    buffer = bytearray(wire.PACKET_LIMIT)
    message, fds = wire.receive(ours, buffer)
    assert (message["op"], message["gen"], len(fds)) == ("started", 2, 1)
    assert os.fstat(fds[0]).st_ino == os.fstat(reader).st_ino
    assert wire.receive(ours, buffer) == ({"op": "running", "id": "u/bot", "gen": 2}, [])
    assert wire.receive(ours, buffer) is None
    wire.close_all((reader, writer, *fds))
