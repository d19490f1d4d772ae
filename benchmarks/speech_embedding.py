"""What Whisper's encoder makes of a sound, frozen: (tokens, width), one token for a tenth of a second.

`folder`: a Whisper model as `transformers` saves it, see `whisper_base.py`. Radford et al. 2022,
arXiv:2212.04356.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import WhisperModel

from motet.data.mel import RATE, log_mel

FRAME = RATE // 50  # samples that one state of the encoder stands for
TOGETHER = 5  # states that are averaged to one token
QUIET = np.zeros(RATE // 5, np.float32)  # before and after a sound
LEAST, AHEAD = 250, 50  # states: what a sound is at least filled up to, and by at least


class SpeechEmbedding:
    """Sounds (n,) float32 at 16 kHz, at most 28 seconds -> (tokens, width) float32.

    Whisper hears 30 seconds, mostly silence; for sounds of one second it is given 5, which takes a fourth
    of the time.
    """

    def __init__(self, folder: Path) -> None:
        options = {"local_files_only": True, "trust_remote_code": False}
        model = WhisperModel.from_pretrained(folder, use_safetensors=True, **options)
        self.encoder = model.get_encoder().eval()
        self.places = self.encoder.embed_positions.weight.detach().clone()

    @torch.no_grad()
    def __call__(self, wave: np.ndarray) -> np.ndarray:
        loudest = float(np.abs(wave).max(initial=0.0)) or 1.0
        wave = np.concatenate([QUIET, wave * (0.5 / loudest), QUIET]).astype(np.float32)
        told = len(wave) // FRAME
        count = min(len(self.places), max(LEAST, 50 * -(-(told + AHEAD) // 50)))
        heard = np.zeros(count * FRAME, np.float32)
        heard[: len(wave)] = wave[: len(heard)]
        self.encoder.config.max_source_positions = self.encoder.max_source_positions = count
        self.encoder.embed_positions = torch.nn.Embedding.from_pretrained(self.places[:count])
        states = self.encoder(torch.from_numpy(log_mel(heard).T)[None]).last_hidden_state[0, :told].numpy()
        pieces = np.array_split(states, -(-len(states) // TOGETHER))
        return np.stack([piece.mean(0) for piece in pieces])
