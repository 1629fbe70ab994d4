"""The software that a model was made with, as a CycloneDX 1.6 bill of materials: every distribution of this environment,
and the model itself. The same environment and model give the same bytes.

Source: https://cyclonedx.org/docs/1.6/json/, https://github.com/package-url/purl-spec
"""

import platform
import re
import uuid
from collections.abc import Iterable, Sequence
from importlib.metadata import Distribution, PackageMetadata, distributions
from typing import Any, NamedTuple
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
    read = (_read(one) for one in (distributions() if found is None else found))
    installed = {one.name: one for one in read if one is not None}
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
                {"ref": refs[name], "dependsOn": sorted({refs[other] for other in installed[name].needs if other in refs})}
                for name in sorted(installed)
            ),
        ],
    }
    content = msgspec.json.encode(bill, order="sorted")
    bill["serialNumber"] = f"urn:uuid:{uuid.uuid5(_NAMES, content.decode())}"
    return msgspec.json.format(msgspec.json.encode(bill, order="sorted"), indent=1) + b"\n"


class _Installed(NamedTuple):
    name: str
    version: str
    licenses: Sequence[dict[str, Any]]
    needs: frozenset[str]


def _read(one: Distribution) -> _Installed | None:
    """A distribution as its metadata tell of it, which are read once; None where they tell no name."""
    told = one.metadata
    if "Name" not in told or "Version" not in told:
        return None
    needed = (_NEEDED.match(words) for words in told.get_all("Requires-Dist") or () if not _is_for_extra(words))
    return _Installed(
        normalised(told["Name"]), told["Version"], _licenses(told), frozenset(normalised(one[1]) for one in needed if one)
    )


def _is_for_extra(words: str) -> bool:
    return "extra ==" in words.partition(";")[2]


def _licenses(told: PackageMetadata) -> Sequence[dict[str, Any]]:
    """What the distribution says of its own license: an SPDX expression, else a short name, else nothing."""
    if "License-Expression" in told:
        return [{"expression": told["License-Expression"]}]
    named = told["License"].strip() if "License" in told else ""
    return [{"license": {"name": named}}] if _SPDX.fullmatch(named) else []


def _component(name: str, one: _Installed, ref: str) -> dict[str, Any]:
    told = {"type": "library", "bom-ref": ref, "name": name, "version": one.version, "purl": ref}
    return told | ({"licenses": one.licenses} if one.licenses else {})


def normalised(name: str) -> str:
    """A distribution's name as registries compare it.

    Example:
        >>> normalised("Typing_Extensions")
        'typing-extensions'

    Source: https://packaging.python.org/specifications/name-normalization/
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def _purl(name: str, version: str) -> str:
    return f"pkg:pypi/{quote(name)}@{quote(version, safe='')}"
