"""What one backend alone can do."""

import base64
import json

import httpx
import pytest
from backend_places import Place, attempt_of
from ci_fakes import TOKEN, FakeGitlab, bearer
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from clipdrift_contract.errors import ConfigError
from clipdrift_monitor.actions.backends.backend import RefusedError
from clipdrift_monitor.actions.config import CiSecrets, GithubConfig, GitlabConfig, WebhookConfig

ATTEMPT = attempt_of()


def test_a_github_that_answers_204_begins_a_run_without_a_name_which_is_found_by_its_title():
    place = Place("github")
    place.ci.says_ids = False
    begun = place.backend.dispatch(ATTEMPT)

    assert (begun.run_id, begun.url, begun.state) == ("", "", "queued")
    assert place.backend.find(ATTEMPT).run_id == "101"


def test_a_github_run_is_found_behind_hundreds_of_others():
    place = Place("github")
    wanted = place.ci.begin("pump", "k1", "1")
    for number in range(250):
        place.ci.begin("other", f"x{number}", "1")

    assert place.backend.find(ATTEMPT).run_id == str(wanted.number)


def test_a_workflow_without_our_inputs_is_refused_in_github_s_words():
    place = Place("github")
    place.ci.inputs = ("key", "model")
    with pytest.raises(RefusedError, match=r"GitHub: POST .*/dispatches: status 422 \(Unexpected inputs provided\)"):
        place.backend.dispatch(ATTEMPT)


class FakeApp:
    """Gives installation tokens to who signs with the App's key, in front of a fake GitHub."""

    def __init__(self, ci, key):
        self.ci, self.key, self.num_given = ci, key, 0
        self.transport = httpx.MockTransport(self.handle)

    def handle(self, request):
        if request.url.path != "/app/installations/77/access_tokens":
            return self.ci.handle(request)
        signed, _, signature = bearer(request).rpartition(".")
        unpack = lambda text: base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))  # noqa: E731
        self.key.public_key().verify(unpack(signature), signed.encode(), padding.PKCS1v15(), SHA256())
        header, claims = (json.loads(unpack(part)) for part in signed.split("."))
        now = self.ci.clock.now_ms() / 1000
        assert header["alg"] == "RS256"
        assert claims["iss"] == "123"
        assert claims["iat"] < now < claims["exp"] <= now + 600
        self.num_given += 1
        return httpx.Response(201, json={"token": TOKEN, "expires_at": "2027-01-15T09:00:00Z"})


@pytest.fixture(scope="module")
def app_key():
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture
def app_key_path(app_key, tmp_path):
    path = tmp_path / "app.pem"
    path.write_bytes(app_key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    return path


def test_a_github_app_signs_for_a_token_and_renews_it_before_it_ends(app_key, app_key_path):
    plain = Place("github")
    app = FakeApp(plain.ci, app_key)
    config = GithubConfig(repository="acme/pumps", app_id="123", installation_id="77", app_key_file="app.pem")
    place = Place("github", plain.clock, app, CiSecrets(folder=app_key_path.parent), github=config)
    place.backend.dispatch(ATTEMPT)
    place.clock.advance_ms(40 * 60_000)
    place.backend.find(ATTEMPT)
    num_in_an_hour = app.num_given
    place.clock.advance_ms(15 * 60_000)
    found = place.backend.find(ATTEMPT)

    assert (num_in_an_hour, app.num_given) == (1, 2)
    assert found.run_id == "101"


def test_a_key_that_is_none_is_named_and_not_shown(tmp_path):
    path = tmp_path / "app.pem"
    path.write_text("a secret that is no key")
    config = GithubConfig(repository="acme/pumps", app_id="123", installation_id="77", app_key_file="app.pem")
    with pytest.raises(ConfigError, match=r"app\.pem is no private key in PEM") as told:
        Place("github", secrets=CiSecrets(folder=tmp_path), github=config)

    assert "a secret" not in str(told.value)


def test_gitlab_takes_a_trigger_token_that_is_no_part_of_any_address():
    place = Place("gitlab", gitlab=GitlabConfig(project="group/pumps", start="trigger"))
    place.backend.dispatch(ATTEMPT)

    assert place.ci.asked == [("POST", "/api/v4/projects/group/pumps/trigger/pipeline")]
    assert FakeGitlab.trigger_token not in repr(place.ci.asked)


@pytest.mark.parametrize("name", ["github", "gitlab", "buildbot"])
def test_a_backend_without_its_secret_says_which_variable_it_needs(name):
    with pytest.raises(ConfigError, match=f"backend {name}.* needs CLIPDRIFT_CI_TOKEN"):
        Place(name, secrets=CiSecrets(token=""))


def test_a_session_of_buildbot_that_has_ended_is_begun_anew_and_the_order_given_once():
    place = Place("buildbot")
    place.backend.find(ATTEMPT)
    place.ci.end_sessions()
    begun = place.backend.dispatch(ATTEMPT)

    assert begun.run_id == "101"
    assert len(place.ci.runs) == 1
    assert [path for _, path in place.ci.asked].count("/auth/login") == 2


def test_a_buildbot_run_links_to_its_build_once_there_is_one():
    place = Place("buildbot")
    begun = place.backend.dispatch(ATTEMPT)
    place.ci.work(place.ci.runs[0])

    assert begun.url == "https://bb.example/#/buildrequests/101"
    assert place.backend.look(ATTEMPT, "101").url == "https://bb.example/#/builders/1/builds/1"


def test_a_job_that_kubernetes_has_already_is_a_success():
    place = Place("kubernetes")
    place.ci.changes.append("timeout after")
    with pytest.raises(Exception, match="no answer"):
        place.backend.dispatch(ATTEMPT)
    again = place.backend.dispatch(ATTEMPT)

    assert len(place.ci.runs) == 1
    assert again.run_id == place.ci.runs[0].extra["name"]


def test_a_receiver_without_an_address_for_questions_is_told_and_not_asked():
    place = Place("webhook", webhook=WebhookConfig(url="https://ci.example/retrain"))
    first = place.backend.dispatch(ATTEMPT)
    again = place.backend.dispatch(ATTEMPT)

    assert place.backend.find(ATTEMPT) is None
    assert first == again
    assert len(place.ci.runs) == 1
