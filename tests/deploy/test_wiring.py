"""What the components are given: settings of their tables, addresses and secrets of the project."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from clipdrift_contract.errors import ConfigError
from clipdrift_deploy import wiring
from clipdrift_deploy.project import Environment
from clipdrift_deploy.wiring import MONITOR_FILLED, SERVING_FILLED, listeners, monitor_config, retrain_command, serving_config
from clipdrift_monitor.config import MonitorConfig
from clipdrift_serving.config import ServingConfig


def test_serving_is_given_its_settings_the_bus_the_spool_and_the_secrets(make_project) -> None:
    project = make_project("[serving]\nport = 9000\nevent_time = 'request'\n")

    config = serving_config(project)

    secrets = project.secrets()
    assert (config.port, config.event_time, config.bus_url) == (9000, "request", project.bus_url)
    assert config.spool_dir == project.state / "spool"
    assert (config.admin_token, config.receipt_keys) == (secrets.admin_token, (secrets.receipt_key,))


def test_keys_that_sign_models_lie_in_the_projects_folder(make_project) -> None:
    project = make_project("[serving.admission]\npublic_key_files = ['signing.pub']\n")

    assert serving_config(project).admission.public_key_files == (str(project.folder / "signing.pub"),)


def test_the_monitor_is_given_its_settings_the_policy_and_how_a_retrain_is_started(make_project) -> None:
    project = make_project("[monitor]\nport = 9001\n[policy]\ncooldown_days = 3\nbudget = {days_per_false_page = 500}\n")

    config = monitor_config(project)

    assert (config.port, config.project_name, config.store_url) == (9001, "pumps", project.store_url)
    assert (config.policy.cooldown_days, config.policy.budget.days_per_false_page) == (3.0, 500.0)
    assert (config.jobs_dir, config.api_token) == (project.jobs, project.secrets().api_token)
    assert config.retrain_command == retrain_command(project)


def test_the_retrain_command_carries_out_the_folder_that_is_appended(make_project, tmp_path: Path) -> None:
    ended = subprocess.run([*retrain_command(make_project()), tmp_path / "key"], capture_output=True, text=True, check=False)

    assert ended.returncode == 2
    assert f"{tmp_path / 'key'} holds no order" in ended.stderr


def test_the_environment_wins_and_a_rotated_receipt_key_still_verifies(make_project) -> None:
    environment = Environment(admin_token="from-outside", bus_url="kafka://k:9092", receipt_key=f"{'b' * 64}, {'a' * 64}")
    project = make_project(environment=environment)

    config = serving_config(project)

    assert (config.admin_token, config.bus_url) == ("from-outside", "kafka://k:9092")
    assert config.receipt_keys == ("b" * 64, "a" * 64)


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[serving]\nprot = 1\n", r"\[serving\] prot is no setting; did you mean port"),
        ("[serving]\nmax_rows = 0\n", r"\[serving\] max_rows must be >= 1"),
        ("[serving]\nadmin_token = 'x'\n", r"\[serving\] admin_token is filled by Clipdrift"),
        ("[monitor]\nwindow_ms = 7\n", r"\[monitor\] window_ms must be"),
        ("[monitor]\npolicy = {}\n", r"\[monitor\] policy is filled by Clipdrift"),
        ("[policy]\nseeds = 'many'\n", r"\[policy\] seeds: expected a list, got 'many'"),
        ("[policy.harm]\ntolerence = 1\n", r"\[policy.harm\] tolerence is no setting; did you mean tolerance"),
        ("[policy.budget]\nshare_worse = 2\n", r"\[policy.budget\] budget shares must be"),
        ("[policy.budget]\nblocks_per_false_alarm = 250\n", r"\[policy.budget\] blocks_per_false_alarm = 250 .* write days"),
    ],
)
def test_a_wrong_setting_is_refused_by_file_section_and_key(make_project, toml: str, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"clipdrift\.toml: {words}"):
        listeners(make_project(toml))


@pytest.mark.parametrize(("owner", "filled"), [(ServingConfig, SERVING_FILLED), (MonitorConfig, MONITOR_FILLED)])
def test_what_is_filled_is_what_the_owner_says_is_filled(owner: type[msgspec.Struct], filled: tuple[str, ...]) -> None:
    from clipdrift_deploy.docs import meanings_of

    assert set(filled) == {name for name, words in meanings_of(owner).items() if re.match(r"Filled (from|by)", words)}


def test_a_taken_port_is_said_before_anything_is_started(make_project) -> None:
    project = make_project()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()

        with pytest.raises(ConfigError, match=r"is taken .* choose another with --port or \[serving\] port"):
            wiring.serve(project, port=taken.getsockname()[1])


def test_neither_serving_nor_the_command_itself_loads_torch_or_the_monitor() -> None:
    script = (
        "import sys; import clipdrift_deploy.cli, clipdrift_deploy.wiring, clipdrift_serving.config;"
        "loaded = {name.partition('.')[0] for name in sys.modules};"
        "print(sorted(loaded & {'torch', 'clipdrift_monitor', 'sqlalchemy', 'onnxruntime'}))"
    )

    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_no_secret_is_in_the_text_form_of_a_project(make_project) -> None:
    environment = Environment(admin_token="hush-1", api_token="hush-2", receipt_key="hush-3" * 8)

    assert "hush" not in repr(make_project(environment=environment))
