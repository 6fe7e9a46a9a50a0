"""Inputs made of a secret, and what the models answer to them by onnxruntime.

    secret ─▶ a file's bytes ─▶ magika's input ─────┐
           ─▶ sentences ─WordPiece─▶ MiniLM's input ┴─▶ onnxruntime ─▶ what a client's answers must be

One JSON object comes in on standard input: where the proxy is, its token, the secret, the models' files. Each client's
script compares what it got and calls `report`, which prints what the test then looks for in everything the host has: the
inputs and the answers as bytes. The tokenizer is written here anew, so that the
proxy's is compared with another one.
"""

import json
import sys
import unicodedata

import numpy as np
import onnxruntime

# How far rten and onnxruntime may be apart. MiniLM has int8 weights and measures its activations as it runs.
SCORES_APART_MAX = 1e-3
COSINE_MIN = 0.99

# Of each answer so much is looked for: what left in clear would leave from the start.
SECRET_BYTES_MAX = 2048


class Reference:
    """The models, what is asked of them, and what they answer."""

    def __init__(self):
        told = json.load(sys.stdin)
        self.rest, self.grpc, self.token = told["rest"], told["grpc"], told["token"]
        self.receipts = []
        self.secret = bytes.fromhex(told["secret"])

        # magika looks at the first and the last 1024 bytes of a file; 256 stands for none.
        self.file = np.full((1, 2048), 256, dtype=np.int32)
        self.file[0, : len(self.secret)] = list(self.secret)
        session = onnxruntime.InferenceSession(told["magika"])
        self.scores = session.run(None, {"bytes": self.file})[0]

        self.sentences = [f"my password is {self.secret.hex()}", "Déjà vu, she said."]
        vocabulary = json.load(open(told["tokenizer"]))["model"]["vocab"]
        rows = [tokens(vocabulary, sentence) for sentence in self.sentences]
        self.token_count = sum(map(len, rows))
        length = max(map(len, rows))
        self.ids = np.array([row + [0] * (length - len(row)) for row in rows], dtype=np.int64)
        self.mask = (np.arange(length)[None, :] < np.array([[len(row)] for row in rows])).astype(np.int64)
        self.types = np.zeros_like(self.ids)
        session = onnxruntime.InferenceSession(told["minilm"])
        inputs = {"input_ids": self.ids, "attention_mask": self.mask, "token_type_ids": self.types}
        self.states = session.run(None, inputs)[0]
        mean = (self.states * self.mask[:, :, None]).sum(axis=1)
        self.embeddings = mean / np.linalg.norm(mean, axis=1, keepdims=True)

    @property
    def headers(self):
        """A new one each time: tritonclient adds to what it is given."""
        return {"authorization": "Bearer " + self.token}

    def minilm_inputs(self):
        return [("input_ids", self.ids), ("attention_mask", self.mask), ("token_type_ids", self.types)]

    def is_magika(self, scores):
        """Checks an answer of magika."""
        scores = np.asarray(scores, dtype=np.float32)
        assert scores.shape == self.scores.shape, scores.shape
        apart = np.abs(scores - self.scores).max()
        assert apart < SCORES_APART_MAX, f"magika's scores are {apart} apart"
        assert scores.argmax() == self.scores.argmax()
        return scores

    def is_minilm(self, states):
        """Checks an answer of MiniLM: one vector a token."""
        states = np.asarray(states, dtype=np.float32)
        assert states.shape == self.states.shape, states.shape
        of_tokens = self.mask.astype(bool)
        alike(states[of_tokens], self.states[of_tokens])
        return states

    def is_embeddings(self, embeddings):
        """Checks embeddings of the sentences."""
        embeddings = np.asarray(embeddings, dtype=np.float32)
        assert embeddings.shape == self.embeddings.shape, embeddings.shape
        alike(embeddings, self.embeddings)
        lengths = np.linalg.norm(embeddings, axis=1)
        assert np.abs(lengths - 1).max() < 1e-4, lengths
        return embeddings

    def report(self, *answers):
        """Says what was secret, and the ids of the receipts."""
        secrets = {"the file": self.secret.hex(), "the sentence": self.sentences[0].encode().hex()}
        for at, answer in enumerate(answers):
            secrets[f"answer {at}"] = np.ascontiguousarray(answer).tobytes()[:SECRET_BYTES_MAX].hex()
        print(json.dumps({"receipts": self.receipts, "secrets": secrets}))


def alike(ours, theirs):
    cosine = (ours * theirs).sum(axis=-1) / np.linalg.norm(ours, axis=-1) / np.linalg.norm(theirs, axis=-1)
    assert cosine.min() > COSINE_MIN, f"vectors point elsewhere: {cosine.min()}"


def tokens(vocabulary, text):
    """BERT's uncased tokenizer: words and marks in lower case without accents, then the longest pieces."""
    text = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    spaced = "".join(c if c.isalnum() or c.isspace() else f" {c} " for c in text)
    ids = [vocabulary["[CLS]"]]
    for word in spaced.split():
        ids += pieces(vocabulary, word)
    return ids + [vocabulary["[SEP]"]]


def pieces(vocabulary, word):
    found, at = [], 0
    while at < len(word):
        for end in range(len(word), at, -1):
            piece = ("##" if at else "") + word[at:end]
            if piece in vocabulary:
                found.append(vocabulary[piece])
                at = end
                break
        else:
            return [vocabulary["[UNK]"]]
    return found
