"""The working folder of a bot with a template follows its specification.

Before each life, right after its creation, and when its release is changed while it is down, `app/` is brought to the
release that the specification names: in one worker thread, one bot at a time, never on the loop. Bringing is idempotent
and starts from whatever is there, so it is asked for whenever it could matter and nothing is remembered about folders.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from botd.contract.errors import BotdError
from botd.contract.paths import Paths
from botd.core.bot import Spec
from botd.crash import crash_point

log = logging.getLogger("botd.provision")


@dataclass(slots=True, eq=False)
class _Job:
    """`links`: heavy folders as links into the release, not as copies."""

    bot_id: str
    template: str
    release: str
    links: bool
    done: asyncio.Future[BotdError | None]
    dropped: bool = False


class Provisioner:
    """`note` writes a line into a bot's history; `brought` hears of each folder. Used from the loop's thread."""

    def __init__(
        self,
        *,
        paths: Paths,
        links: Callable[[], bool],
        note: Callable[[str, str], None],
        brought: Callable[[str], None] = lambda bot_id: None,
    ) -> None:
        self._paths = paths
        self._links = links
        self._note = note
        self._told = brought
        self._pool: ThreadPoolExecutor | None = None
        self._jobs: dict[str, _Job] = {}

    def bring(self, spec: Spec) -> asyncio.Future[BotdError | None]:
        """Resolves to None when the folder is at the release of `spec`, or to what stands in the way. Never raises.

        Cancelled when the bot is forgotten before.
        """
        assert spec.template is not None and spec.release is not None
        job = self._jobs.get(spec.id)
        if job is not None and (job.template, job.release, job.links) == (spec.template, spec.release, self._links()):
            return job.done
        loop = asyncio.get_running_loop()
        job = _Job(spec.id, spec.template, spec.release, self._links(), loop.create_future())
        self._jobs[spec.id] = job
        work = loop.run_in_executor(self._worker(), self._bring, job)
        work.add_done_callback(lambda work: self._brought(job, work))
        return job.done

    def pending(self, bot_id: str) -> asyncio.Future[BotdError | None] | None:
        """What `bring` returned, while that bot's turn has not come or is not over."""
        job = self._jobs.get(bot_id)
        return None if job is None else job.done

    def gather(self, bot_id: str) -> None:
        """A life has ended: private files that it replaced in its working folder move to its data."""
        if bot_id not in self._jobs:
            asyncio.get_running_loop().run_in_executor(self._worker(), self._gather, bot_id)

    def forget(self, bot_id: str) -> None:
        """The bot is gone: nothing is made for it any more. Work under way holds its folder, wherever that is."""
        job = self._jobs.pop(bot_id, None)
        if job is not None:
            job.dropped = True
            job.done.cancel()

    async def close(self) -> None:
        """Wait for the one folder that is being made; the others are made by the next botd."""
        for bot_id in tuple(self._jobs):
            self.forget(bot_id)
        if self._pool is not None:
            await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)

    def _worker(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="provision")
        return self._pool

    def _brought(self, job: _Job, work: asyncio.Future[list[str]]) -> None:
        if self._jobs.get(job.bot_id) is job:
            del self._jobs[job.bot_id]
        if work.cancelled() or job.dropped:
            return
        error = work.exception()
        if error is None:
            for text in work.result():
                self._note(job.bot_id, text)
            self._told(job.bot_id)
        elif not isinstance(error, BotdError):
            log.error("the folder of %s cannot be made", job.bot_id, exc_info=error)
            error = BotdError(
                "internal",
                f"its folder cannot be made ({type(error).__name__})",
                hint="the daemon's log has the details: botctl daemon logs",
            )
        job.done.set_result(error)

    # --- in the worker ------------------------------------------------------------------------------

    def _bring(self, job: _Job) -> list[str]:
        if job.dropped:
            return []
        # Half a megabyte that a fleet of plain programs does without.
        from botd.storage import layout, releases

        crash_point("botd-folder-asked")
        release = releases.load(self._paths, job.template, job.release)
        notes = layout.bring(self._paths, job.bot_id, release, links=job.links).notes
        crash_point("botd-folder-brought")
        return notes

    def _gather(self, bot_id: str) -> None:
        from botd.storage import layout

        try:
            layout.gather(self._paths, bot_id)
        except (BotdError, OSError) as error:
            # The next start does it again, and tells.
            log.warning("%s: what it wrote beside its code is not in its data yet: %s", bot_id, error)
