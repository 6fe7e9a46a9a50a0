"""tritonclient over gRPC: raw contents, and typed ones as its own messages carry them."""

import numpy as np
import tritonclient.grpc as triton
from reference import Reference
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

reference = Reference()
client = triton.InferenceServerClient(reference.grpc)
headers = reference.headers

assert client.is_server_live(headers) and client.is_server_ready(headers)
assert client.is_model_ready("minilm", headers=headers)
assert client.get_server_metadata(headers).name == "bield"
metadata = client.get_model_metadata("magika", headers=headers)
assert (metadata.inputs[0].name, metadata.inputs[0].datatype) == ("bytes", "INT32"), metadata
assert list(metadata.inputs[0].shape) == [-1, 2048], metadata
index = client.get_model_repository_index(headers).models
assert [(model.name, model.state) for model in index] == [("magika", "READY"), ("minilm", "READY")], index


def tensor(name, values):
    datatype = {np.dtype(np.int32): "INT32", np.dtype(np.int64): "INT64"}[values.dtype]
    made = triton.InferInput(name, values.shape, datatype)
    made.set_data_from_numpy(values)
    return made


answers = []
outputs = [triton.InferRequestedOutput("target_label")]
answer = client.infer("magika", [tensor("bytes", reference.file)], outputs=outputs, request_id="one", headers=headers)
answers.append(reference.is_magika(answer.as_numpy("target_label")))
assert answer.get_response().id == "one"
reference.receipts.append(answer.get_response().parameters["bield_receipt"].string_param)

answer = client.infer("minilm", [tensor(*named) for named in reference.minilm_inputs()], headers=headers)
answers.append(reference.is_minilm(answer.as_numpy("last_hidden_state")))

typed = service_pb2.ModelInferRequest(model_name="magika")
made = typed.inputs.add(name="bytes", datatype="INT32", shape=reference.file.shape)
made.contents.int_contents.extend(reference.file.flatten().tolist())
answer = client._client_stub.ModelInfer(typed, metadata=tuple(headers.items()))
scores = np.frombuffer(answer.raw_output_contents[0], dtype=np.float32)
answers.append(reference.is_magika(scores.reshape(tuple(answer.outputs[0].shape))))

for wrong, status in [
    (lambda: client.infer("magika", [tensor("bytes", reference.file[:, :7])], headers=headers), "INVALID_ARGUMENT"),
    (lambda: client.infer("nobody", [tensor("bytes", reference.file)], headers=headers), "NOT_FOUND"),
    (lambda: client.get_server_metadata(), "UNAUTHENTICATED"),
]:
    try:
        wrong()
    except InferenceServerException as error:
        assert error.status() == "StatusCode." + status, error
    else:
        raise AssertionError("a wrong request was answered")

reference.report(*answers)
