import numpy as np
import pytest

from motet.data.features import FeaturesConfig, read_features
from motet.data.processor import ProcessorConfig, load_processor, make_processor
from motet.errors import DataError


def test_lists_and_files_become_rows(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(6, dtype=np.float64).reshape(3, 2))
    assert read_features([1, 2], tmp_path).tolist() == [[1, 2]]
    assert read_features([[1, 2], [3, 4]], tmp_path).tolist() == [[1, 2], [3, 4]]
    assert read_features("a.npy", tmp_path).tolist() == [[0, 1], [2, 3], [4, 5]]
    assert read_features([], tmp_path) is read_features(None, tmp_path) is None


@pytest.mark.parametrize("cell", [[1, float("nan")], [[1], [1, 2]], ["a"], [[[1]]], [1e300], [[]]])
def test_bad_lists_are_refused(cell, tmp_path):
    with pytest.raises(DataError):
        read_features(cell, tmp_path)


def test_normalised_by_training_statistics_and_clocked(tmp_path):
    rng = np.random.default_rng(0)
    cells = [(rng.normal(size=(5, 3)) * [1, 10, 0] + [0, 5, 7]).tolist() for _ in range(50)]
    config = ProcessorConfig(features=FeaturesConfig(step=0.5, max_tokens=4))
    processor = make_processor("eeg", "features", config, None, lambda: cells)
    pieces = processor.pieces([processor.read(c, tmp_path) for c in cells])
    assert pieces[0].time.tolist() == [0, 0.5, 1, 1.5] and processor.spec.size == 3
    values = np.concatenate([p.values for p in pieces])
    assert np.abs(values[:, :2].mean(0)).max() < 0.15 and np.abs(values[:, :2].std(0) - 1).max() < 0.15
    assert (values[:, 2] == 0).all()  # a constant stays finite
    again = load_processor(processor.to_dict())
    raw = again.read(cells[0], tmp_path)
    assert (again.pieces([raw])[0].values == pieces[0].values).all()
    with pytest.raises(DataError, match="training had 3"):
        processor.read([1.0, 2.0], tmp_path)


def test_columns_of_mixed_width_or_none():
    with pytest.raises(DataError, match="of 2 and of 3"):
        make_processor("x", "features", None, None, lambda: [[1, 2], [1, 2, 3]])
    with pytest.raises(DataError, match="not one usable"):
        make_processor("x", "features", None, None, lambda: [None])
