"""A real Buildbot master and worker, as `clipdrift init --ci buildbot` sets them up, on this machine."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from clipdrift_deploy.ports import free_port

USER, PASSWORD, WORKER_PASSWORD, HOOK_SECRET = "clipdrift", "the-masters-password", "the-workers-password", "the-hooks-secret"
_BIN = Path(sys.executable).parent
_PATIENCE_SECONDS = 60.0


class RealBuildbot:
    """Not started yet: the port is known before the monitor starts, the monitor's address before the worker does.

    Args:
        folder: Where master and worker live.
        master_cfg: The master's file.
        project: The project's folder as the worker has it.
    """

    def __init__(self, folder: Path, master_cfg: Path, project: Path) -> None:
        self.folder = folder
        self.project = project
        self.port, self.worker_port = free_port("127.0.0.1"), free_port("127.0.0.1")
        self.url = f"http://127.0.0.1:{self.port}/"
        self._processes: list[subprocess.Popen[bytes]] = []
        folder.mkdir(parents=True)
        self._run("buildbot", "create-master", "-q", str(folder / "master"))
        shutil.copy(master_cfg, folder / "master" / "master.cfg")

    def start(self, monitor_url: str, key: str) -> None:
        """Start both; returns when the worker is known to the master."""
        told = {
            "BUILDBOT_USER": USER, "BUILDBOT_PASSWORD": PASSWORD, "BUILDBOT_WORKER_PASSWORD": WORKER_PASSWORD,
            "BUILDBOT_URL": self.url, "BUILDBOT_PORT": str(self.port), "BUILDBOT_WORKER_PORT": str(self.worker_port),
            "CLIPDRIFT_PROJECT": str(self.project), "CLIPDRIFT_COMMAND": f"{sys.executable} -m clipdrift_deploy",
            "CLIPDRIFT_HOOK_URL": f"{monitor_url}/api/v1/hooks/buildbot", "CLIPDRIFT_HOOK_SECRET": HOOK_SECRET,
        }  # fmt: skip
        master, worker = self.folder / "master", self.folder / "worker"
        self._run("buildbot", "checkconfig", str(master), **told)
        self._start("buildbot", "start", "--nodaemon", str(master), **told)
        address = f"127.0.0.1:{self.worker_port}"
        self._run("buildbot-worker", "create-worker", "-q", str(worker), address, "clipdrift", WORKER_PASSWORD)
        self._start(
            "buildbot-worker", "start", "--nodaemon", str(worker), CLIPDRIFT_MONITOR_URL=monitor_url, CLIPDRIFT_API_TOKEN=key,
            OMP_NUM_THREADS="1",
        )  # fmt: skip
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not self._has_worker():
            assert time.monotonic() < deadline, self.log("master")
            time.sleep(0.1)

    def get(self, path: str) -> dict[str, Any]:
        """JSON of the master's interface, as its user."""
        with httpx.Client(trust_env=False, timeout=10.0) as client:
            client.get(f"{self.url}auth/login", auth=(USER, PASSWORD))
            answer = client.get(f"{self.url}api/v2/{path}")
            answer.raise_for_status()
            found: dict[str, Any] = answer.json()
            return found

    def builds(self) -> list[dict[str, Any]]:
        """Every build, the oldest first."""
        found: list[dict[str, Any]] = self.get("builds?order=buildid&property=*")["builds"]
        return found

    def log(self, which: str) -> str:
        return (self.folder / f"{which}.log").read_text(errors="replace")[-4000:]

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _has_worker(self) -> bool:
        try:
            return any(one["connected_to"] for one in self.get("workers")["workers"])
        except httpx.HTTPError:
            return False

    def _run(self, command: str, *words: str, **told: str) -> None:
        ended = subprocess.run(
            [str(_BIN / command), *words], env=_environment(told), capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr

    def _start(self, command: str, *words: str, **told: str) -> None:
        which = "master" if command == "buildbot" else "worker"
        with (self.folder / f"{which}.log").open("wb") as log:
            self._processes.append(
                subprocess.Popen([str(_BIN / command), *words], env=_environment(told), stdout=log, stderr=log)
            )


def _environment(told: Mapping[str, str]) -> dict[str, str]:
    """Of this process, without what it tells the monitor."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CLIPDRIFT_", "BUILDBOT_"))}
    return {**kept, **told}
