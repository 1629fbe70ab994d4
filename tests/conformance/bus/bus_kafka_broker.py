"""One real Apache Kafka broker (KRaft, one node, loopback) from the `libs/` of any Kafka distribution."""

import base64
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from clipdrift_contract.bus.kafka import KafkaBus
from clipdrift_contract.errors import RetryableError

_START_SECONDS = 60
_PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{broker}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder}/log
log.retention.ms=-1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=2000
auto.create.topics.enable=true
num.partitions=1
"""
_LOGGING = """
Configuration:
  status: error
  Appenders: {Console: {name: C, PatternLayout: {pattern: "%d %p %c{1} %m%n"}}}
  Loggers: {Root: {level: warn, AppenderRef: {ref: C}}}
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class KafkaBroker:
    """Started by `start`; what was acknowledged is still there after `kill` and another `start`."""

    def __init__(self, home: Path, folder: Path) -> None:
        self._home = home
        self._folder = folder
        broker, controller = free_ports(2)
        self.server = f"127.0.0.1:{broker}"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "log4j2.yaml").write_text(_LOGGING)
        (folder / "broker.properties").write_text(_PROPERTIES.format(broker=broker, controller=controller, folder=folder))
        cluster_id = base64.urlsafe_b64encode(os.urandom(16)).rstrip(b"=").decode()
        self._java(
            "kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", "-c", str(folder / "broker.properties")
        ).wait()

    def start(self) -> None:
        self._process = self._java("kafka.Kafka", str(self._folder / "broker.properties"))
        deadline = time.monotonic() + _START_SECONDS
        bus = KafkaBus([self.server])
        while True:  # an open port is not enough: the first requests are dropped until the broker has registered itself
            try:
                bus.ensure_topics(["ready"])
            except RetryableError:
                output = (self._folder / "broker.out").read_text()
                assert self._process.poll() is None, f"the broker has ended:\n{output[-2000:]}"
                assert time.monotonic() < deadline, f"the broker does not answer:\n{output[-2000:]}"
                time.sleep(0.1)
                continue
            return

    def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def _java(self, *arguments: str) -> "subprocess.Popen[bytes]":
        flags = ["-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        logging = f"-Dlog4j2.configurationFile={self._folder / 'log4j2.yaml'}"
        with (self._folder / "broker.out").open("ab") as output:
            return subprocess.Popen(
                ["java", *flags, logging, "-cp", f"{self._home / 'libs'}/*", *arguments], stdout=output, stderr=output
            )
