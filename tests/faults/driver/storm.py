"""The requests of one round, sent one after the other while the blow falls."""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack
from time import sleep

from fleet_house import Timeout, ids

from botd.contract.errors import BotdError

from .crew import SOURCE, passing

NOT_DONE = ("conflict", "limit", "not_found")


class Storm(threading.Thread):
    """Sends `steps` requests; ends early when nobody answers. What it was promised stands in `promises`."""

    def __init__(self, rig, members, promises, chance, name, seed, steps):
        super().__init__(daemon=True)
        self._rig, self._promises, self._chance = rig, promises, chance
        self._targets = [member for member in members if member.role in ("asked", "stubborn", "mortal", "flood")]
        self._applied = [member for member in members if member.role == "applied"]
        self._name, self._seed, self._steps = name, seed, steps
        self._wire = None
        self.unexpected = []

    def run(self):
        verbs = (self._verb, self._verb, self._verb, self._bulk, self._apply, self._pass, self._reload)
        plan = [(self._chance.choice(verbs), self._chance.random() * 0.03) for _ in range(self._steps)]
        self._wire = self._rig.wire()
        if self._wire is None:
            return
        try:
            for number, (step, pause) in enumerate(plan):
                step(number)
                sleep(pause)
        except (OSError, Timeout, json.JSONDecodeError):
            return  # botd was killed in the middle of it, as it should be
        except Exception as error:  # noqa: BLE001 - told with the round, which fails by it
            self.unexpected.append(f"the storm of {self._name}: {error!r}")
        finally:
            self._wire.close()

    def _call(self, method, **params):
        try:
            return self._wire.rpc(method, **params)
        except BotdError as error:
            if error.kind in ("internal", "invalid"):
                self.unexpected.append(f"{method}: {error}")
            return {"items": [{"id": None, "error": {"kind": error.kind}}]}

    def _request(self, verb, method, bot_ids, facts, **params):
        with self._promises.request(verb, *bot_ids, **facts) as refused:
            answer = self._call(method, **params)
            for item in answer["items"]:
                kind = (item.get("error") or {}).get("kind")
                if item["id"] is None:
                    for bot_id in bot_ids:
                        refused(bot_id)
                elif kind in NOT_DONE:
                    refused(item["id"])
        return answer

    def _some(self):
        return [member.id for member in self._chance.sample(self._targets, min(len(self._targets), 3))]

    def _verb(self, _number):
        verb = self._chance.choice(("start", "stop", "restart", "restart", "start"))
        bots, wait = self._some(), self._chance.random() < 0.3
        facts = {"wanted": verb != "stop"}
        token = {"request_id": f"{self._name}-{_number}"} if self._chance.random() < 0.3 else {}
        self._request(verb, f"bots.{verb}", bots, facts, select=ids(*bots), wait=wait, timeout_s=1, **token)

    def _bulk(self, _number):
        verb = self._chance.choice(("start", "restart", "restart", "stop"))
        bots = self._some()
        parallel = self._chance.choice((1, 2, 50))
        # Bots whose turn had not come when it ended were not asked: only an answer for each says so.
        facts = {"wanted": verb != "stop"}
        self._request(verb, "bots.bulk", bots, facts, op=verb, select=ids(*bots), parallel=parallel, timeout_s=2)

    def _apply(self, number):
        """Labels change, which restarts nothing; and one of them is switched on or off."""
        labels = {"round": f"{self._name}-{number}"}
        bots, wanted = [], {}
        for member in self._applied:
            wanted[member.id] = self._chance.random() < 0.7
            bots.append({**member.spec(self._seed, labels), "enabled": wanted[member.id]})
        # One request, and a promise of its own for each bot, because each may be wanted otherwise.
        with ExitStack() as stack:
            for bot_id, is_wanted in wanted.items():
                stack.enter_context(
                    self._promises.request("apply", bot_id, exists=True, wanted=is_wanted, labels=labels)
                )
            self._call("fleet.apply", source=SOURCE, bots=bots, wait=False)

    def _pass(self, number):
        """A bot comes, lives for a moment and goes."""
        member = passing(f"{self._name}-{number}")
        facts = {"exists": True, "wanted": True}
        token = f"create-{member.id}"
        create = {"spec": member.spec(self._seed), "start": True, "wait": False, "request_id": token}
        self._request("create", "bots.create", [member.id], facts, **create)
        # The same again: the first answer comes back, and nothing is made twice.
        again = self._call("bots.create", **create)
        if not again["items"][0].get("ok"):
            self.unexpected.append(f"{member.id}: the same request_id was answered otherwise: {again['items'][0]}")
        sleep(self._chance.random() * 0.1)
        self._request(
            "delete", "bots.delete", [member.id], {"exists": False}, select=ids(member.id),
            wait=self._chance.random() < 0.5, timeout_s=5,
        )  # fmt: skip

    def _reload(self, _number):
        self._call("config.reload")
