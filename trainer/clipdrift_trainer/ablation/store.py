"""The folder of an ablation: one file for each trial that is done, written whole, so that a later start makes only the others.

A trial's name is the digest of everything that determines it. What all trials of a folder share stands in `study.json`; a
start with another task, other data or another torch is refused, since its trials could not be compared with those that lie
there.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import msgspec
import torch

from clipdrift_contract.errors import ClipdriftError, ConfigError
from clipdrift_contract.files import lock_file, write_whole
from clipdrift_trainer.ablation.trial import Failure, Job, Study, Trial
from clipdrift_trainer.lineage import data_digest

_FORMAT = "1"
_FAILURES = Path("trials") / "failures.txt"


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What determines every trial of a folder beside its policy and seed; each field may be named in a refusal."""

    task: str
    data: str
    later_data: str
    held_out_days: str
    num_steps: str
    versions: str
    format: str = _FORMAT

    @property
    def digest(self) -> str:
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()


_WORDS = {
    "task": "the task's code or options",
    "data": "the rows of training and validation",
    "later_data": "the rows of the later months",
    "held_out_days": "which days are held out ([training])",
    "num_steps": "the number of steps or the batch size",
    "versions": "the version of torch or of Clipdrift",
    "format": "the form of these files",
}


def identity_of(study: Study, origin: str) -> Identity:
    """What determines the trials of `study`.

    Args:
        study: Task and rows.
        origin: Digest of the task's code and options; whoever loaded the task knows it.
    """
    return Identity(
        task=origin,
        data=study.prepared.digest,
        later_data=data_digest(study.later) if study.later is not None else "none",
        held_out_days=study.training.identity,
        num_steps=f"{study.task.num_steps} of {study.task.batch_size}",
        versions=f"torch {torch.__version__}, clipdrift {metadata.version('clipdrift')}",
    )


class Store:
    """Trials on disk. Used by one process at a time: see `opened`."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        self.folder = folder
        self._identity = identity
        self._trials = folder / "trials"

    def path_of(self, job: Job) -> Path:
        """Where the trial of `job` is kept."""
        parts = [self._identity.digest, msgspec.json.encode(job.clip).decode(), str(job.seed), repr(job.learning_rate_factor)]
        return self._trials / f"{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:24]}.msgpack"

    def read(self, job: Job) -> Trial | None:
        """The finished trial; None where it is not done. A file that cannot be read, for any reason, counts as not done and is
        written anew."""
        try:
            return msgspec.msgpack.decode(self.path_of(job).read_bytes(), type=Trial)
        except (OSError, msgspec.DecodeError):
            return None

    def write(self, job: Job, trial: Trial) -> None:
        """Keep a finished trial.

        Raises:
            OSError: The disk is full, or the folder may not be written to.
        """
        path = self.path_of(job)
        partial = path.with_suffix(".partial")  # one name: what a kill leaves behind is overwritten by the next start
        try:
            write_whole(path, msgspec.msgpack.encode(trial), partial)
        except OSError:
            partial.unlink(missing_ok=True)
            raise

    def note(self, job: Job, failure: Failure) -> None:
        """Keep the traceback of a trial that raised, beside those of this start.

        Raises:
            OSError: The disk is full, or the folder may not be written to.
        """
        with (self.folder / _FAILURES).open("a") as file:
            file.write(f"{job.arm}, seed {job.seed}\n{failure.trace}\n")


@contextmanager
def opened(folder: Path, identity: Identity) -> Iterator[Store]:
    """The store in `folder`, made when missing, held for as long as the block runs. Tracebacks of an earlier start go.

    Raises:
        ConfigError: The folder belongs to another task or other data; the message says what differs.
        ClipdriftError: Another process is at work in it, or it cannot be written to.
    """
    try:
        (folder / "trials").mkdir(parents=True, exist_ok=True)
        handle = lock_file(folder / "lock")
    except OSError as error:
        raise ClipdriftError(f"{folder} cannot be written to ({error.strerror}); give another folder with --out") from error
    if handle is None:
        raise ClipdriftError(f"another ablation is at work in {folder}; wait for it, or give another folder with --out")
    try:
        try:
            _check(folder / "study.json", identity)
            (folder / _FAILURES).unlink(missing_ok=True)
        except OSError as error:
            raise ClipdriftError(f"{folder} cannot be used ({error.strerror}); give another folder with --out") from error
        yield Store(folder, identity)
    finally:
        os.close(handle)


def _check(path: Path, identity: Identity) -> None:
    try:
        known = msgspec.json.decode(path.read_bytes(), type=Identity)
    except FileNotFoundError:
        write_whole(path, msgspec.json.encode(identity))
        return
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path} is damaged ({error}); delete {path.parent}, or give another folder with --out") from error
    changed = [_WORDS[name] for name in Identity.__struct_fields__ if getattr(known, name) != getattr(identity, name)]
    if changed:
        raise ConfigError(
            f"{path.parent} holds trials of something else: changed since are {', '.join(changed)}. Give another folder with "
            "--out to begin anew, or undo the change to go on"
        )
