"""The systemd units and the compose file: no Docker here, so what can be held is that all they name exists and agrees."""

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from clipdrift_deploy.cli import app
from clipdrift_monitor.config import MonitorConfig
from clipdrift_serving.config import ServingConfig

ROOT = Path(__file__).parents[2]
COMPOSE_FOLDER = ROOT / "deploy/compose"
UNITS = sorted((ROOT / "deploy/systemd").glob("*.service"))
COMPOSE: dict[str, Any] = yaml.safe_load((COMPOSE_FOLDER / "compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PORTS = {"serving": (ServingConfig().port, ServingConfig().admin_port), "monitor": (MonitorConfig().port,)}


def parsed_by_the_command(words: list[str]) -> dict[str, Any]:
    """The options of a `clipdrift` command line; an unknown command or option raises."""
    name, *arguments = words
    parameters: dict[str, Any] = get_command(app).commands[name].make_context(name, arguments).params
    return parameters


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_starts_a_command_that_there_is_on_the_folder_it_may_write(unit: Path) -> None:
    parser = configparser.ConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's names are in mixed case
    parser.read(unit)
    service = parser["Service"]
    program, *words = shlex.split(service["ExecStart"])

    options = parsed_by_the_command(words)

    assert (Path(program).name, words[0]) == ("clipdrift", {"clipdrift-serving": "serve"}.get(unit.stem, "monitor"))
    assert options["project"].is_relative_to(Path("/var/lib") / service["StateDirectory"])
    assert (service["ProtectSystem"], service["NoNewPrivileges"], service["Restart"]) == ("strict", "yes", "always")


def test_a_retraining_job_outlives_the_monitors_unit() -> None:
    assert len(UNITS) == 2
    assert "KillMode=process" in (ROOT / "deploy/systemd/clipdrift-monitor.service").read_text()


@pytest.mark.parametrize("name", ["serving", "monitor"])
def test_a_container_listens_on_all_its_addresses_with_a_command_that_there_is(name: str) -> None:
    options = parsed_by_the_command(SERVICES[name]["command"])

    assert {value for option, value in options.items() if option.endswith("host")} == {"0.0.0.0"}
    assert SERVICES[name]["ports"] == [f"127.0.0.1:{PORTS[name][0]}:{PORTS[name][0]}"], "the admin port stays inside"
    assert f":{PORTS[name][0]}/" in SERVICES[name]["healthcheck"]["test"][-1]


def test_every_port_is_published_to_this_machine_alone() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]

    assert len(published) == 5
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_every_file_volume_and_service_that_is_named_exists() -> None:
    for name, service in SERVICES.items():
        for mount in service.get("volumes", []):
            source = mount.rpartition(":/")[0]
            is_file, is_project = source.startswith("."), source.startswith("${PROJECT")
            assert is_project or ((COMPOSE_FOLDER / source).exists() if is_file else source in COMPOSE["volumes"]), (
                name,
                mount,
            )
        assert set(service.get("depends_on", [])) <= set(SERVICES), name
        assert "latest" not in service["image"], "an image is named by its version"
        assert ":" in service["image"]


def test_no_password_is_in_the_file() -> None:
    words = re.findall(r"^\s+\S*(?:PASSWORD|TOKEN|SECRET|KEY)\S*: (.+)$", (COMPOSE_FOLDER / "compose.yml").read_text(), re.M)

    assert words
    assert all(word.startswith("${") for word in words)


def test_prometheus_scrapes_the_ports_that_the_components_have() -> None:
    config = yaml.safe_load((COMPOSE_FOLDER / "prometheus.yml").read_text())
    targets = {target for job in config["scrape_configs"] for one in job["static_configs"] for target in one["targets"]}

    assert targets == {f"serving:{ServingConfig().admin_port}", f"monitor:{MonitorConfig().port}"}
    alertmanagers = config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    assert [target.partition(":")[0] for target in alertmanagers] == ["alertmanager"]


def test_prometheus_and_grafana_differ_from_the_single_machine_files_by_addresses_alone() -> None:
    pairs = (
        (COMPOSE_FOLDER / "prometheus.yml", ROOT / "deploy/prometheus/prometheus.yml"),
        (COMPOSE_FOLDER / "grafana-datasource.yml", ROOT / "deploy/grafana/provisioning/datasources/clipdrift.yml"),
    )
    for here, there in pairs:
        containers, machine = (yaml.safe_load(path.read_text()) for path in (here, there))
        jobs = [job for job in machine.get("scrape_configs", []) if job["job_name"] != "prometheus"]
        if jobs:
            machine["scrape_configs"] = sorted(jobs, key=lambda job: job["job_name"])
            containers["scrape_configs"].sort(key=lambda job: job["job_name"])
            machine["rule_files"] = [Path(name).name for name in machine["rule_files"]]

        assert without_hosts(containers) == without_hosts(machine), here.name


def without_hosts(value: Any) -> Any:
    """The same, with every host name before a port left out."""
    if isinstance(value, dict):
        return {key: without_hosts(one) for key, one in value.items()}
    if isinstance(value, list):
        return [without_hosts(one) for one in value]
    return re.sub(r"[\w.-]+:(\d{4})$", r":\1", value) if isinstance(value, str) else value


def test_grafana_reads_the_dashboards_from_where_they_are_mounted() -> None:
    provider = yaml.safe_load((ROOT / "deploy/grafana/provisioning/dashboards/clipdrift.yml").read_text())["providers"][0]

    assert f"../../dashboards/generated:{provider['options']['path']}:ro" in SERVICES["grafana"]["volumes"]
    assert list((ROOT / "dashboards/generated").glob("*.json"))


def test_the_image_is_built_from_files_that_exist_and_that_are_not_ignored() -> None:
    build = SERVICES["serving"]["build"]
    dockerfile = (COMPOSE_FOLDER / build["context"] / build["dockerfile"]).resolve()
    copied = [word for line in dockerfile.read_text().splitlines() if line.startswith("COPY") for word in line.split()[1:-1]]
    let_in = set(re.findall(r"^!(.+)$", Path(f"{dockerfile}.dockerignore").read_text(), re.M))

    assert set(copied) == let_in
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.prometheus
def test_prometheus_takes_its_file(tmp_path: Path) -> None:
    for source in (COMPOSE_FOLDER / "prometheus.yml", ROOT / "dashboards/generated/clipdrift-rules.yml"):
        shutil.copy(source, tmp_path)

    command = ["promtool", "check", "config", "prometheus.yml"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stdout + ended.stderr
