"""Webhooks of CIs: who sends one, and which runs it is about. They say that something has happened; what, the CI is asked."""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, Literal, get_args

HookName = Literal["github", "gitlab", "buildbot"]
HOOKS: tuple[HookName, ...] = get_args(HookName)
_MAX_WORDS = 50


def is_genuine(hook: HookName, headers: Mapping[str, str], body: bytes, secret: str) -> bool:
    """Whether a webhook was sent by who knows the secret; never without one.

    Source: GitHub signs the body (`X-Hub-Signature-256`); GitLab sends the secret itself (`X-Gitlab-Token`), as does Buildbot's
    HttpStatusPush in a header of one's own choice: here `Authorization: Bearer`.

    Example:
        >>> body = b"Hello, World!"                       # the example of GitHub's documentation
        >>> told = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        >>> is_genuine("github", {"x-hub-signature-256": told}, body, "It's a Secret to Everybody")
        True
        >>> is_genuine("github", {"x-hub-signature-256": told}, body + b"!", "It's a Secret to Everybody")
        False
        >>> is_genuine("gitlab", {"x-gitlab-token": ""}, b"", "")
        False
    """
    if not secret:
        return False
    told, expected = _proof(hook, headers, body, secret)
    return hmac.compare_digest(told.encode(errors="replace"), expected.encode())


def _proof(hook: HookName, headers: Mapping[str, str], body: bytes, secret: str) -> tuple[str, str]:
    if hook == "github":
        digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        return headers.get("x-hub-signature-256", ""), f"sha256={digest}"
    if hook == "gitlab":
        return headers.get("x-gitlab-token", ""), secret
    return headers.get("authorization", ""), f"Bearer {secret}"


def names_in(hook: HookName, told: Any) -> set[str]:
    """Ids, links and words of titles that tell which run it is about; empty where it is about something else.

    Example:
        >>> told = {"workflow_run": {"id": 7, "html_url": "https://x/7", "display_title": "retrain pump k1 1"}}
        >>> sorted(names_in("github", told))
        ['1', '7', 'https://x/7', 'k1', 'pump', 'retrain']
        >>> names_in("gitlab", ["nothing", "of ours"])
        set()
    """
    if not isinstance(told, dict):
        return set()
    if hook == "buildbot":
        properties = _table(told.get("properties"))
        keys = [pair[0] for pair in (properties.get("key"),) if isinstance(pair, list) and pair]
        return _words(told.get("buildrequestid"), told.get("url"), *keys)
    if hook == "github":
        run = _table(told.get("workflow_run"))
        return _words(run.get("id"), run.get("html_url"), *str(run.get("display_title") or "").split()[:_MAX_WORDS])
    pipeline = _table(told.get("object_attributes"))
    return _words(pipeline.get("id"), pipeline.get("url"), *str(pipeline.get("name") or "").split()[:_MAX_WORDS])


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _words(*values: Any) -> set[str]:
    return {str(value) for value in values if value}
