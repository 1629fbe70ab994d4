"""Whether a file may serve: its size here, everything else in a process of its own with limits (trial.py).

The server itself never imports `onnx`, and never opens a file that has not passed.
"""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Any

import msgspec

from clipdrift_contract.errors import ClipdriftError, ConfigError
from clipdrift_serving.dataplane.measuring import Measured

_ORT_FORMAT = b"ORTM"  # at byte 4 of ONNX Runtime's own format, which the checker does not read
_NICENESS = 5  # requests go first
# What a trial may know of this process: no secret, no setting.
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LANG", "LC_ALL", "TMPDIR")


class ArtifactError(ClipdriftError):
    """A model file that must not be served: missing, changed, not readable by ONNX Runtime, or not admitted."""


class AdmissionPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[serving.admission]`: what an ONNX file must fulfil before it may serve."""

    max_model_bytes: int = 256 * 1024 * 1024
    """Larger files are refused unread."""
    allowed_operators: tuple[str, ...] = ()
    """Operators allowed besides the built-in list, as `Loop` or `domain:Name`; a file that uses any other is refused."""
    trial_seconds: float = 20.0
    """Checking and trying a file may take so long, on the clock and on the CPU; then it is refused."""
    trial_memory_mib: int = 1024
    """Memory that checking, loading and running a file may take."""
    is_trial_required: bool = True
    """Whether a file must pass the trial; off, only size and digest are checked, for files of your own."""
    public_key_files: tuple[str, ...] = ()
    """PEM files of the keys that sign models, in the project's folder; several while keys change. A signature that is there
    must then be by one of them, and of the very file."""
    is_signature_required: bool = False
    """Whether a version without a signature is refused."""

    def __post_init__(self) -> None:
        for name in ("max_model_bytes", "trial_seconds", "trial_memory_mib"):
            if not 0 < getattr(self, name) < 2**53:
                raise ValueError(f"serving.admission.{name} must be > 0, got {getattr(self, name)!r}")
        if self.is_signature_required and not self.public_key_files:
            raise ValueError(
                "serving.admission.is_signature_required needs serving.admission.public_key_files: whose signatures count"
            )


def check_form(content: bytes, source: str, max_model_bytes: int) -> None:
    """Raises ArtifactError where the bytes are too many, or are in a format that is not checked."""
    if len(content) > max_model_bytes:
        raise ArtifactError(
            f"{source} is larger than {max_model_bytes} bytes; make it smaller, or raise serving.admission.max_model_bytes"
        )
    if content[4:8] == _ORT_FORMAT:
        raise ArtifactError(f"{source} is in ONNX Runtime's own format (.ort), which cannot be checked; deploy the .onnx file")


def require_signing_keys(policy: AdmissionPolicy) -> None:
    """Raises ConfigError where signatures are to be checked and cannot be: for the start of a server."""
    if not policy.public_key_files:
        return
    try:
        from clipdrift_serving.dataplane.signed import signing_keys  # noqa: PLC0415  packages that most servers do not have
    except ModuleNotFoundError as error:
        raise ConfigError(f"serving.admission.public_key_files needs {error.name}: pip install 'clipdrift[signing]'") from error
    signing_keys(policy.public_key_files)


def try_out(content: bytes, source: str, policy: AdmissionPolicy) -> Measured:
    """Check and run the model in a process of its own; blocks for up to `trial_seconds`.

    Args:
        content: The very bytes that will be loaded; the process gets them, not the file.
        source: Names the file in errors.
        policy: Limits.

    Raises:
        ArtifactError: The file is refused, or the process crashed, hung or ran out of memory with it.
    """
    asked = json.dumps({"operators": policy.allowed_operators, "seconds": policy.trial_seconds, "mib": policy.trial_memory_mib})
    process = _start(source)
    try:
        said, _ = process.communicate(asked.encode() + b"\n" + content, timeout=policy.trial_seconds)
    except subprocess.TimeoutExpired:
        raise ArtifactError(
            f"{source} is refused: its trial did not end within {policy.trial_seconds:g} s; if the model is that slow, raise "
            "serving.admission.trial_seconds"
        ) from None
    finally:
        _kill(process)
    return _verdict(said, process.returncode, source, policy)


def _start(source: str) -> "subprocess.Popen[bytes]":
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "clipdrift_serving.dataplane.trial"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=_environment(),
            start_new_session=True,  # a group of its own, to be killed whole
        )
    except OSError as error:
        raise ArtifactError(f"{source} is refused: no process could be started for its trial: {error}") from error
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, process.pid, _NICENESS)
    return process


def _verdict(said: bytes, status: int, source: str, policy: AdmissionPolicy) -> Measured:
    try:
        answer: dict[str, Any] = json.loads(said)
        if "refused" not in answer:
            return Measured(**answer)
    except (ValueError, TypeError):
        raise ArtifactError(f"{source} is refused: {_death(status, policy)}") from None
    raise ArtifactError(f"{source} is refused: {answer['refused']}")


def _death(status: int, policy: AdmissionPolicy) -> str:
    if status == -signal.SIGXCPU:
        return f"its trial used more than {policy.trial_seconds:g} s of CPU (serving.admission.trial_seconds)"
    if status < 0:
        name = signal.Signals(-status).name
        return f"its trial was killed by {name}, so it would have taken the server with it; export the model anew"
    return f"its trial ended with status {status} and no verdict; is `onnx` installed (pip install 'clipdrift[serving]')?"


def _kill(process: "subprocess.Popen[bytes]") -> None:
    if process.returncode is None:  # not reaped yet, so the number is still this group's
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _environment() -> dict[str, str]:
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {**passed, "ORT_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "HOME": "/nonexistent"}
