"""The peer that does nothing but run the model: uvicorn (uvloop, httptools), a raw ASGI application, msgspec in, orjson out.

No check of shapes or values, no receipts, no recording, no metrics. `python bare.py MODEL PORT`.
"""

import os
import sys

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import msgspec
import numpy as np
import onnxruntime
import orjson
import uvicorn


class Input(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: list[float] = []
    parameters: dict[str, int] = {}


class InferRequest(msgspec.Struct):
    inputs: list[Input]
    id: str = ""


JSON = (b"content-type", b"application/json")
BINARY = (b"content-type", b"application/octet-stream")


def main(path: str, port: int) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    decode = msgspec.json.Decoder(InferRequest).decode

    def infer(body: bytes, header_length: bytes | None) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        if header_length is None:
            given = decode(body).inputs[0]
            (y,) = session.run(None, {"x": np.array(given.data, np.float32).reshape(given.shape)})
            output = {"name": "probabilities", "datatype": "FP32", "shape": list(y.shape), "data": y.ravel()}
            answer = {"model_name": "mlp", "model_version": "v1", "outputs": [output]}
            return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), [JSON]
        split = int(header_length)
        given = decode(body[:split]).inputs[0]
        (y,) = session.run(None, {"x": np.frombuffer(body, np.float32, offset=split).reshape(given.shape)})
        parameters = {"binary_data_size": y.nbytes}
        output = {"name": "probabilities", "datatype": "FP32", "shape": list(y.shape), "parameters": parameters}
        head = orjson.dumps({"model_name": "mlp", "model_version": "v1", "outputs": [output]})
        return head + y.tobytes(), [BINARY, (b"inference-header-content-length", b"%d" % len(head))]

    async def app(scope, receive, send):
        message = await receive()
        body = message["body"]
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        length = next((value for name, value in scope["headers"] if name == b"inference-header-content-length"), None)
        answer, headers = infer(body, length)
        headers.append((b"content-length", b"%d" % len(answer)))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    uvicorn.run(app, port=port, loop="uvloop", http="httptools", lifespan="off", ws="none", access_log=False, log_level="error")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
