"""Strict fakes of CI servers: they refuse what the real ones refuse, show a run only some time after they took it, and fail as
they are told. Each is a handler of HTTP requests, so that a backend talks to it by its own client."""

import base64
import hashlib
import hmac
import json
import re
from collections import deque
from dataclasses import dataclass, field

import httpx

TOKEN = "top-secret-token-of-the-ci"
DONE = ("succeeded", "failed", "cancelled")


@dataclass
class FakeRun:
    number: int
    model: str
    key: str
    attempt: str
    begun_ms: int
    state: str = "queued"
    log: str = ""
    is_deleted: bool = False
    extra: dict = field(default_factory=dict)

    @property
    def title(self):
        return f"retrain {self.model} {self.key} {self.attempt}"


class FakeCi:
    """What all have in common.

    `faults` are taken one by request, those of `reads` by requests that only read, those of `changes` by the others:
    "connect" (nothing reaches it), "lost request" and "500 before" (it was not done), "timeout after" and "500 after" (it was),
    "429", "403" (both with Retry-After: 30), "reset" (403 with x-ratelimit-reset in 40 s), "html".
    """

    shows_after_ms = 0
    first_number = 101

    def __init__(self, clock):
        self.clock = clock
        self.runs = []
        self.reads, self.changes = deque(), deque()
        self.asked = []  # method and path of every request
        self.on_change = lambda request: None
        self.on_begin = lambda run: None
        self.on_cancel = lambda run: None
        self.transport = httpx.MockTransport(self.handle)

    # --- what a test does ---

    def work(self, run):
        run.state = "running"

    def end(self, run, state, log=""):
        run.state, run.log = state, log

    def shown(self, **wanted):
        """Runs that it shows by now, in the order that they were begun in."""
        return [
            run for run in self.runs
            if not run.is_deleted and self.clock.now_ms() >= run.begun_ms + self.shows_after_ms
            and all(getattr(run, name) == value for name, value in wanted.items())
        ]  # fmt: skip

    # --- HTTP ---

    def handle(self, request):
        self.asked.append((request.method, request.url.path))
        is_read = request.method == "GET"
        if is_read and self.is_login(request):
            return self.answer(request)
        waiting = self.reads if is_read else self.changes
        if not is_read:
            self.on_change(request)
        fault = waiting.popleft() if waiting else ""
        if (refusal := self.refusal(request, fault)) is not None:
            return refusal
        answer = self.answer(request)
        if fault == "timeout after":
            raise httpx.ReadTimeout("no answer", request=request)
        if fault == "500 after":
            return httpx.Response(502, text="bad gateway")
        return httpx.Response(answer.status_code, text="<html>a proxy's page</html>") if fault == "html" else answer

    def refusal(self, request, fault):
        """What comes of a fault that strikes before anything is done."""
        if fault == "connect":
            raise httpx.ConnectError(f"no route to {TOKEN}", request=request)
        if fault == "lost request":
            raise httpx.ReadTimeout("no answer", request=request)
        if fault == "500 before":
            return httpx.Response(500, text=f"it hurts, and here is your {TOKEN}")
        if fault in ("429", "403"):
            return httpx.Response(int(fault), headers={"retry-after": "30"}, json={"message": "slow down"})
        if fault == "reset":
            reset = self.clock.now_ms() // 1000 + 40
            return httpx.Response(403, headers={"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(reset)})
        return None

    def is_login(self, request):
        return False

    def answer(self, request):
        raise NotImplementedError

    # --- what they are made of ---

    def begin(self, model, key, attempt, **extra):
        run = FakeRun(self.first_number + len(self.runs), model, key, attempt, self.clock.now_ms(), extra=extra)
        self.runs.append(run)
        self.on_begin(run)
        return run

    def numbered(self, number):
        return next((run for run in self.shown() if str(run.number) == str(number)), None)

    def cancel(self, run):
        if run.state not in DONE:
            run.state = "cancelled"
            self.on_cancel(run)


def bearer(request):
    return request.headers.get("authorization", "").removeprefix("Bearer ")


class FakeGithub(FakeCi):
    """GitHub Actions as its OpenAPI document of 2026 has it."""

    says_ids = True
    inputs = ("attempt", "key", "model")  # of the workflow's file

    def answer(self, request):
        if bearer(request) != TOKEN:
            return httpx.Response(401, json={"message": f"Bad credentials {bearer(request)}"})
        if request.headers.get("x-github-api-version") != "2022-11-28":
            return httpx.Response(400, json={"message": "unsupported version"})
        path = request.url.path.removeprefix("/repos/acme/pumps/actions")
        for method, pattern, name in (
            ("POST", r"/workflows/clipdrift-retrain\.yml/dispatches", "dispatch"),
            ("GET", r"/workflows/clipdrift-retrain\.yml/runs", "list"), ("GET", r"/runs/(\d+)", "one"),
            ("POST", r"/runs/(\d+)/cancel", "stop"), ("GET", r"/runs/(\d+)/jobs", "jobs"), ("GET", r"/jobs/(\d+)/logs", "logs"),
        ):  # fmt: skip
            if request.method == method and (found := re.fullmatch(pattern, path)):
                return getattr(self, f"on_{name}")(request, *found.groups())
        if request.url.host == "logs.example":
            assert "authorization" not in request.headers
        return httpx.Response(404, json={"message": "Not Found"})

    def handle(self, request):
        if request.url.host == "logs.example":
            assert "authorization" not in request.headers
            return httpx.Response(200, text=self.numbered(request.url.path[1:]).log)
        return super().handle(request)

    def on_dispatch(self, request):
        body = json.loads(request.content)
        if set(body) - {"ref", "inputs", "return_run_details"} or body.get("ref") != "main":
            return httpx.Response(422, json={"message": f"No ref found for: {body.get('ref')}"})
        if tuple(sorted(body["inputs"])) != self.inputs or not all(isinstance(one, str) for one in body["inputs"].values()):
            return httpx.Response(422, json={"message": "Unexpected inputs provided"})
        run = self.begin(**body["inputs"])
        if not (self.says_ids and body.get("return_run_details")):
            return httpx.Response(204)
        row = self.row(run)
        return httpx.Response(200, json={"workflow_run_id": run.number, "run_url": row["url"], "html_url": row["html_url"]})

    def on_list(self, request):
        asked = request.url.params
        assert asked["event"] == "workflow_dispatch"
        assert re.fullmatch(r">=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", asked["created"])
        rows = [self.row(run) for run in reversed(self.shown())]
        size, page = int(asked["per_page"]), int(asked["page"])
        return httpx.Response(200, json={"total_count": len(rows), "workflow_runs": rows[(page - 1) * size : page * size]})

    def on_one(self, request, number):
        run = self.numbered(number)
        return httpx.Response(404, json={"message": "Not Found"}) if run is None else httpx.Response(200, json=self.row(run))

    def on_stop(self, request, number):
        run = self.numbered(number)
        if run is None or run.state in DONE:
            return httpx.Response(409, json={"message": "Cannot cancel a workflow run that is completed"})
        self.cancel(run)
        return httpx.Response(202, json={})

    def on_jobs(self, request, number):
        run = self.numbered(number)
        conclusion = {"failed": "failure", "succeeded": "success"}.get(run.state)
        return httpx.Response(200, json={"jobs": [{"id": run.number * 10, "conclusion": conclusion}]})

    def on_logs(self, request, number):
        return httpx.Response(302, headers={"location": f"https://logs.example/{int(number) // 10}?sig=abc"})

    def row(self, run):
        status = {"queued": "queued", "running": "in_progress"}.get(run.state, "completed")
        conclusion = {"succeeded": "success", "failed": "failure", "cancelled": "cancelled"}.get(run.state)
        return {
            "id": run.number, "display_title": run.title, "event": "workflow_dispatch", "status": status,
            "conclusion": conclusion, "url": f"https://api.github.com/repos/acme/pumps/actions/runs/{run.number}",
            "html_url": f"https://github.com/acme/pumps/actions/runs/{run.number}",
        }  # fmt: skip


class FakeGitlab(FakeCi):
    """GitLab's pipelines."""

    trigger_token = "glptt-secret-trigger-token"

    def answer(self, request):
        path = request.url.raw_path.decode().partition("?")[0].removeprefix("/api/v4/projects/group%2Fpumps")
        if request.method == "POST" and path == "/trigger/pipeline":
            if json.loads(request.content).get("token") != self.trigger_token:
                return httpx.Response(404, json={"message": "404 Not Found"})
            return self.on_create(request)
        if request.headers.get("private-token") != TOKEN:
            return httpx.Response(401, json={"message": f"401 Unauthorized {request.headers.get('private-token')}"})
        for method, pattern, name in (
            ("POST", "/pipeline", "create"), ("GET", "/pipelines", "list"), ("GET", r"/pipelines/(\d+)", "one"),
            ("POST", r"/pipelines/(\d+)/cancel", "stop"), ("GET", r"/pipelines/(\d+)/jobs", "jobs"),
            ("GET", r"/jobs/(\d+)/trace", "trace"),
        ):  # fmt: skip
            if request.method == method and (found := re.fullmatch(pattern, path)):
                return getattr(self, f"on_{name}")(request, *found.groups())
        return httpx.Response(404, json={"message": "404 Not Found"})

    def on_create(self, request):
        body = json.loads(request.content)
        if body.get("ref") != "main" or sorted(body.get("inputs", ())) != ["attempt", "key", "model"]:
            return httpx.Response(400, json={"message": {"base": ["Reference not found"]}})
        return httpx.Response(201, json=self.row(self.begin(**body["inputs"])))

    def on_list(self, request):
        rows = [self.row(run) for run in self.shown()]
        if "name" in request.url.params:
            rows = [row for row in rows if row["name"] == request.url.params["name"]]
        return httpx.Response(200, json=rows[: int(request.url.params.get("per_page", 20))])

    def on_one(self, request, number):
        run = self.numbered(number)
        return httpx.Response(404, json={"message": "404"}) if run is None else httpx.Response(200, json=self.row(run))

    def on_stop(self, request, number):
        run = self.numbered(number)
        if run is None:
            return httpx.Response(404, json={"message": "404"})
        self.cancel(run)
        return httpx.Response(200, json=self.row(run))

    def on_jobs(self, request, number):
        run = self.numbered(number)
        return httpx.Response(200, json=[{"id": run.number * 10, "status": self.row(run)["status"]}])

    def on_trace(self, request, number):
        return httpx.Response(200, text=self.numbered(int(number) // 10).log)

    def row(self, run):
        status = {"queued": "pending", "running": "running", "succeeded": "success", "failed": "failed"}.get(run.state)
        return {
            "id": run.number, "name": run.title, "status": status or "canceled", "ref": "main",
            "web_url": f"https://gitlab.com/group/pumps/-/pipelines/{run.number}",
        }  # fmt: skip


class FakeBuildbot(FakeCi):
    """A Buildbot master: reads and commands need a session; credentials on a call are ignored."""

    session = "jwt-1"

    def is_login(self, request):
        return request.url.path == "/auth/login"

    def end_sessions(self):
        self.session = f"jwt-{int(self.session[4:]) + 1}"

    def answer(self, request):
        if self.is_login(request):
            good = "Basic " + base64.b64encode(f"clipdrift:{TOKEN}".encode()).decode()
            if request.headers.get("authorization") != good:
                return httpx.Response(401, text="wrong password")
            return httpx.Response(302, headers={"location": "/", "set-cookie": f"TWISTED_SESSION={self.session}; Path=/"})
        if f"TWISTED_SESSION={self.session}" not in request.headers.get("cookie", ""):
            return httpx.Response(403, json={"error": "you need to have role 'trigger'"})
        path = request.url.path.removeprefix("/api/v2")
        for method, pattern, name in (
            ("POST", "/forceschedulers/clipdrift-retrain", "force"), ("GET", "/(buildrequests|builds)", "list"),
            ("GET", r"/buildrequests/(\d+)", "one"), ("POST", r"/buildrequests/(\d+)", "stop"),
            ("GET", r"/builds/(\d+)/steps", "steps"), ("GET", r"/steps/(\d+)/logs", "logs"),
            ("GET", r"/logs/(\d+)/contents", "contents"),
        ):  # fmt: skip
            if request.method == method and (found := re.fullmatch(pattern, path)):
                return getattr(self, f"on_{name}")(request, *found.groups())
        return httpx.Response(404, json={"error": "Invalid path"})

    def on_force(self, request):
        body = json.loads(request.content)
        params = dict(body["params"])
        if body.get("method") != "force" or set(params) - {"model", "key", "attempt", "reason"} or not params.get("key"):
            return httpx.Response(400, json={"error": {"code": -32600, "message": {"key": "'key' needs to be specified"}}})
        run = self.begin(params["model"], params["key"], params["attempt"])
        return httpx.Response(200, json={"jsonrpc": "2.0", "id": 1, "result": [run.number + 900, {"1": run.number}]})

    def on_list(self, request, kind):
        asked = request.url.params
        if kind == "builds" and "buildrequestid" in asked:
            rows = [
                self.build(run) for run in self.shown() if str(run.number) == asked["buildrequestid"] and self.is_claimed(run)
            ]
        else:
            assert asked.get_list("property") == ["key", "attempt"]
            make = self.row if kind == "buildrequests" else self.build
            rows = [make(run) for run in reversed(self.shown()) if kind == "buildrequests" or self.is_claimed(run)]
        offset = int(asked.get("offset", 0))
        return httpx.Response(200, json={kind: rows[offset : offset + int(asked["limit"])], "meta": {}})

    def on_one(self, request, number):
        run = self.numbered(number)
        return httpx.Response(404, json={"error": "not found"}) if run is None else httpx.Response(
            200, json={"buildrequests": [self.row(run)]}
        )  # fmt: skip

    def on_stop(self, request, number):
        assert json.loads(request.content)["method"] == "cancel"
        run = self.numbered(number)
        if run is not None:
            self.cancel(run)
        return httpx.Response(200, json={"jsonrpc": "2.0", "id": 1, "result": None})

    def on_steps(self, request, build):
        return httpx.Response(200, json={"steps": [{"stepid": int(build), "results": 2}]})

    def on_logs(self, request, step):
        log = self.numbered(int(step) - 5000).log
        return httpx.Response(200, json={"logs": [{"logid": int(step), "num_lines": len(log.splitlines()), "type": "s"}]})

    def on_contents(self, request, log):
        lines = self.numbered(int(log) - 5000).log.splitlines()[int(request.url.params["offset"]) :]
        content = "".join(f"o{line}\n" for line in lines)
        return httpx.Response(200, json={"logchunks": [{"content": content, "firstline": 0}]})

    def is_claimed(self, run):
        return run.state in ("running", "succeeded", "failed")

    def row(self, run):
        results = {"succeeded": 0, "failed": 2, "cancelled": 6}.get(run.state, -1)
        properties = {name: [getattr(run, name), "Force Build Form"] for name in ("model", "key", "attempt")}
        return {
            "buildrequestid": run.number, "builderid": 1, "claimed": self.is_claimed(run), "complete": run.state in DONE,
            "results": results, "properties": properties,
        }  # fmt: skip

    def build(self, run):
        row = self.row(run)
        return {**row, "buildid": run.number + 5000, "builderid": 1, "number": run.number - 100}


class FakeKubernetes(FakeCi):
    """The Jobs of a namespace: a name is given once."""

    def answer(self, request):
        if bearer(request) != TOKEN:
            return httpx.Response(401, json={"kind": "Status", "message": f"Unauthorized {bearer(request)}"})
        path, prefix = request.url.path, "/apis/batch/v1/namespaces/clipdrift/jobs"
        if request.method == "POST" and path == prefix:
            return self.on_create(json.loads(request.content))
        if path.startswith(prefix + "/"):
            return self.on_one(request, path.removeprefix(prefix + "/"))
        pods = "/api/v1/namespaces/clipdrift/pods"
        if path == pods:
            name = request.url.params["labelSelector"].removeprefix("job-name=")
            return httpx.Response(200, json={"items": [{"metadata": {"name": f"{name}-abcde"}}]})
        if found := re.fullmatch(rf"{pods}/(.+)-abcde/log", path):
            return httpx.Response(200, text=self.named(found[1]).log)
        return httpx.Response(404, json={"message": "not found"})

    def on_create(self, job):
        name, spec = job["metadata"]["name"], job["spec"]
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name)
        assert (spec["backoffLimit"], spec["template"]["spec"]["restartPolicy"]) == (0, "Never")
        if self.named(name) is not None:
            return httpx.Response(409, json={"reason": "AlreadyExists", "message": f'jobs.batch "{name}" already exists'})
        verb, model, key_option, key, attempt_option, attempt = spec["template"]["spec"]["containers"][0]["args"]
        assert (verb, key_option, attempt_option) == ("retrain", "--key", "--attempt")
        return httpx.Response(201, json=self.row(self.begin(model, key, attempt, name=name)))

    def on_one(self, request, name):
        run = self.named(name)
        if run is None:
            return httpx.Response(404, json={"message": f'jobs.batch "{name}" not found'})
        if request.method == "DELETE":
            assert request.url.params["propagationPolicy"] == "Background"
            self.cancel(run)
            run.is_deleted = True
        return httpx.Response(200, json=self.row(run))

    def named(self, name):
        return next((run for run in self.runs if run.extra["name"] == name and not run.is_deleted), None)

    def row(self, run):
        ends = {"succeeded": "Complete", "failed": "Failed"}
        status = {"conditions": [{"type": ends[run.state], "status": "True"}]} if run.state in ends else {"active": 1}
        if run.state == "running":
            status["ready"] = 1
        return {"metadata": {"name": run.extra["name"]}, "status": status}


class FakeReceiver(FakeCi):
    """Takes orders by webhook: each once, whatever it is told how often."""

    def answer(self, request):
        content = request.content if request.method == "POST" else request.url.query
        good = f"sha256={hmac.new(TOKEN.encode(), content, hashlib.sha256).hexdigest()}"
        if request.headers.get("x-clipdrift-signature-256") != good:
            return httpx.Response(401, json={"error": "wrong signature"})
        if request.method == "POST":
            body = json.loads(request.content)
            assert request.headers["idempotency-key"] == f"{body['key']}-{body['attempt']}"
            assert body["request"]["key"] == body["key"]
            known = [run for run in self.runs if (run.key, run.attempt) == (body["key"], body["attempt"])]
            run = known[0] if known else self.begin(body["model"], body["key"], body["attempt"])
            return httpx.Response(202, json=self.row(run))
        asked = dict(request.url.params)
        runs = self.shown(model=asked["model"], key=asked["key"], attempt=asked["attempt"])
        if not runs:
            return httpx.Response(404, json={"error": "unknown"})
        if request.method == "DELETE":
            self.cancel(runs[0])
        return httpx.Response(200, json=self.row(runs[0]))

    def row(self, run):
        return {"id": str(run.number), "url": f"https://ci.example/{run.number}", "state": run.state}
