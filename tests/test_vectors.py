import numpy as np
import pytest

from motet.errors import ConfigError
from motet.predictor.vectors import similarity, smaller


def unit(n: int, seed: int, width: int = 256) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(n, width))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def test_fewer_dimensions_are_the_first_and_of_unit_length() -> None:
    x = unit(5, 0)
    y = smaller(x, dims=32)
    assert y.shape == (5, 32) and y.dtype == np.float32
    assert np.allclose(np.linalg.norm(y, axis=1), 1, atol=1e-6)
    assert np.allclose(y / y[:, :1], x[:, :32] / x[:, :1], rtol=1e-4)
    assert smaller(x[0], dims=32).shape == (32,)


def test_cosines_of_integers_and_bits_are_close_to_the_true_ones() -> None:
    a = unit(20, 1)
    b = a + 0.05 * unit(20, 2) * 16 * np.linspace(0, 3, 20)[:, None].astype(np.float32)
    b = (b / np.linalg.norm(b, axis=1, keepdims=True)).astype(np.float32)
    truth = a.astype(np.float64) @ b.T.astype(np.float64)
    assert np.allclose(similarity(a, b), truth, atol=1e-6)
    for precision, error in (("int8", 0.01), ("binary", 0.35)):
        small = [smaller(x, precision=precision) for x in (a, b)]  # type: ignore[arg-type]
        found = similarity(*small)
        assert np.abs(found - truth).max() < error
        assert small[0].nbytes == a.nbytes // (4 if precision == "int8" else 32)
    assert np.corrcoef(found.ravel(), truth.ravel())[0, 1] > 0.8


def test_wrong_use_is_named() -> None:
    with pytest.raises(ConfigError, match="256 dimensions"):
        smaller(unit(1, 0), dims=257)
    with pytest.raises(ConfigError, match="fp32, int8 and binary"):
        smaller(unit(1, 0), precision="fp8")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="same dims and precision"):
        similarity(unit(1, 0), smaller(unit(1, 0), dims=3))
    with pytest.raises(ConfigError, match="same dims and precision"):
        similarity(unit(1, 0), smaller(unit(1, 0), precision="int8"))
