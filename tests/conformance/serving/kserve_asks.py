"""What KServe's client says to a server: run in an environment of its own; prints one JSON object.

`python kserve_asks.py http://HOST:PORT`
"""

import asyncio
import json
import sys

import numpy as np


def request(*, is_binary: bool) -> object:
    """Two rows of the toy model; numbers as binary tensors or as JSON."""
    from kserve import InferInput, InferRequest  # here: the test run, which reads this file too, has no such package

    inputs = []
    for name, values in (("x", [0.5, -1.0]), ("y", [0.25, 2.0])):
        made = InferInput(name=name, shape=[2], datatype="FP32")
        made.set_data_from_numpy(np.array(values, np.float32), binary_data=is_binary)
        inputs.append(made)
    carrier = InferInput(name="carrier", shape=[2], datatype="BYTES")
    carrier.set_data_from_numpy(np.array([b"UA", b"AA"], dtype=object), binary_data=is_binary)
    return InferRequest(model_name="toy", infer_inputs=[*inputs, carrier], request_id="k1")


async def main(url: str) -> dict[str, object]:
    from kserve import InferenceRESTClient, RESTConfig

    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=1))
    found: dict[str, object] = {
        "live": await client.is_server_live(url),
        "ready": await client.is_server_ready(url),
        "model_ready": await client.is_model_ready(url, "toy"),
    }
    for is_binary in (True, False):
        answer = await client.infer(url, request(is_binary=is_binary), model_name="toy")
        found["binary" if is_binary else "json"] = {
            "probabilities": answer.outputs[0].as_numpy().reshape(2, 2)[:, 1].tolist(),
            "id": answer.id,
            "receipts": len((answer.parameters or {})["receipts"]),
        }
    await client.close()
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1]))))
