# The model of a folder for MLServer, as its documentation says how to bring an engine of one's own. Runs leave the event
# loop, so that it has as many at once as the others.
import asyncio

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Served(MLModel):
    async def load(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(self.settings.parameters.extra["threads"])
        self.session = onnxruntime.InferenceSession(
            self.settings.parameters.uri, options, providers=["CPUExecutionProvider"]
        )
        return True

    async def predict(self, payload):
        given = {one.name: NumpyCodec.decode_input(one) for one in payload.inputs}
        names = [one.name for one in self.session.get_outputs()]
        run = asyncio.get_running_loop().run_in_executor(None, self.session.run, None, given)
        outputs = zip(names, await run)
        outputs = [NumpyCodec.encode_output(*output) for output in outputs]
        return InferenceResponse(model_name=self.name, outputs=outputs)
