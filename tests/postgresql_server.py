"""A real PostgreSQL of Debian's package: a cluster of its own below a folder, reached by a socket there, gone afterwards.

PostgreSQL refuses to run as root, so root starts it as `nobody`, in a folder that is given away.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import psycopg


def find_programs() -> Path | None:
    """The folder of the newest installed server's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


class PostgresqlServer:
    """One running server. `url` names a fresh database for each call of `new_database`."""

    def __init__(self) -> None:
        programs = find_programs()
        assert programs is not None, "PostgreSQL is not installed: tests/system-packages.sh"
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="clipdrift-pg-", dir="/tmp"))  # a socket's path has at most 107 bytes
        self._account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self._num_databases = 0
        if self._account is not None:
            os.chown(self._folder, self._account.pw_uid, self._account.pw_gid)
        self._data = self._folder / "data"
        self._run("initdb", "--no-sync", "--auth=trust", "--username=clipdrift", "--encoding=UTF8", "-D", str(self._data))
        self.start()

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories='{self._folder}' -c fsync=off -c max_connections=60"
        log = str(self._folder / "log.txt")
        self._run("pg_ctl", "start", "-w", "-t", "60", "-D", str(self._data), "-l", log, "-o", options)

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "stop", "-w", "-m", mode, "-D", str(self._data))

    def new_database(self) -> str:
        """The address of an empty database."""
        self._num_databases += 1
        name = f"test{self._num_databases}"
        self.say("postgres", f'CREATE DATABASE "{name}"')
        return f"postgresql://clipdrift@/{name}?host={self._folder}"

    def say(self, database: str, statement: str) -> None:
        with psycopg.connect(f"host={self._folder} user=clipdrift dbname={database}", autocommit=True) as connection:
            connection.execute(statement)

    def close(self) -> None:
        try:
            self.stop()
        except subprocess.CalledProcessError:  # stopped by the test; a postmaster that was left would hold the folder
            pid_file = self._data / "postmaster.pid"
            if pid_file.exists():
                os.kill(int(pid_file.read_text().split()[0]), signal.SIGKILL)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program: str, *words: str) -> None:
        account: dict[str, int | Sequence[int]] = {}
        if self._account is not None:
            account = {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": ()}
        subprocess.run(
            [self._programs / program, *words],
            check=True, cwd=self._folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=90,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": str(self._folder)}, **account,
        )  # fmt: skip
