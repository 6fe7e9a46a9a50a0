# An engine in Python's process, on the plaintext file: says how long loading and the first answer took, without the
# interpreter's start and imports, then does what each line asks.
#   peer.py ENGINE MODEL THREADS INPUTS.json OUTPUT      hot N | load CLIENTS SECONDS
import json, sys, threading, time
import numpy as np

engine, model, threads, inputs, output = sys.argv[1:6]
threads = int(threads)
given = {
    one["name"]: np.fromfile(one["file"], dtype=one["dtype"]).reshape(one["shape"])
    for one in json.load(open(inputs))
}
if engine == "onnxruntime":
    import onnxruntime
else:
    import openvino

started = time.perf_counter()
if engine == "onnxruntime":
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    run = lambda: session.run(None, given)
else:
    compiled = openvino.Core().compile_model(
        model, "CPU", {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    )
    requests = threading.local()

    def run():
        if not hasattr(requests, "own"):
            requests.own = compiled.create_infer_request()
        return list(requests.own.infer(given).values())


loaded = time.perf_counter()
first = run()
answered = time.perf_counter()
np.ascontiguousarray(first[0], dtype=np.float32).tofile(output)
print((loaded - started) * 1e3, (answered - loaded) * 1e3, flush=True)


def timed():
    begun = time.perf_counter()
    run()
    return (time.perf_counter() - begun) * 1e3


for line in sys.stdin:
    words = line.split()
    if words[0] == "hot":
        print(*[timed() for _ in range(int(words[1]))], flush=True)
        continue
    took, begun, until = [], time.perf_counter(), time.perf_counter() + float(words[2])

    def client():
        own = []
        while time.perf_counter() < until:
            own.append(timed())
        took.extend(own)

    clients = [threading.Thread(target=client) for _ in range(int(words[1]))]
    [one.start() for one in clients]
    [one.join() for one in clients]
    print(time.perf_counter() - begun, *took, flush=True)
