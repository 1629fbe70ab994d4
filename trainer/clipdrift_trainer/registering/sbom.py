"""The software that a model was made with, as a CycloneDX 1.6 bill of materials: every distribution of this environment,
and the model itself. The same environment and model give the same bytes.

Source: https://cyclonedx.org/docs/1.6/json/, https://github.com/package-url/purl-spec
"""

import platform
import re
import uuid
from collections.abc import Iterable, Sequence
from importlib.metadata import Distribution, distributions
from typing import Any
from urllib.parse import quote

import msgspec

_NAMES = uuid.UUID("7b1a3c0e-4c55-5d1c-9f0e-0c6a3b1d2e4f")  # of serial numbers made from content
_SPDX = re.compile(r"[A-Za-z0-9.+-]{1,64}")
_NEEDED = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)")


def make_sbom(model: str, version: str, artifact_digest: str, found: Iterable[Distribution] | None = None) -> bytes:
    """The bill as JSON.

    Args:
        model: The model's name.
        version: The version that was made.
        artifact_digest: Of its file, as `sha256:<hex>`.
        found: The distributions; those of this environment when not given.
    """
    installed = {_name(one): one for one in (distributions() if found is None else found) if one.metadata["Name"]}
    refs = {name: _purl(name, one.version) for name, one in installed.items()}
    made = f"model:{model}@{version}"
    bill: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "machine-learning-model",
                "bom-ref": made,
                "name": model,
                "version": version,
                "hashes": [{"alg": "SHA-256", "content": artifact_digest.removeprefix("sha256:")}],
            },
            "properties": [
                {"name": "clipdrift:python", "value": f"{platform.python_implementation()} {platform.python_version()}"},
                {"name": "clipdrift:platform", "value": f"{platform.system()} {platform.machine()}"},
            ],
        },
        "components": [_component(name, installed[name], refs[name]) for name in sorted(installed)],
        "dependencies": [
            {"ref": made, "dependsOn": sorted({refs["clipdrift"]} if "clipdrift" in refs else refs.values())},
            *(
                {"ref": refs[name], "dependsOn": sorted({refs[other] for other in _needs(installed[name]) if other in refs})}
                for name in sorted(installed)
            ),
        ],
    }
    content = msgspec.json.encode(bill, order="sorted")
    bill["serialNumber"] = f"urn:uuid:{uuid.uuid5(_NAMES, content.decode())}"
    return msgspec.json.format(msgspec.json.encode(bill, order="sorted"), indent=1) + b"\n"


def _component(name: str, one: Distribution, ref: str) -> dict[str, Any]:
    licenses = _licenses(one)
    told = {"type": "library", "bom-ref": ref, "name": name, "version": one.version, "purl": ref}
    return told | ({"licenses": licenses} if licenses else {})


def _licenses(one: Distribution) -> Sequence[dict[str, Any]]:
    """What the distribution says of its own license: an SPDX expression, else a short name, else nothing."""
    told = one.metadata.json
    if expression := told.get("license_expression"):
        return [{"expression": expression}]
    named = str(told.get("license") or "").strip()
    return [{"license": {"name": named}}] if _SPDX.fullmatch(named) else []


def _needs(one: Distribution) -> Iterable[str]:
    """Names of what it says that it needs, extras left out."""
    for words in one.requires or ():
        needed = _NEEDED.match(words)
        if needed and "extra ==" not in words.partition(";")[2]:
            yield normalised(needed[1])


def normalised(name: str) -> str:
    """A distribution's name as registries compare it.

    Example:
        >>> normalised("Typing_Extensions")
        'typing-extensions'

    Source: https://packaging.python.org/specifications/name-normalization/
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def _name(one: Distribution) -> str:
    return normalised(one.metadata["Name"])


def _purl(name: str, version: str) -> str:
    return f"pkg:pypi/{quote(name)}@{quote(version, safe='')}"
