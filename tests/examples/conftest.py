"""Both example bots as real processes, against the stand-in of the Graph API."""

import os
import shutil

import pytest
from messenger import COMMANDS, SECRETS, RunningBot, free_port, stand_in


@pytest.fixture
def graph():
    with stand_in.GraphStandIn(tokens=[SECRETS["PAGE_ACCESS_TOKEN"]]) as graph:
        yield graph


@pytest.fixture(params=COMMANDS)
def start(request, graph, tmp_path):
    """`start(PREFIX="?")` starts the bot so changed (None: left out) and waits until it is up.

    `start(wait=False)` does not wait. Every life in one test has the same PORT and BOT_DATA (`start.data`).
    """
    if request.param == "node" and not shutil.which("node"):
        pytest.skip("node is not installed")
    lives = []
    settings = {
        "PATH": os.environ["PATH"],
        "BOT_ID": "alice/shop",
        "BOT_DATA": str(tmp_path),
        "PORT": str(free_port()),
        "GRAPH_API_BASE": graph.url,
        **SECRETS,
    }

    def start(wait=True, **changed):
        env = {name: value for name, value in {**settings, **changed}.items() if value is not None}
        bot = RunningBot(COMMANDS[request.param], env)
        lives.append(bot)
        if wait:
            bot.wait_for("started")
        return bot

    start.data = tmp_path
    yield start
    for bot in lives:
        bot.kill()


@pytest.fixture
def bot(start):
    return start()
