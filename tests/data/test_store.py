import pickle

import numpy as np

from motet.data.cache import FeatureCache
from motet.data.store import IN_WORKER, Cells, PieceStore
from motet.types import Piece


def piece(value, tokens=3, width=4):
    return Piece(np.full((tokens, width), value, np.float32), np.zeros(tokens, np.float32))


def test_pieces_stay_in_memory_up_to_the_limit_and_come_back_from_disk(tmp_path):
    store = PieceStore(FeatureCache(tmp_path), memory_bytes=100)
    for i in range(5):
        store.keep(f"{i:064x}", piece(i), cheap=False)
    store.keep("c" * 64, piece(9), cheap=True)
    assert 0 < store.used <= 100
    assert [store.get(f"{i:064x}").values[0, 0] for i in range(5)] == [0, 1, 2, 3, 4]
    assert store.get("c" * 64) is None and store.length("c" * 64) is None  # neither fits nor is on disk
    assert store.length(f"{4:064x}") == 3
    again = PieceStore(FeatureCache(tmp_path), memory_bytes=2**20)
    assert again.used == 0 and again.length(f"{1:064x}") == 3 and again.used > 0


def test_a_worker_is_given_little(tmp_path):
    store = PieceStore(FeatureCache(None), memory_bytes=4 * IN_WORKER)
    store.keep("a" * 64, piece(1), cheap=True)
    assert pickle.loads(pickle.dumps(store)).get("a" * 64) is not None  # noqa: S301
    large = np.random.default_rng(0).normal(size=(1, IN_WORKER // 4 + 9)).astype(np.float32)
    store.keep("b" * 64, Piece(large, np.zeros(1, np.float32)), cheap=True)
    sent = pickle.loads(pickle.dumps(store))  # noqa: S301
    assert sent.used == 0 and sent.get("b" * 64) is None and sent.memory_bytes == IN_WORKER
    assert store.get("b" * 64) is not None


def test_cells_are_unknown_empty_or_have_a_key():
    cells = Cells(["a", "b"], 3)
    assert not cells.knows("a", 0) and cells.key("a", 0) is None and cells.tokens(0) is None
    cells.learn("a", 0, "0f" * 32)
    cells.learn("b", 0, None)
    assert cells.key("a", 0) == "0f" * 32 and cells.key("b", 0) is None and cells.knows("b", 0)
    assert cells.tokens(0) is None
    cells.count("a", 0, 7)
    assert cells.tokens(0) == 7
    cells.learn("a", 1, None)
    cells.learn("b", 1, None)
    assert cells.tokens(1) == 0 and cells.tokens(2) is None
