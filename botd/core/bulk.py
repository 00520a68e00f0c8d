"""Bulk: how many at a time, and when to stop. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def batches(ids: Sequence[str], batch: str | None) -> Iterator[list[str]]:
    """`batch` is a number ("20"), a share ("10%", at least one bot) or None for all at once."""
    if not ids:
        return
    if batch is None:
        size = len(ids)
    elif batch.endswith("%"):
        size = max(1, len(ids) * int(batch[:-1]) // 100)
    else:
        size = int(batch)
    for start in range(0, len(ids), size):
        yield list(ids[start : start + size])


def may_go_on(failures: int, *, max_failures: int | None, stop_on_error: bool) -> bool:
    if stop_on_error:
        return failures == 0
    return max_failures is None or failures <= max_failures
