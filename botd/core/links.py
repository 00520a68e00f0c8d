"""Where a symbolic link in a tree leads, told from the tree alone: no disk is asked, so nothing can be swapped."""

from __future__ import annotations

from collections.abc import Mapping

FOLLOWED_MAX = 40
"""What Linux follows in one path."""


def leads_to(path: str, links: Mapping[str, str]) -> str | None:
    """The path that the link at `path` means in the end, "" for the root; None when it leaves the tree or never ends.

    `links`: path -> target of every link of the tree. What does not exist is taken for a folder: it leads nowhere,
    but not out.
    """
    pending = path.split("/")[::-1]
    at: list[str] = []
    followed = 0
    while pending:
        part = pending.pop()
        if part in ("", "."):
            continue
        if part == "..":
            if not at:
                return None
            at.pop()
            continue
        at.append(part)
        target = links.get("/".join(at))
        if target is None:
            continue
        followed += 1
        if followed > FOLLOWED_MAX or target.startswith("/"):
            return None
        at.pop()
        pending += target.split("/")[::-1]
    return "/".join(at)
