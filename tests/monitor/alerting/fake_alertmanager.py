"""An Alertmanager in memory: alerts end at their time, silences are changed or made, and what API v2 refuses is refused.

Strict where the real one is (0.25): an unknown silence is 404, an end before the start 400; an expired one is made anew.
"""

import json
from datetime import datetime

import httpx

from clipdrift_monitor.alerting.told import moment


def ms(text):
    return round(datetime.fromisoformat(text).timestamp() * 1000)


class FakeAlertmanager:
    def __init__(self, clock):
        self.clock = clock
        self.alerts = {}  # by labels: {"url", "ends_ms", "annotations"}
        self.silences = {}  # by id
        self.calls = []
        self.headers = []
        self.fails_with = None  # a status, "away", or "lost": does it, and the answer is lost
        self.num_made = 0

    @property
    def transport(self):
        return httpx.MockTransport(self._answer)

    def restart(self):
        """Silences are on its disk, alerts are not."""
        self.alerts = {}

    @property
    def firing(self):
        now_ms = self.clock.now_ms()
        return {labels for labels, one in self.alerts.items() if one["ends_ms"] > now_ms}

    @property
    def silenced(self):
        """Of each silence that holds: its matchers, when it ends, and who made it."""
        now_ms = self.clock.now_ms()
        return [
            ({it["name"]: it["value"] for it in one["matchers"]}, one["ends_ms"], one["createdBy"])
            for one in self.silences.values()
            if one["ends_ms"] > now_ms
        ]

    def prometheus_tells(self, **labels):
        key = frozenset(labels.items())
        self.alerts[key] = {"url": "http://prometheus/graph", "ends_ms": self.clock.now_ms() + 240_000, "annotations": {}}

    def _answer(self, request):
        self.calls.append((request.method, request.url.path))
        self.headers.append(request.headers.get("Authorization", ""))
        if self.fails_with == "away":
            raise httpx.ConnectError("refused", request=request)
        if isinstance(self.fails_with, int):
            return httpx.Response(self.fails_with, text="no")
        body = json.loads(request.content) if request.content else None
        answer = self._do(request.method, request.url.path.removeprefix("/api/v2"), body)
        if self.fails_with == "lost":
            raise httpx.ReadTimeout("lost", request=request)
        return answer

    def _do(self, method, path, body):
        if (method, path) == ("GET", "/alerts"):
            return httpx.Response(200, json=[{"labels": dict(x), "generatorURL": self.alerts[x]["url"]} for x in self.firing])
        if (method, path) == ("POST", "/alerts"):
            for one in body:
                self._take(one)
            return httpx.Response(200)
        if (method, path) == ("GET", "/silences"):
            return httpx.Response(200, json=[self._silence(name) for name in self.silences])
        if (method, path) == ("POST", "/silences"):
            return self._make(body)
        name = path.removeprefix("/silence/")
        if method != "DELETE" or name not in self.silences:
            return httpx.Response(404)
        self.silences[name]["ends_ms"] = self.clock.now_ms()
        return httpx.Response(200)

    def _take(self, one):
        key, ends_ms = frozenset(one["labels"].items()), ms(one["endsAt"])
        before = self.alerts.get(key)
        if before is not None and key in self.firing and ends_ms > self.clock.now_ms():
            ends_ms = max(ends_ms, before["ends_ms"])
        annotations = one["annotations"] or (before["annotations"] if before else {})
        self.alerts[key] = {"url": one["generatorURL"], "ends_ms": ends_ms, "annotations": annotations}

    def _silence(self, name):
        one = self.silences[name]
        state = "active" if one["ends_ms"] > self.clock.now_ms() else "expired"
        return {key: one[key] for key in ("matchers", "createdBy", "comment")} | {
            "id": name, "status": {"state": state}, "startsAt": moment(one["starts_ms"]), "endsAt": moment(one["ends_ms"]),
        }  # fmt: skip

    def _make(self, body):
        starts_ms, ends_ms, name = ms(body["startsAt"]), ms(body["endsAt"]), body.get("id", "")
        if ends_ms <= starts_ms or ends_ms <= self.clock.now_ms() or not body["matchers"]:
            return httpx.Response(400, text="invalid silence")
        if name and name not in self.silences:
            return httpx.Response(404)
        if not name or self.silences[name]["ends_ms"] <= self.clock.now_ms():
            self.num_made += 1
            name = f"silence-{self.num_made}"
        self.silences[name] = {key: body[key] for key in ("matchers", "createdBy", "comment")} | {
            "starts_ms": starts_ms, "ends_ms": ends_ms,
        }  # fmt: skip
        return httpx.Response(200, json={"silenceID": name})
