"""kserve's inference clients: REST with JSON and with binary tensors, and gRPC."""

import asyncio

import kserve
from reference import Reference

reference = Reference()


def request(model, inputs, binary):
    made = []
    for name, values in inputs:
        datatype = {"int32": "INT32", "int64": "INT64"}[str(values.dtype)]
        one = kserve.InferInput(name=name, shape=list(values.shape), datatype=datatype)
        one.set_data_from_numpy(values, binary_data=binary)
        made.append(one)
    return kserve.InferRequest(model_name=model, infer_inputs=made)


def output(answer):
    return answer.outputs[0].as_numpy()


async def main():
    answers, headers = [], reference.headers
    rest = kserve.InferenceRESTClient(kserve.RESTConfig(protocol="v2", timeout=300))
    assert await rest.is_server_live(reference.rest, headers=headers)
    assert await rest.is_server_ready(reference.rest, headers=headers)
    assert await rest.is_model_ready(reference.rest, "magika", headers=headers)
    for binary in [False, True]:
        back = {}
        asked = request("magika", [("bytes", reference.file)], binary)
        answer = await rest.infer(
            reference.rest, asked, model_name="magika", headers=dict(headers), response_headers=back
        )
        answers.append(reference.is_magika(output(answer)))
        reference.receipts.append(back["bield-receipt"])
    asked = request("minilm", reference.minilm_inputs(), True)
    answer = await rest.infer(reference.rest, asked, model_name="minilm", headers=dict(headers))
    answers.append(reference.is_minilm(output(answer)))
    await rest.close()

    grpc = kserve.InferenceGRPCClient(reference.grpc, timeout=300)
    metadata = tuple(headers.items())
    assert await grpc.is_server_live(headers=metadata) and await grpc.is_server_ready(headers=metadata)
    assert await grpc.is_model_ready("minilm", headers=metadata)
    for binary in [True, False]:
        asked = request("magika", [("bytes", reference.file)], binary)
        answers.append(reference.is_magika(output(await grpc.infer(asked, headers=metadata))))
    asked = request("minilm", reference.minilm_inputs(), True)
    answers.append(reference.is_minilm(output(await grpc.infer(asked, headers=metadata))))
    await grpc.close()
    reference.report(*answers)


asyncio.run(main())
