import numpy as np
import pytest
from PIL import Image

from motet.data.augment import AugmentConfig, augmented, can_augment
from motet.data.image import ImageConfig, ImageProcessor
from motet.data.loader import Loader, LoaderConfig
from motet.data.processor import load_processor
from motet.errors import ConfigError
from motet.types import ModalitySpec, Sample

CONFIG = ImageConfig(size=32, patch=8)


@pytest.fixture
def piece(tmp_path):
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize(
        (80, 60), Image.Resampling.BICUBIC
    )
    picture.save(tmp_path / "a.png")
    processor = ImageProcessor("photo", CONFIG)
    return processor.pieces([processor.read("a.png", tmp_path)])[0]


def values_of(piece):
    """In -1..1, as the model gets them."""
    return piece.values / 127.5 - 1 if piece.values.dtype == np.uint8 else piece.values


def picture_of(piece):
    return values_of(piece).reshape(4, 4, 8, 8, 3).transpose(0, 2, 1, 3, 4).reshape(32, 32, 3)


def test_nothing_to_change_changes_nothing(piece):
    same = augmented(piece, AugmentConfig(crop=(1, 1), aspect=1, colour=0), np.random.default_rng(0))
    assert np.abs(same.values - values_of(piece)).max() < 1 / 255
    assert (same.row == piece.row).all() and same.labels == piece.labels


def test_mirrored_is_mirrored(piece):
    config = AugmentConfig(crop=(1, 1), aspect=1, colour=0, flip=1)
    view = picture_of(augmented(piece, config, np.random.default_rng(0)))
    assert np.abs(view - picture_of(piece)[:, ::-1]).max() < 1 / 255


def test_views_are_crops_of_the_picture_in_light_jitter(piece):
    rng = np.random.default_rng(1)
    whole = picture_of(piece)
    views = [augmented(piece, AugmentConfig(), rng) for _ in range(30)]
    for view in views:
        assert view.values.dtype == np.float32 and np.abs(view.values).max() <= 1
        assert np.corrcoef(picture_of(view).ravel(), whole.ravel())[0, 1] > 0.3
        assert abs(view.values.mean() - whole.mean()) < 0.35
    assert len({view.values.tobytes() for view in views}) == 30
    crops = [augmented(piece, AugmentConfig(colour=0), rng).values for _ in range(30)]
    assert (
        min(c.min() for c in crops) >= whole.min() - 1e-2
        and max(c.max() for c in crops) <= whole.max() + 1e-2
    )


class Rows:
    fingerprint = "rows"

    def __init__(self, piece):
        self.piece = piece

    def __len__(self):
        return 12

    def __getitem__(self, i):
        return Sample(str(i), {"photo": self.piece} if i else {})


def batches(piece, spec, epoch=0, start=0, workers=0, **options):
    config = LoaderConfig(batch_size=4, workers=workers)
    found = Loader(Rows(piece), [spec], {}, config, **options).batches(epoch, start)
    return [b.values["photo"].numpy().tobytes() for b in found]


def test_views_are_drawn_from_seed_epoch_and_position(piece):
    spec = ImageProcessor("photo", CONFIG).spec
    one = batches(piece, spec, augment=AugmentConfig())
    assert one == batches(piece, spec, augment=AugmentConfig(), workers=2)
    assert one[1:] == batches(piece, spec, augment=AugmentConfig(), start=1)
    assert len(set(one)) == 3
    assert one != batches(piece, spec, epoch=1, augment=AugmentConfig())
    assert one != batches(piece, spec, seed=1, augment=AugmentConfig())


def test_what_an_encoder_made_is_left_alone(piece):
    spec = ModalitySpec("photo", "image", "vectors", 192, "toy")
    assert not can_augment(spec) and not can_augment(ModalitySpec("t", "text", "ids", 9))
    assert batches(piece, spec, augment=AugmentConfig()) == batches(piece, spec)


def test_training_prediction_and_a_reloaded_model_see_the_same(tmp_path, piece):
    """The same file: in training without augmentation, at prediction, and by the saved processor."""
    from motet.data.cache import FeatureCache
    from motet.predictor.cells import read_entries
    from motet.predictor.inputs import entry_of

    first = ImageProcessor("photo", CONFIG)
    again = load_processor(first.to_dict())
    for processor in (first, again):
        entry = entry_of(tmp_path / "a.png", {"photo": processor})
        (sample,) = read_entries([entry], {"photo": processor}, FeatureCache(None))
        assert (sample.pieces["photo"].values == piece.values).all()
    assert batches(piece, first.spec) == batches(piece, again.spec)


def test_wrong_use_is_named():
    for wrong in ({"crop": (0.9, 0.5)}, {"crop": (0, 1)}, {"aspect": 0.5}, {"flip": 2}, {"colour": 1}):
        with pytest.raises(ConfigError, match="augment"):
            AugmentConfig(**wrong)
