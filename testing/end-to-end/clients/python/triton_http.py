"""tritonclient over HTTP, with binary tensors (its default) and with JSON."""

import numpy as np
import tritonclient.http as triton
from reference import Reference
from tritonclient.utils import InferenceServerException

reference = Reference()
client = triton.InferenceServerClient(reference.rest.removeprefix("http://"), network_timeout=300.0)

assert client.is_server_live(reference.headers) and client.is_server_ready(reference.headers)
assert client.is_model_ready("magika", headers=reference.headers)
assert "binary_tensor_data" in client.get_server_metadata(reference.headers)["extensions"]
metadata = client.get_model_metadata("magika", headers=reference.headers)
assert metadata["inputs"] == [{"name": "bytes", "datatype": "INT32", "shape": [-1, 2048]}], metadata
index = client.get_model_repository_index(reference.headers)
assert [(model["name"], model["state"]) for model in index] == [("magika", "READY"), ("minilm", "READY")], index


def tensor(name, values, binary=True):
    datatype = {np.dtype(np.int32): "INT32", np.dtype(np.int64): "INT64"}[values.dtype]
    made = triton.InferInput(name, values.shape, datatype)
    made.set_data_from_numpy(values, binary_data=binary)
    return made


answers = []
for binary in [True, False]:
    inputs = [tensor("bytes", reference.file, binary)]
    outputs = [triton.InferRequestedOutput("target_label", binary_data=binary)]
    answer = client.infer("magika", inputs, outputs=outputs, request_id="one", headers=reference.headers)
    answers.append(reference.is_magika(answer.as_numpy("target_label")))
    assert answer.get_response()["id"] == "one"
    reference.receipts.append(answer.get_response()["parameters"]["bield_receipt"])

# No outputs named: all, in binary.
inputs = [tensor(*named) for named in reference.minilm_inputs()]
answer = client.infer("minilm", inputs, model_version=metadata["versions"][0], headers=reference.headers)
answers.append(reference.is_minilm(answer.as_numpy("last_hidden_state")))

for wrong in [
    lambda: client.infer("magika", [tensor("bytes", reference.file[:, :7])], headers=reference.headers),
    lambda: client.infer("nobody", [tensor("bytes", reference.file)], headers=reference.headers),
    lambda: client.get_server_metadata(),
]:
    try:
        wrong()
    except InferenceServerException as error:
        assert error.status() in ["400", "404", "401"], error
    else:
        raise AssertionError("a wrong request was answered")

reference.report(*answers)
