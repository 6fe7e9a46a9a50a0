# What many people run: FastAPI and onnxruntime behind plain HTTP. Tensors travel as raw bytes, which is the cheapest
# way for it: no JSON.
#   server.py MODEL THREADS INPUTS.json PORT
import json, sys
import numpy as np, onnxruntime, uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool

model, threads, inputs, port = sys.argv[1:5]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(threads)
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
inputs = json.load(open(inputs))
app = FastAPI()


@app.post("/infer")
async def infer(request: Request):
    body, at, given = await request.body(), 0, {}
    for one in inputs:
        count = int(np.prod(one["shape"]))
        values = np.frombuffer(body, dtype=one["dtype"], count=count, offset=at)
        given[one["name"]] = values.reshape(one["shape"])
        at += values.nbytes
    outputs = await run_in_threadpool(session.run, None, given)
    return Response(b"".join(np.ascontiguousarray(one).tobytes() for one in outputs))


uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="error")
