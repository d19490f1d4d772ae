import importlib.util

import numpy as np
import pytest

from motet.data.builtin.espeak import RATE, speak
from motet.errors import ConfigError, DataError

needs_espeak = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None, reason="not installed: espeakng-loader (motet[demo])"
)


@needs_espeak
def test_the_same_texts_sound_the_same_and_longer_ones_last_longer():
    texts = ["cat", "loudly crying face", ""]
    first, again = list(speak(texts)), list(speak(texts))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    cat, face, nothing = first
    assert 0.2 * RATE < len(cat) < len(face) < 3 * RATE
    assert np.abs(cat).max() > 3000 and np.abs(nothing).max() <= 1


@needs_espeak
def test_unknown_voice_is_an_error():
    with pytest.raises(DataError, match="voice 'nobody'"):
        list(speak(["cat"], voice="nobody"))


def test_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="espeakng-loader"):
        list(speak(["cat"]))
