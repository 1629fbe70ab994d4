"""The usual way: FastAPI with pydantic models on uvicorn. `python fast_api.py MODEL PORT`."""

import os
import sys

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class Input(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class InferRequest(BaseModel):
    inputs: list[Input]
    id: str = ""


class Output(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class InferResponse(BaseModel):
    model_name: str
    model_version: str
    outputs: list[Output]


def main(path: str, port: int) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    app = FastAPI()

    @app.post("/v2/models/mlp/infer")
    async def infer(request: InferRequest) -> InferResponse:
        given = request.inputs[0]
        (y,) = session.run(None, {"x": np.array(given.data, np.float32).reshape(given.shape)})
        output = Output(name="probabilities", shape=list(y.shape), datatype="FP32", data=y.ravel().tolist())
        return InferResponse(model_name="mlp", model_version="v1", outputs=[output])

    uvicorn.run(app, port=port, loop="uvloop", http="httptools", lifespan="off", ws="none", access_log=False, log_level="error")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
