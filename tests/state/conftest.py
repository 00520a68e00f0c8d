from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator

import pytest

from botd.state.store import Store


@pytest.fixture
def folder() -> Iterator[str]:
    path = tempfile.mkdtemp(prefix="b", dir="/tmp")
    yield path
    shutil.rmtree(path)


@pytest.fixture
def path(folder: str) -> str:
    return f"{folder}/botd.db"


@pytest.fixture
def store(path: str) -> Iterator[Store]:
    opened = Store.open(path)
    yield opened
    opened.close()
