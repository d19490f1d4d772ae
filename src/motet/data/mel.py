"""Log-mel spectrograms by Whisper's definition, in numpy."""

from __future__ import annotations

import functools

import numpy as np

RATE = 16_000
N_FFT = 400
HOP = 160
BLOCK = 64  # frames at a time: small arrays stay in the cache, and malloc asks no pages of the kernel


def _hz_to_mel(hz: np.ndarray) -> np.ndarray:
    """Slaney's scale: linear below 1 kHz, logarithmic above."""
    return np.where(hz < 1000, hz * 3 / 200, 15 + np.log(np.maximum(hz, 1e-9) / 1000) * 27 / np.log(6.4))


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))


@functools.cache
def mel_filters(mels: int = 80) -> np.ndarray:
    """(N_FFT/2 + 1, mels) float32 triangles of equal area, 0 to 8 kHz (Slaney norm)."""
    bins = np.linspace(0, RATE / 2, N_FFT // 2 + 1)
    low, high = _hz_to_mel(np.array([0.0, RATE / 2]))
    edges = _mel_to_hz(np.linspace(low, high, mels + 2))
    rise = (bins[:, None] - edges[:-2]) / np.diff(edges)[:-1]
    fall = (edges[2:] - bins[:, None]) / np.diff(edges)[1:]
    return (np.maximum(0, np.minimum(rise, fall)) * (2 / (edges[2:] - edges[:-2]))).astype(np.float32)


def log_mel(wave: np.ndarray, mels: int = 80) -> np.ndarray:
    """(n,) float32 at 16 kHz, n > 200 -> (n // 160, mels) float32; frame i is centred at i * 10 ms.

    Hann window of 25 ms, power spectrum, log10, at most 8 below the clip's loudest, (x + 4) / 4.

    Source: Radford et al. 2022, arXiv:2212.04356; equal to transformers' WhisperFeatureExtractor.
    """
    padded = np.pad(wave.astype(np.float32), N_FFT // 2, mode="reflect")
    count = len(wave) // HOP
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP][:count]
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)).astype(np.float32)
    mel = np.empty((count, mels), np.float32)
    for start in range(0, count, BLOCK):
        power = np.abs(np.fft.rfft(frames[start : start + BLOCK] * window, axis=1)) ** 2
        _multiply(power, mel_filters(mels), mel[start : start + BLOCK])
    log = np.log10(np.maximum(mel, 1e-10))
    return (np.maximum(log, log.max() - 8) + 4) / 4


def _multiply(power: np.ndarray, filters: np.ndarray, out: np.ndarray) -> None:
    """out = power @ filters, in steps that OpenBLAS does in this thread (up to 2^18 products).

    Above, it wakes a thread on every core, which spins on for milliseconds after some microseconds of work.
    """
    step = max(8, 2**18 // filters.size // 8 * 8)
    for start in range(0, len(power), step):
        np.matmul(power[start : start + step], filters, out=out[start : start + step])
