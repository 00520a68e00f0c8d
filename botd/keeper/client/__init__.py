"""botd's end of the keeper's socket, for asyncio: connect (starting a keeper where none is), talk, hand over.

    client = KeeperClient(home, on_messages=..., on_lost=..., respawn={"argv": [...], "env": {...}, "cwd": "/"})
    states = await client.connect_or_start()
    client.start({"id": "alice/shop", "gen": 7, "argv": [...], ...})

botd holds duplicates of every bot's descriptors (`held`). When the keeper dies, the output waits in the pipes and the
exit statuses in the pidfds, and `reconnect` hands them to the next keeper.
"""

from botd.keeper.client.client import KeeperClient
from botd.keeper.client.errors import KeeperBusy, KeeperError, KeeperLost
from botd.keeper.client.holding import Held

__all__ = ["Held", "KeeperBusy", "KeeperClient", "KeeperError", "KeeperLost"]
