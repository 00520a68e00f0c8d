"""What botd and botctl must agree on.

Importable in a few milliseconds: nothing here imports pydantic, rich, asyncio, psutil, dataclasses
or typing at run time, because every quick command pays for what it imports.
"""

PROTOCOL = 1
"""Version of the JSON-RPC surface; raised only when something that scripts rely on changes."""

SCHEMA = 1
"""Version of the documents that `-o json` prints; keys are only ever added."""
