"""The traffic's side of the wire: predictions, feedback and control over HTTP, as any client in any language would do it."""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt

from clipdrift_contract.errors import ClipdriftError
from clipdrift_trainer.tasks.task import Rows

_LENGTH_HEADER = "inference-header-content-length"
_NUMPY_OF = {"FP32": "<f4", "FP64": "<f8", "INT64": "<i8"}


class AnswerError(ClipdriftError):
    """A server answered, and not with what was asked for."""


@dataclass(frozen=True)
class Answer:
    """Predictions for N rows."""

    version: str
    scores_NK: npt.NDArray[np.float32]
    receipts: list[str]


class ServingClient:
    """Open Inference Protocol v2 with binary tensors over one kept connection. Counts every answer that is not a 200."""

    def __init__(self, data_url: str, admin_url: str, admin_token: str) -> None:
        # a proxy knows nothing of this machine's ports, and must not see the token
        self._data = httpx.Client(base_url=data_url, timeout=60.0, trust_env=False)
        headers = {"authorization": f"Bearer {admin_token}"}
        self._admin = httpx.Client(base_url=admin_url, timeout=60.0, headers=headers, trust_env=False)
        self.num_errors = 0
        self.last_error = ""

    def close(self) -> None:
        self._data.close()
        self._admin.close()

    def infer(self, model: str, rows: Rows) -> Answer | None:
        """Predictions for `rows`, dated by when each happened; None when the server refused (counted)."""
        body, header_length = encode_request(rows)
        headers = {"content-type": "application/octet-stream", _LENGTH_HEADER: str(header_length)}
        answer = self._data.post(f"/v2/models/{model}/infer", content=body, headers=headers)
        if not self._is_good(answer):
            return None
        return decode_answer(answer.content, answer.headers.get(_LENGTH_HEADER))

    def feedback(self, model: str, receipts: Sequence[str], labels: Sequence[int], label_times_ms: Sequence[int]) -> int:
        """Hand in labels with their receipts; how many were accepted."""
        body = {"receipts": receipts, "labels": labels, "label_times_ms": label_times_ms}
        answer = self._data.post(f"/v2/models/{model}/feedback", json=body)
        if not self._is_good(answer):
            return 0
        accepted: int = answer.json()["accepted"]
        if accepted < len(receipts):
            self.num_errors += len(receipts) - accepted
            self.last_error = f"feedback of {model}: {answer.text[:300]}"
        return accepted

    def flush(self) -> None:
        """Return when all that was answered so far is on the bus."""
        self._is_good(self._admin.post("/v1/recording/flush"))

    def generation(self, model: str) -> int:
        """The generation of the deployment in service; 0 while there is none."""
        answer = self._data.get(f"/v2/models/{model}")
        return int(answer.json()["parameters"]["generation"]) if answer.status_code == httpx.codes.OK else 0

    def exposition(self) -> str:
        """What Prometheus would scrape from serving at this moment."""
        answer = self._admin.get("/metrics")
        if answer.is_error:
            raise AnswerError(f"serving refused GET /metrics: {answer.status_code} {answer.text[:300]}")
        return answer.text

    def _is_good(self, answer: httpx.Response) -> bool:
        if answer.status_code == httpx.codes.OK:
            return True
        self.num_errors += 1
        self.last_error = f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text[:300]}"
        return False


def encode_request(rows: Rows) -> tuple[bytes, int]:
    """Body of an inference request with binary tensors, and the length of its JSON part.

    Numbers travel as little-endian FP32, strings as BYTES: each with its length in four bytes before it. The key is the time of
    the first row: while a canary serves, a request that is sent again goes to the version that it went to before.
    """
    inputs, pieces = [], []
    for name, column in rows.features.items():
        is_text = column.dtype.kind in "OUS"
        piece = _pack_strings(column) if is_text else np.ascontiguousarray(column, "<f4").tobytes()
        inputs.append(
            {
                "name": name,
                "shape": list(column.shape),
                "datatype": "BYTES" if is_text else "FP32",
                "parameters": {"binary_data_size": len(piece)},
            }
        )
        pieces.append(piece)
    parameters = {"event_time_ms": rows.time_ms.tolist(), "key": str(rows.time_ms[0]), "binary_data_output": True}
    header = json.dumps({"inputs": inputs, "parameters": parameters}).encode()
    return b"".join((header, *pieces)), len(header)


def _pack_strings(column: npt.NDArray[Any]) -> bytes:
    encoded = [str(word).encode() for word in column.tolist()]
    return b"".join(struct.pack("<I", len(word)) + word for word in encoded)


def decode_answer(content: bytes, header_length: str | None) -> Answer:
    """Read an inference answer, binary or JSON.

    Raises:
        AnswerError: It holds no probabilities or no receipts.
    """
    length = int(header_length) if header_length else len(content)
    header = json.loads(content[:length])
    try:
        output = header["outputs"][0]
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            flat = np.asarray(output["data"], dtype=np.float32)
        else:
            flat = np.frombuffer(content[length : length + size], _NUMPY_OF[output["datatype"]])
        return Answer(header["model_version"], flat.reshape(output["shape"]), header["parameters"]["receipts"])
    except (KeyError, IndexError, ValueError) as error:
        raise AnswerError(f"an answer that is no prediction ({error!r}): {content[:200]!r}") from error
