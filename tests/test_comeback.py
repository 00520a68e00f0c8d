"""What a botd that comes back knows of its configuration."""

from __future__ import annotations

import asyncio
import json

import pytest

from botd import comeback, reload
from botd.config import Source, effective
from botd.contract.errors import BotdError
from botd.core.settings import Settings
from botd.system.clock import Clock


@pytest.fixture
def files(tmp_path):
    source, good = tmp_path / "bot_config.json", tmp_path / "good.json"
    source.write_text('{"monitoring": {"sampleInterval": 7000}}')
    return source, good


def first(files, **options):
    source, good = files
    configuration = reload.Configuration(
        Source(str(source), True), Clock(), str(good), brought_back=options.get("brought_back", False)
    )
    return asyncio.run(configuration.first()), configuration


def children(monkeypatch):
    """Counts the checks by a child."""
    seen = []
    load = reload.load_in_child

    async def counted(path, **options):
        seen.append(path)
        return await load(path, **options)

    monkeypatch.setattr(reload, "load_in_child", counted)
    return seen


def test_what_was_checked_is_not_checked_again(files, monkeypatch):
    seen = children(monkeypatch)
    settings, _ = first(files)
    assert settings.monitoring.sample_interval_s == 7
    assert first(files)[0] == settings
    assert len(seen) == 1


def test_another_text_is_checked(files, monkeypatch):
    seen = children(monkeypatch)
    first(files)
    files[0].write_text('{"monitoring": {"sampleInterval": 9000}}')
    assert first(files)[0].monitoring.sample_interval_s == 9
    files[0].write_text('{"monitoring": {"sampleIntervall": 9000}}')
    with pytest.raises(BotdError):
        first(files)
    assert len(seen) == 3


def test_another_version_checks_for_itself(files, monkeypatch):
    seen = children(monkeypatch)
    first(files)
    monkeypatch.setattr(comeback, "__version__", "99.0")
    first(files)
    assert len(seen) == 2


@pytest.mark.parametrize("kept", ["", "[]", "null", "{", '{"text": 1}', '{"version": "x"}'])
def test_a_damaged_memory_is_none(files, kept):
    files[1].write_text(kept)
    assert first(files)[0].monitoring.sample_interval_s == 7


def test_settings_that_are_not_whole_are_checked_again(files, monkeypatch):
    first(files)
    kept = json.loads(files[1].read_text())
    del kept["settings"]["monitoring"]
    files[1].write_text(json.dumps(kept))
    seen = children(monkeypatch)
    assert first(files)[0].monitoring.sample_interval_s == 7
    assert len(seen) == 1


def test_a_text_that_changed_while_it_was_checked_is_not_taken_for_checked(files, monkeypatch):
    load = reload.load_in_child

    async def changing(path, **options):
        settings = await load(path, **options)
        files[0].write_text("{}")
        return settings

    monkeypatch.setattr(reload, "load_in_child", changing)
    first(files)
    assert json.loads(files[1].read_text())["text"] is None
    monkeypatch.setattr(reload, "load_in_child", load)
    assert first(files)[0] == Settings()


def test_the_last_good_one_is_for_who_is_brought_back(files):
    first(files)
    files[0].write_text("{")
    settings, configuration = first(files, brought_back=True)
    assert effective(settings)["monitoring"]["sampleInterval"] == 7000
    assert "not" in configuration.last_error
