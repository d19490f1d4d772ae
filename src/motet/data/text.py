"""Texts: tokens of the encoder's tokenizer, or of one trained on the user's own texts."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer, models, normalizers, pre_tokenizers, trainers

from motet.data.half import half
from motet.data.hear import transcribed
from motet.data.media import broken, described, digest
from motet.data.spoken import Heard, Spoken, Timed, read_words, spread
from motet.errors import ConfigError, DataError
from motet.types import Encoder, Kind, ModalitySpec, Piece

MAX_WORD = 10_000


@dataclass(frozen=True)
class TextConfig:
    """Texts longer than `max_chars` characters or `max_tokens` tokens are cut there.

    `vocab` is the most tokens that a tokenizer trained here may have. A plain text is given
    `seconds_per_word` of time a word, or, where it is `spoken_in` another modality (a sound or a clip),
    spread over the voiced part of that; "none" for no modality, "" to find it by the columns' names.
    `transcribe` is the folder of a Whisper model, which hears the words of sounds and clips without any.
    """

    max_tokens: int = 128
    max_chars: int = 20_000
    vocab: int = 8000
    seconds_per_word: float = 0.3
    spoken_in: str = ""
    transcribe: str = ""

    def __post_init__(self) -> None:
        if self.max_tokens < 3 or self.max_chars < 1 or self.vocab < 257:
            raise ConfigError("text: max_tokens must be at least 3, max_chars 1 and vocab 257.")


def clean(text: str, max_chars: int) -> str:
    """Without control characters, cut at `max_chars`, trimmed."""
    text = text[:max_chars]
    if not text.isprintable():
        keep = "\n\t\r"
        text = "".join(c if c in keep or unicodedata.category(c) not in ("Cc", "Cs") else " " for c in text)
    return text.strip()


def train_tokenizer(texts: Iterable[str], config: TextConfig) -> Tokenizer:
    """A byte-level BPE of lower-cased NFKC text. The same texts in the same order give the same one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab,
        min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        max_token_length=32,
        show_progress=False,
    )
    tokenizer.train_from_iterator((clean(t, config.max_chars) for t in texts), trainer)
    return tokenizer


def parse_tokenizer(text: str, where: str) -> Tokenizer:
    """A tokenizer from its JSON, refused if it brings regular expressions of its own.

    Raises:
        DataError: not a tokenizer, or one with patterns that could take unbounded time.
    """
    try:
        parts = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{where}: its tokenizer is not JSON: {error}.", rule="tokenizer") from None
    if _has_regex(parts):
        raise DataError(
            f"{where}: its tokenizer brings regular expressions, which can take unbounded time. "
            "Only tokenizers that Motet trained, or that an encoder brings, are used.",
            rule="tokenizer",
        )
    return _from_str(text, where)


def _from_str(text: str, where: str) -> Tokenizer:
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # noqa: BLE001  (the Rust side raises bare Exception)
        raise DataError(f"{where}: its tokenizer cannot be read: {error}.", rule="tokenizer") from None


def _has_regex(value: Any) -> bool:
    if isinstance(value, dict):
        return "Regex" in value or any(_has_regex(v) for key, v in value.items() if key != "vocab")
    return isinstance(value, list) and any(_has_regex(v) for v in value if isinstance(v, dict | list))


