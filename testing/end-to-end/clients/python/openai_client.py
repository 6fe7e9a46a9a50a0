"""openai: models, and embeddings of sentences and of token ids, in base64 (its default) and as numbers."""

import openai
from reference import Reference

reference = Reference()
client = openai.OpenAI(base_url=reference.rest + "/v1", api_key=reference.token, max_retries=0)

assert [model.id for model in client.models.list()] == ["magika", "minilm"]
assert client.models.retrieve("minilm").object == "model"

answers = []
rows = [row[: mask.sum()].tolist() for row, mask in zip(reference.ids, reference.mask)]
for inputs, more in [
    (reference.sentences, {}),
    (reference.sentences, {"encoding_format": "float", "dimensions": 384}),
    (rows, {}),
]:
    raw = client.embeddings.with_raw_response.create(model="minilm", input=inputs, **more)
    reference.receipts.append(raw.headers["bield-receipt"])
    answer = raw.parse()
    assert answer.usage.prompt_tokens == reference.token_count, answer.usage
    answers.append(reference.is_embeddings([one.embedding for one in answer.data]))

# One sentence alone: its activations are measured alone, so the vector differs a little.
one = client.embeddings.create(model="minilm", input=reference.sentences[0]).data
assert len(one) == 1 and len(one[0].embedding) == 384

for wrong, error in [
    (lambda: client.embeddings.create(model="minilm", input="x", dimensions=7), openai.BadRequestError),
    (lambda: client.embeddings.create(model="magika", input=[1, 2]), openai.BadRequestError),
    (lambda: client.models.retrieve("nobody"), openai.NotFoundError),
    (lambda: client.with_options(api_key="another token").models.list(), openai.AuthenticationError),
]:
    try:
        wrong()
    except error:
        pass
    else:
        raise AssertionError("a wrong request was answered")

reference.report(*answers)
