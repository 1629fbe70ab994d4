"""The files of `clipdrift init --ci` pass their linters, the linters find what is planted, and nobody's file is overwritten."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import msgspec
import pytest
import yaml
from typer.testing import CliRunner

from clipdrift_contract.errors import ConfigError
from clipdrift_deploy.cli import app
from clipdrift_deploy.pipeline_files import PIPELINES, REQUIREMENTS, write_pipeline
from clipdrift_monitor.actions.config import CiConfig

BIN = Path(sys.executable).parent
GITHUB = ".github/workflows/clipdrift-retrain.yml"
GITLAB = (".gitlab-ci.yml", ".gitlab/clipdrift-retrain.yml")
ZIZMOR = ("zizmor", "--offline", "--no-progress", "--persona", "auditor")
PINNED = re.compile(r"@([0-9a-f]{40}|sha256:[0-9a-f]{64})\b")


def lint(*words):
    """(status, what it said) of a linter."""
    ended = subprocess.run([BIN / words[0], *words[1:]], capture_output=True, text=True, timeout=60, check=False)
    return ended.returncode, ended.stdout + ended.stderr


def schema_of(name):
    """A schema that check-jsonschema brings."""
    from check_jsonschema.builtin_schemas import get_builtin_schema

    return get_builtin_schema(name)


@pytest.fixture
def written(tmp_path):
    for ci in PIPELINES:
        write_pipeline(tmp_path, ci)
    return tmp_path


def plant(path, before, after):
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    return str(path)


def test_githubs_workflow_passes_the_schema_and_zizmor(written):
    path = str(written / GITHUB)
    assert lint("check-jsonschema", "--builtin-schema", "vendor.github-workflows", path)[0] == 0
    assert lint(*ZIZMOR, path)[0] == 0


@pytest.mark.parametrize(
    ("before", "after", "finding"),
    [
        ('clipdrift retrain "$MODEL"', "clipdrift retrain ${{ inputs.model }}", "template-injection"),
        ("@8e8c483db84b4bee98b60c0593521ed34d9990e8 # v6.0.1", "@v6", "unpinned-uses"),
        ("permissions: {}", "permissions: write-all", "excessive-permissions"),
        ("persist-credentials: false", "persist-credentials: true", "artipacked"),
    ],
)
def test_zizmor_finds_what_is_planted(written, before, after, finding):
    status, said = lint(*ZIZMOR, plant(written / GITHUB, before, after))
    assert (status != 0, finding in said) == (True, True)


def test_the_schema_finds_what_is_planted_in_githubs_workflow(written):
    path = plant(written / GITHUB, "runs-on:", "runs_on:")
    assert lint("check-jsonschema", "--builtin-schema", "vendor.github-workflows", path)[0] == 1


def test_githubs_workflow_drops_no_retrain_that_waits_and_is_found_by_its_name(written):
    workflow = yaml.safe_load((written / GITHUB).read_text())
    assert workflow["run-name"] == "retrain ${{ inputs.model }} ${{ inputs.key }} ${{ inputs.attempt }}"
    assert workflow["concurrency"]["queue"] == "max"
    assert workflow["concurrency"]["cancel-in-progress"] is False
    assert set(workflow[True]["workflow_dispatch"]["inputs"]) == {"model", "key", "attempt"}
    assert (workflow["permissions"], workflow["jobs"]["retrain"]["permissions"]) == ({}, {"contents": "read"})


@pytest.mark.parametrize("name", GITLAB)
def test_gitlabs_files_pass_the_schema_and_a_planted_fault_does_not(written, name):
    schema = schema_of("vendor.gitlab-ci")
    header, body = yaml.safe_load_all((written / name).read_text())
    assert set(header["spec"]["inputs"]) == {"model", "key", "attempt"}
    jsonschema.Draft7Validator(schema).validate(header)
    jsonschema.Draft7Validator(schema).validate(body)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(schema).validate({"job": {"script": "true", "artifacts": {"paths": "report"}}})


@pytest.mark.parametrize("name", GITLAB)
def test_a_key_that_looks_like_a_number_stays_text_in_gitlabs_files(written, name):
    _, told = (written / name).read_text().split("\n---\n")
    replaced = re.sub(r"\$\[\[ inputs\.key \]\]", "12345e67", re.sub(r"\$\[\[ inputs\.attempt \]\]", "1", told))
    body = yaml.safe_load(replaced)
    given = body["clipdrift-retrain"]["variables"] if "clipdrift-retrain" in body else body["include"][0]["inputs"]
    assert {"12345e67", "1"} <= set(given.values())


@pytest.mark.parametrize("input_name", ["model", "key", "attempt"])
def test_what_gitlab_is_told_reaches_no_shell_as_text(written, input_name):
    _, body = yaml.safe_load_all((written / GITLAB[1]).read_text())
    job = body["clipdrift-retrain"]
    assert "$[[" not in json.dumps([job["script"], job["before_script"]])
    assert f"$[[ inputs.{input_name} ]]" in job["variables"].values()
    header = next(yaml.safe_load_all((written / GITLAB[1]).read_text()))
    pattern = header["spec"]["inputs"][input_name]["regex"]
    assert not re.search(pattern, "$(touch x)")


def test_kubernetes_takes_the_manifest_and_not_one_with_an_unknown_field(written):
    path = written / "kubernetes" / "retrain.yaml"
    assert lint("kubernetes-validate", "--strict", "-k", "1.33", str(path))[0] == 0
    planted = plant(path, "automountServiceAccountToken", "automountToken")
    assert lint("kubernetes-validate", "--strict", "-k", "1.33", planted)[0] != 0


def test_the_images_file_passes_its_linter_and_secrets_stay_out_of_the_image(written):
    path = written / "kubernetes" / "Dockerfile"
    assert lint("hadolint", str(path)) == (0, "")
    assert lint("hadolint", plant(path, "WORKDIR /project", "WORKDIR project"))[0] != 0
    assert ".clipdrift" in path.with_name("Dockerfile.dockerignore").read_text().split()


@pytest.mark.parametrize("name", [GITHUB, *GITLAB, "kubernetes/retrain.yaml"])
def test_yaml_is_laid_out_as_people_read_it(written, name):
    rules = "{extends: default, rules: {line-length: {max: 140}, document-start: disable, truthy: disable,"
    rules += " comments: {min-spaces-from-content: 1}}}"
    assert lint("yamllint", "--strict", "-d", rules, str(written / name)) == (0, "")


def test_everything_that_is_fetched_is_pinned_by_digest(written):
    texts = [path.read_text() for path in written.rglob("*") if path.is_file()]
    fetched = [line.strip() for text in texts for line in text.splitlines() if re.match(r"\s*(- )?(uses|image):|FROM ", line)]
    assert len(fetched) >= 5
    assert [line for line in fetched if not PINNED.search(line)] == []


def test_buildbots_master_is_python_that_skips_no_retrain_and_shows_no_environment(written):
    text = (written / "buildbot" / "master.cfg").read_text()
    compile(text, "master.cfg", "exec")
    assert '"collapseRequests": False' in text
    assert "logEnviron=False" in text


@pytest.mark.parametrize("ci", PIPELINES)
def test_a_file_that_is_there_stays_without_force(tmp_path, ci):
    first = write_pipeline(tmp_path, ci)
    first.files[0].write_text("mine")
    with pytest.raises(ConfigError, match="--force"):
        write_pipeline(tmp_path, ci)
    assert first.files[0].read_text() == "mine"
    write_pipeline(tmp_path, ci, force=True)
    assert first.files[0].read_text() != "mine"


def test_a_projects_own_gitlab_file_and_requirements_stay_even_with_force(tmp_path):
    (tmp_path / ".gitlab-ci.yml").write_text("mine")
    (tmp_path / REQUIREMENTS).write_text("mine")
    written = write_pipeline(tmp_path, "gitlab", force=True)
    assert (tmp_path / ".gitlab-ci.yml").read_text() == (tmp_path / REQUIREMENTS).read_text() == "mine"
    assert "your .gitlab-ci.yml stays" in " ".join(written.steps)


def test_a_new_folder_gets_a_project_too_and_a_project_only_the_pipeline(tmp_path):
    new = CliRunner().invoke(app, ["init", str(tmp_path / "pumps"), "--ci", "github"])
    again = CliRunner().invoke(app, ["init", str(tmp_path / "pumps"), "--ci", "buildbot"])
    assert (new.exit_code, again.exit_code) == (0, 0)
    assert (tmp_path / "pumps" / "task.py").exists()
    assert "task.py" not in again.output
    assert "CLIPDRIFT_CI_TOKEN" in new.output


def test_the_settings_that_it_names_are_settings_of_the_monitor(tmp_path):
    for ci in PIPELINES:
        told = write_pipeline(tmp_path / ci, ci).settings
        config = msgspec.convert(tomllib.loads(told)["monitor"]["ci"], CiConfig)
        assert config.backend == ci