class TextProcessor:
    """Texts to token ids, or to the vectors of a frozen encoder without its special tokens.

    With an encoder the spec's input is "vectors", without one "ids".
    """

    kind: Kind = "text"

    def __init__(
        self, name: str, config: TextConfig, tokenizer: Tokenizer | None, encoder: Encoder | None = None
    ) -> None:
        self.name, self.config, self.encoder = name, config, encoder
        if encoder is not None:
            # a copy: the encoder's own may pad and cut, and is not ours to change
            tokenizer = _from_str(encoder.tokenizer.to_str(), encoder.name)  # type: ignore[attr-defined]
            tokenizer.no_padding()
            tokenizer.no_truncation()
        if tokenizer is None:
            raise ConfigError(f"text {name!r}: neither an encoder nor a trained tokenizer was given.")
        self.tokenizer: Tokenizer = tokenizer
        # byte-level BPE leaves a lone blank before a word that it must spell
        self._blank = None if encoder else tokenizer.token_to_id("\u0120")
        self.spec = (
            ModalitySpec(name, "text", "vectors", encoder.width, encoder.name)
            if encoder
            else ModalitySpec(name, "text", "ids", tokenizer.get_vocab_size())
        )
        self.fingerprint = digest(self.to_dict())

    def read(self, cell: Any, root: Path) -> str | Timed | None:
        """The cleaned text, with the times of its words where the cell is a `Path` or `Spoken`; or None.

        Raises:
            DataError: not a text, or nothing in it that gives a token; a broken transcript or sound.
        """
        if isinstance(cell, Path):
            return self._timed(Timed(*read_words(cell, root)))
        if isinstance(cell, Heard):
            heard = transcribed(cell, root)
            return None if heard is None else self._timed(heard)
        if isinstance(cell, Spoken):
            told = self._plain(cell.text)
            spoken = None if told is None else spread(told.split(), cell.media, root)
            return told if told is None or spoken is None else Timed(told, spoken, estimated=True)
        return self._plain(cell)

    def _timed(self, told: Timed) -> Timed:
        """Cleaned and cut, with as many words as before or fewer."""
        words = ["".join(clean(word, MAX_WORD).split()) or "\ufffd" for word in told.text.split()]
        return replace(told, text=self._usable(" ".join(words)[: self.config.max_chars].strip()))

    def _plain(self, cell: Any) -> str | None:
        if cell is None or cell == "":
            return None
        if isinstance(cell, bool | int | float):
            cell = str(cell)
        if not isinstance(cell, str):
            raise broken(str(cell)[:80], "not a text", f"expected a text, found {type(cell).__name__}")
        text = clean(cell, self.config.max_chars)
        if not text and not cell.isspace():
            raise broken(cell[:20], "no text", "nothing but control characters")
        return self._usable(text) if text else None

    def _usable(self, text: str) -> str:
        if not len(self._kept(self.tokenizer.encode(text[:256]))):
            raise broken(text[:20], "no text", "the tokenizer finds no token in it")
        return text

    def pieces(self, raws: Sequence[str | Timed]) -> list[Piece]:
        """One Piece a text. Labels are the parts of the text that its tokens stand for."""
        encodings = self.tokenizer.encode_batch([r.text if isinstance(r, Timed) else r for r in raws])
        kept = [self._kept(encoding) for encoding in encodings]
        if self.encoder is None:
            values = [np.asarray(e.ids, np.int64)[k] for e, k in zip(encodings, kept, strict=True)]
        else:
            special = self.encoder([self._framed(e, k) for e, k in zip(encodings, kept, strict=True)])
            values = [
                half(v[self._lead(e) : self._lead(e) + len(k)])
                for v, e, k in zip(special, encodings, kept, strict=True)
            ]
        return [self._piece(*each) for each in zip(raws, encodings, kept, values, strict=True)]

    def _kept(self, encoding: Encoding) -> np.ndarray:
        """Indices of the tokens that stand for text, at most as many as fit beside the special ones."""
        special = np.asarray(encoding.special_tokens_mask, bool)
        told = ~special if self._blank is None else ~special & (np.asarray(encoding.ids) != self._blank)
        return np.flatnonzero(told)[: self.config.max_tokens - int(special.sum())]

    @staticmethod
    def _lead(encoding: Encoding) -> int:
        mask = encoding.special_tokens_mask
        return mask.index(0) if 0 in mask else len(mask)

    def _framed(self, encoding: Encoding, kept: np.ndarray) -> np.ndarray:
        """Ids of the kept tokens between the special ones that the encoder expects. (n,) int64"""
        ids = np.asarray(encoding.ids, np.int64)
        special = np.asarray(encoding.special_tokens_mask, bool)
        lead = self._lead(encoding)
        tail = np.flatnonzero(special)[lead:]
        return np.concatenate([ids[:lead], ids[kept], ids[tail]])

    def _piece(self, raw: str | Timed, encoding: Encoding, kept: np.ndarray, values: np.ndarray) -> Piece:
        text = raw.text if isinstance(raw, Timed) else raw
        spans = [encoding.offsets[i] for i in kept]
        blank = np.array([c.isspace() for c in text] or [True])
        starts = ~blank & np.concatenate([[True], blank[:-1]])
        word = np.maximum(np.cumsum(starts) - 1, 0)
        begin = [min(max(end - 1, 0), len(word) - 1) for _, end in spans]
        labels = tuple(text[a:b].strip() for a, b in spans)
        if isinstance(raw, Timed):
            return Piece(values, raw.times[word[begin]], labels=labels, estimated=raw.estimated)
        time = word[begin].astype(np.float32) * np.float32(self.config.seconds_per_word)
        return Piece(values, time, labels=labels)

    def to_dict(self) -> dict[str, Any]:
        tokenizer = None if self.encoder else self.tokenizer.to_str()
        return described(self, tokenizer=tokenizer)
