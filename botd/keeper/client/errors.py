"""What can go wrong with the keeper, as botd sees it."""

from __future__ import annotations


class KeeperError(Exception):
    """The keeper cannot be had; the text says why."""


class KeeperLost(KeeperError):
    """There is no connection; `reconnect` brings it back. What was sent may or may not have been done."""


class KeeperBusy(KeeperError):
    """The keeper does not end while bots live. args: how many."""
