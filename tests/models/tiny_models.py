"""Makes small models with random weights by code, as their libraries save them, and what they answer.

    python tests/models/tiny_models.py FOLDER

writes FOLDER/sentences (sentence-transformers, its tokenizer trained here) and FOLDER/answers.npz. Runs in the
environment of encoders.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

TEXTS = ["Brake pads for the front axle", "a tin of paint", "", "where is my order " * 40]
CORPUS = [*TEXTS, "abcdefghijklmnopqrstuvwxyz 0123456789", "red blue green yellow picture of a car"]


def tokenizer():
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=200, special_tokens=special))
    ids = [(each, made.token_to_id(each)) for each in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        bos_token="[CLS]", eos_token="[SEP]", model_max_length=32,
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


def sentences(folder: Path) -> np.ndarray:
    from sentence_transformers import SentenceTransformer
    from transformers import BertConfig, BertModel

    words = tokenizer()
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=40, initializer_range=0.5,
    )  # fmt: skip
    plain = folder.with_name("plain")
    BertModel(config).eval().save_pretrained(plain)
    words.save_pretrained(plain)
    model = SentenceTransformer(str(plain), device="cpu")
    model.save(str(folder))
    return SentenceTransformer(str(folder), device="cpu").encode([" ".join(each.split()) for each in TEXTS])


if __name__ == "__main__":
    torch.manual_seed(5)
    root = Path(sys.argv[1])
    root.mkdir(parents=True, exist_ok=True)
    answers = {"sentences": sentences(root / "sentences")}
    np.savez(root / "answers.npz", **answers)
    print(json.dumps({name: list(each.shape) for name, each in answers.items()}))
