"""Folders of tiny random `transformers` models, as people have them on disk."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "dress", "cat", "bright", "dark", "thing"]


def bert_folder(path: Path) -> Path:
    """A BERT of width 16 with a word-level tokenizer."""
    path.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=20,
        max_position_embeddings=24,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(path)
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_padding(length=20)
    tokenizer.save(str(path / "tokenizer.json"))
    return path


def vit_folder(path: Path) -> Path:
    """A ViT of width 16: pictures of 32 pixels in 4 x 4 patches."""
    path.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=20,
        image_size=32,
        patch_size=8,
    )
    transformers.ViTModel(config).save_pretrained(path)
    (path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 0.5]})
    )
    return path
