"""Whether a model's file is signed by one of the operator's keys. Needs the extra `signing`."""

import logging
from collections.abc import Sequence
from pathlib import Path

from clipdrift_contract.errors import ClipdriftError
from clipdrift_contract.signatures import PublicKey, UnsignedError, check_model, read_public_keys
from clipdrift_serving.dataplane.admission import AdmissionPolicy, ArtifactError

_log = logging.getLogger(__name__)


def signing_keys(files: Sequence[str]) -> tuple[PublicKey, ...]:
    """The keys in these files.

    Raises:
        ConfigError: A file holds none.
    """
    return read_public_keys([Path(name) for name in files])


def check_signature(path: Path, version: str, digest: str, policy: AdmissionPolicy) -> None:
    """Check the signature beside a model's file. Keys are read each time: one may be changed while the server runs.

    Args:
        path: Of the file.
        version: What it is to serve as.
        digest: Of the bytes that will be loaded, as `sha256:<hex>`.
        policy: Whose signatures count, and whether there must be one.

    Raises:
        ArtifactError: The signature is by none of the keys, or of something else; or there must be one, and is none.
    """
    try:
        check_model(path, version, digest.removeprefix("sha256:"), signing_keys(policy.public_key_files))
    except UnsignedError as error:
        if policy.is_signature_required:
            raise ArtifactError(f"{path} is refused: {error} (serving.admission.is_signature_required)") from error
        _log.warning("%s; it is served, since serving.admission.is_signature_required is off", error)
    except ClipdriftError as error:
        raise ArtifactError(f"{path} is refused: {error}") from error
