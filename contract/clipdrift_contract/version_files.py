"""The files of a version, beside its model: what describes it, what it was made in, and the signature over all of them."""

import hashlib
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

MODEL_NAME = "model.onnx"
CARD_NAME = "card.json"
CARD_PAGE_NAME = "card.md"
SBOM_NAME = "sbom.json"
SIGNATURE_NAME = "model.sig"
DESCRIPTIONS = (CARD_NAME, CARD_PAGE_NAME, SBOM_NAME, SIGNATURE_NAME)
"""Made anew where a run is repeated; the model itself never changes."""


def file_at(uri: str) -> Path:
    """Where a file is that events name by its `file:` address.

    Example:
        >>> file_at("file:///models/pump/7/model%20a.onnx").as_posix()
        '/models/pump/7/model a.onnx'
    """
    return Path(url2pathname(urlsplit(uri).path))


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_of_version(name: str) -> bool:
    """Whether a file is one of the version's own, to be described and signed: no signature, and nothing half written.

    Example:
        >>> is_of_version("model.onnx"), is_of_version("model.sig"), is_of_version("validation.json.partial")
        (True, False, False)
    """
    return name != SIGNATURE_NAME and ".partial" not in name and not name.startswith(".")
