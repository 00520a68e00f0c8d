"""A bot's folder, made from a release and brought to another one; see `folder`. Everything here blocks."""

from botd.storage.layout.folder import Brought, bring, cost, current, gather

__all__ = ["Brought", "bring", "cost", "current", "gather"]
