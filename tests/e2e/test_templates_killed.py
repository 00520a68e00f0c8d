"""botd dies at each step of adding and removing templates and of making bots of them: nothing half done is seen."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fleet_house import WITHIN_S, until
from template_house import app, session, template, write_python

from botd.contract.errors import BotdError

OF_TEMPLATES = ("botd-template-asked", "botd-template-made", "botd-template-recorded", "botd-template-forgotten")
OF_FOLDERS = (
    "botd-create-committed",
    "botd-folder-asked",
    "botd-app-recorded",
    "botd-folder-brought",
)


@pytest.fixture
def lone(make_fleet):
    return make_fleet(foreground=True)


def dies_at(fleet, point, act):
    """A botd that dies at `point` while it does `act`; then the next one serves."""
    fleet.environ["BOTD_CRASH_AT"] = point
    fleet.up()
    child = fleet._children[-1]
    with pytest.raises((OSError, BotdError)):
        act()
    assert child.wait(WITHIN_S) == -9, f"{point} was not reached"
    fleet.hang_up()
    del fleet.environ["BOTD_CRASH_AT"]
    fleet.up()


def releases(fleet):
    folder = Path(fleet.home, "templates/messenger/releases")
    return sorted(os.listdir(folder)) if folder.exists() else []


def test_templates_come_and_go_whole(lone, tmp_path):
    path = write_python(tmp_path / "src")
    for point in OF_TEMPLATES:
        if point == "botd-template-forgotten":
            dies_at(lone, point, lambda: lone.rpc("templates.remove", name="messenger"))
            assert template(lone) is None
        else:
            dies_at(lone, point, lambda: lone.rpc("templates.add", name="messenger", path=path))
            assert (template(lone) is not None) == (point == "botd-template-recorded")
        # The second time it is finished, whatever the first one has left.
        made = lone.rpc("templates.add", name="messenger", path=path)
        assert template(lone)["release"] == made["release"]
        assert releases(lone) == [made["release"]]
        if point != "botd-template-recorded":
            lone.rpc("templates.remove", name="messenger")
            assert releases(lone) == []
        lone.down()


def test_a_bot_that_was_created_has_its_folder(lone, tmp_path):
    lone.up()
    lone.rpc("templates.add", name="messenger", path=write_python(tmp_path / "src"))
    lone.down()
    for number, point in enumerate(OF_FOLDERS):
        spec = {"id": f"alice/bot{number}", "template": "messenger"}
        dies_at(lone, point, lambda spec=spec: lone.rpc("bots.create", spec=spec, start=True))
        assert spec["id"] in lone.bots(), point
        until(app(lone, spec["id"], ".botd-release").exists, f"the folder of {spec['id']} after {point}")
        assert not app(lone, spec["id"]).with_name("app.new").exists()
        verdict = lone.rpc("bots.start", select={"any": [{"id": spec["id"]}]}, timeout_s=WITHIN_S)["items"][0]
        assert verdict["ok"], (point, verdict)
        assert lone.until_line(spec["id"], f"one {spec['id']} calm dep {spec['id']}")
        assert session(lone, spec["id"]) == spec["id"]
        lone.clear()  # what is there when botd starts is looked at as well, and would be where it dies
        lone.down()
    lone.up()
