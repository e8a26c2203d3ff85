"""Makes small models with random weights by code, as their libraries save them, and what they answer.

    python tests/models/tiny_models.py FOLDER

writes FOLDER/sentences (sentence-transformers, its tokenizer trained here), FOLDER/clip, FOLDER/vit,
FOLDER/resnet and FOLDER/resnet-whole (transformers) and FOLDER/answers.npz. Runs in the environment of
encoders.
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


def pictures(folder: Path) -> list:
    """Three files of different shapes, and what is in them."""
    from PIL import Image

    made = []
    for name, size in (("wide", (90, 40)), ("high", (30, 70)), ("square", (64, 64))):
        numbers = np.random.default_rng(len(name)).integers(0, 256, (size[1] // 10 + 1, size[0] // 10 + 1, 3))
        made.append(Image.fromarray(numbers.astype(np.uint8)).resize(size))
        made[-1].save(folder / f"{name}.png")
    return made


def vit(folder: Path, some: list) -> np.ndarray:
    from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, image_size=32,
        patch_size=8, initializer_range=0.5,
    )  # fmt: skip
    model = ViTModel(config).eval()
    model.save_pretrained(folder)
    processor = ViTImageProcessorPil(size={"height": 32, "width": 32})
    processor.save_pretrained(folder)
    with torch.inference_mode():
        return model(**processor(images=some, return_tensors="pt")).last_hidden_state[:, 0].numpy()


def resnet(folder: Path, some: list, side: int) -> np.ndarray:
    from transformers import ConvNextImageProcessorPil, ResNetConfig, ResNetModel

    config = ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic")
    model = ResNetModel(config).eval()
    model.save_pretrained(folder)
    # The hub's ResNets have this one: it cuts out the middle, but for sides of 384 and more.
    processor = ConvNextImageProcessorPil(size={"shortest_edge": side})
    processor.save_pretrained(folder)
    with torch.inference_mode():
        return model(**processor(images=some, return_tensors="pt")).pooler_output.flatten(1).numpy()


def clip(folder: Path, some: list) -> tuple[np.ndarray, np.ndarray]:
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    words = tokenizer()
    sides = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    text = CLIPTextConfig(
        vocab_size=len(words), max_position_embeddings=32, eos_token_id=words.eos_token_id,
        bos_token_id=words.bos_token_id, pad_token_id=words.pad_token_id, initializer_range=0.5, **sides,
    )  # fmt: skip
    vision = CLIPVisionConfig(image_size=32, patch_size=8, initializer_range=0.5, **sides)
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=24)
    model = CLIPModel(config).eval()
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32})
    processor.save_pretrained(folder)
    tokens = words(
        [" ".join(each.split()) for each in TEXTS], padding=True, truncation=True, return_tensors="pt"
    )
    with torch.inference_mode():
        seen = model.get_image_features(**processor(images=some, return_tensors="pt"))
        read = model.get_text_features(**tokens)
    return tuple(getattr(each, "pooler_output", each).numpy() for each in (seen, read))


if __name__ == "__main__":
    torch.manual_seed(5)
    root = Path(sys.argv[1])
    root.mkdir(parents=True, exist_ok=True)
    answers = {"sentences": sentences(root / "sentences")}
    some = pictures(root)
    answers["vit"] = vit(root / "vit", some)
    answers["resnet"] = resnet(root / "resnet", some, 224)
    answers["resnet-whole"] = resnet(root / "resnet-whole", some, 384)
    answers["clip_images"], answers["clip_texts"] = clip(root / "clip", some)
    np.savez(root / "answers.npz", **answers)
    print(json.dumps({name: list(each.shape) for name, each in answers.items()}))
