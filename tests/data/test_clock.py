import numpy as np
import pytest

from motet.data.clock import cut_piece
from motet.data.features import FeaturesConfig
from motet.data.processor import ProcessorConfig, make_processor
from motet.types import Piece


def test_features_are_cut_at_their_own_seconds():
    rows = np.arange(30, dtype=np.float32)[:, None] * [1, -1]
    config = ProcessorConfig(features=FeaturesConfig(step=0.25, normalise=False))
    processor = make_processor("face", "features", config, None, lambda: [rows.tolist()])
    (piece,) = processor.pieces([rows])
    part = cut_piece(piece, 1.1, 2.5)  # tokens at 1.25, 1.5, ... 2.25
    assert part.values[:, 0].tolist() == [5, 6, 7, 8, 9]
    assert part.time == pytest.approx([0.15, 0.4, 0.65, 0.9, 1.15], abs=1e-6)
    assert cut_piece(piece, 7.5, 9) is None and len(cut_piece(piece, 0, 7.5)) == 30


def test_windows_without_overlap_hold_every_token_once_with_all_that_is_known_of_it():
    time = np.sort(np.random.default_rng(0).uniform(0, 10, 50)).astype(np.float32)
    index = np.arange(50, dtype=np.float32)
    piece = Piece(index[:, None], time, row=index, col=index + 1, labels=tuple(map(str, range(50))))
    parts = [part for start in range(0, 10, 2) if (part := cut_piece(piece, start, start + 2))]
    assert np.concatenate([part.values[:, 0] for part in parts]).tolist() == index.tolist()
    for part in parts:
        assert (part.row == part.values[:, 0]).all() and (part.col == part.row + 1).all()
        assert part.labels == tuple(str(int(v)) for v in part.row)
        assert (part.time >= 0).all() and (part.time < 2).all()
