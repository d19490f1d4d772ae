"""A tiny Whisper folder with random weights, whole enough for `transformers` to load and transcribe with."""

from __future__ import annotations

import json
from pathlib import Path


def whisper_folder(folder: Path, seed: int = 0) -> Path:
    """Writes config, weights and tokenizer files below `folder`; words are random but always the same."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperTokenizer,
    )

    folder.mkdir(parents=True)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: i for i, letter in enumerate(letters)}
    special = ["<|startoftranscript|>", "<|en|>", "<|translate|>", "<|transcribe|>", "<|startoflm|>"]
    special += ["<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    special += [f"<|{i * 0.02:.2f}|>" for i in range(1501)]
    (folder / "vocab.json").write_text(json.dumps(vocab | {"<|endoftext|>": len(vocab)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = WhisperTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer.add_tokens(special, special_tokens=True)
    tokenizer.save_pretrained(folder)
    ids = tokenizer.convert_tokens_to_ids
    torch.manual_seed(seed)
    end = ids("<|endoftext|>")
    size = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    size |= {"d_model": 32, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    ends = {name: end for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    ends["decoder_start_token_id"] = ids("<|startoftranscript|>")
    config = WhisperConfig(
        vocab_size=len(tokenizer), max_target_positions=64, init_std=0.5, suppress_tokens=None,
        begin_suppress_tokens=None, **size, **ends,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        is_multilingual=True,
        lang_to_id={"<|en|>": ids("<|en|>")},
        task_to_id={"translate": ids("<|translate|>"), "transcribe": ids("<|transcribe|>")},
        no_timestamps_token_id=ids("<|notimestamps|>"),
        prev_sot_token_id=ids("<|startofprev|>"),
        alignment_heads=[[0, 0]],
        max_length=40,
        max_initial_timestamp_index=50,
        **ends,
    )
    model.save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    return folder
