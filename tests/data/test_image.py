import io

import numpy as np
import pytest
from PIL import Image

from motet.data.collate import collate
from motet.data.image import ImageConfig, ImageProcessor, load_image, patches
from motet.data.processor import load_processor
from motet.errors import ConfigError, DataError, MismatchError
from motet.types import Sample, floats_of
from tests.data.media_fakes import ImageEncoder


def pixel(path, at=(0, 0)):
    image = load_image(path)
    assert image.mode == "RGB"
    return image.getpixel(at)


def test_deep_grey_is_scaled_not_clipped(tmp_path):
    Image.fromarray(np.full((4, 4), 30000, np.uint16)).save(tmp_path / "a.png")
    Image.fromarray(np.full((4, 4), 30000, np.uint16)).save(tmp_path / "a.tiff")
    assert pixel(tmp_path / "a.png") == pixel(tmp_path / "a.tiff") == (117, 117, 117)


def test_transparency_lies_on_white(tmp_path):
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("RGBA", (4, 4), (255, 0, 0, 128)).save(tmp_path / "half.webp", lossless=True)
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.save(tmp_path / "p.gif", transparency=1)
    palette.save(tmp_path / "opaque.png")
    assert pixel(tmp_path / "clear.png") == pixel(tmp_path / "p.gif") == (255, 255, 255)
    assert pixel(tmp_path / "half.webp") == (255, 127, 127)
    assert pixel(tmp_path / "opaque.png") == (10, 20, 30)


def test_cmyk_grey_bilevel_and_first_frame(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "c.jpg", quality=100)
    assert np.allclose(pixel(tmp_path / "c.jpg"), (254, 0, 0), atol=3)
    Image.new("1", (8, 8), 1).save(tmp_path / "b.bmp")
    assert pixel(tmp_path / "b.bmp") == (255, 255, 255)
    frames = [Image.new("RGB", (8, 8), c) for c in ("red", "blue")]
    for name in ("a.gif", "a.webp", "a.tiff", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        assert np.allclose(pixel(tmp_path / name), (255, 0, 0), atol=2), name


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    upright = Image.new("RGB", (32, 16), "white")
    upright.paste("red", (0, 0, 16, 8))
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition whose inverse EXIF names
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation] if orientation > 1 else None
    stored = upright if undo is None else upright.transpose(Image.Transpose(turn[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "o.jpg", exif=exif, quality=100)
    seen = load_image(tmp_path / "o.jpg")
    assert seen.size == (32, 16)
    assert np.allclose(seen.getpixel((4, 4)), (255, 0, 0), atol=12)
    assert np.allclose(seen.getpixel((28, 12)), (255, 255, 255), atol=12)


def test_patches_are_cut_row_by_row():
    picture = np.zeros((1, 4, 4, 3), np.uint8)
    picture[0, 0:2, 2:4] = 255  # upper right
    assert patches(picture, 2).mean(-1).tolist() == [[0, 255, 0, 0]]


def test_scratch_processor_gives_a_grid_with_places(tmp_path):
    Image.new("RGB", (100, 50), "white").save(tmp_path / "w.png")
    processor = ImageProcessor("picture", ImageConfig(size=16, patch=4))
    (piece,) = processor.pieces([processor.read("w.png", tmp_path)])
    assert piece.values.shape == (16, 48) == (16, processor.spec.size) and piece.values.dtype == np.uint8
    batch = collate([Sample("a", {"picture": piece})], [processor.spec], {})
    assert (floats_of(batch.values["picture"]) == 1).all() and (piece.time == 0).all()
    assert piece.row.tolist() == [r for r in range(4) for _ in range(4)]
    assert piece.col.tolist() == [0, 1, 2, 3] * 4
    assert processor.read("", tmp_path) is None and processor.read(None, tmp_path) is None


def test_encoder_sees_normalised_square_and_gives_its_grid(tmp_path):
    Image.new("RGB", (40, 20), (255, 128, 0)).save(tmp_path / "a.png")
    processor = ImageProcessor("picture", ImageConfig(), ImageEncoder())
    (piece,) = processor.pieces([processor.read("a.png", tmp_path)])
    assert piece.values.shape == (6, 4)
    assert np.allclose(piece.values[0, :3], [2, 4 * (128 / 255 - 0.5), -2], atol=2e-3)
    assert piece.row.tolist() == [0, 0, 0, 1, 1, 1] and piece.col.tolist() == [0, 1, 2, 0, 1, 2]
    assert processor.spec.pretrained == "toy-image"


def test_saved_processor_wants_its_encoder():
    processor = ImageProcessor("picture", ImageConfig(), ImageEncoder())
    again = load_processor(processor.to_dict(), ImageEncoder())
    assert again.fingerprint == processor.fingerprint and again.spec == processor.spec
    with pytest.raises(MismatchError, match="toy-image"):
        load_processor(processor.to_dict())
    other = ImageEncoder()
    other.fingerprint = "i2"
    with pytest.raises(MismatchError):
        load_processor(processor.to_dict(), other)


def test_centre_is_cropped(tmp_path):
    wide = Image.new("RGB", (30, 10), "black")
    wide.paste("white", (10, 0, 20, 10))
    wide.save(tmp_path / "w.png")
    processor = ImageProcessor("p", ImageConfig(size=8, patch=4))
    assert processor.read("w.png", tmp_path).min() > 240  # the filter looks a little past the edge


def test_limits_and_wrong_use(tmp_path):
    Image.new("RGB", (100, 100)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="100 x 100") as error:
        load_image(tmp_path / "a.png", config=ImageConfig(max_pixels=9999))
    assert error.value.rule == "too large"
    with pytest.raises(ConfigError, match="multiple"):
        ImageConfig(size=10, patch=4)
    with pytest.raises(DataError, match="path"):
        ImageProcessor("p", ImageConfig()).read(3.5, tmp_path)


def test_what_phones_append_to_a_jpeg_does_not_matter(tmp_path):
    thumbnail = io.BytesIO()
    Image.new("RGB", (8, 8), "blue").save(thumbnail, "JPEG")
    exif = Image.Exif()
    exif[0x9286] = thumbnail.getvalue()  # holds a scan and an end of its own
    Image.effect_noise((64, 64), 50).convert("RGB").save(tmp_path / "a.jpg", exif=exif)
    whole = (tmp_path / "a.jpg").read_bytes()
    for tail in (b"\0\0ftypmp42 \xff\xda \xff\xd8", whole, b"\n"):
        (tmp_path / "b.jpg").write_bytes(whole + tail)
        assert load_image(tmp_path / "b.jpg").size == (64, 64)
    (tmp_path / "b.jpg").write_bytes(whole[:-2])
    with pytest.raises(DataError, match="cut off"):
        load_image(tmp_path / "b.jpg")
