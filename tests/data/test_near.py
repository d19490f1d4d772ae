import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from motet.data import check
from motet.data.check import check_table
from motet.data.columns import infer_columns
from motet.data.groups import group_rows
from motet.data.near import clip_print, merged, near_pairs, near_rows, picture_print, sound_print
from motet.data.table import open_table
from motet.data.video import load_video
from tests.data.media_fakes import tone, write_wav


def drawing(seed, size=120):
    rnd = np.random.default_rng(seed)
    image = Image.new("RGB", (size, size), tuple(rnd.integers(0, 255, 3).tolist()))
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, r = rnd.integers(0, size, 3).tolist()
        box = (x - r / 3, y - r / 3, x + r / 3, y + r / 3)
        pen.ellipse(box, fill=tuple(rnd.integers(0, 255, 3).tolist()))
    return image


def as_jpeg(image, quality=60, size=77):
    file = io.BytesIO()
    image.resize((size, size)).save(file, "JPEG", quality=quality)
    return Image.open(file)


def test_a_picture_saved_again_smaller_is_near_and_others_are_not():
    pictures = [drawing(i) for i in range(60)]
    pictures += [as_jpeg(pictures[i]) for i in range(20)]
    pairs = near_pairs("image", [picture_print(p) for p in pictures])
    expected = {(i, 60 + i) for i in range(20)}
    assert set(pairs) <= expected and len(pairs) >= 18


def test_flat_pictures_of_other_colours_are_not_near():
    flat = [picture_print(Image.new("RGB", (50, 50), c)) for c in ("red", "green", "blue")]
    assert near_pairs("image", flat) == []


def speechlike(seed, seconds=2.0):
    rnd = np.random.default_rng(seed)
    hertz, loud = rnd.uniform(100, 4000, 8).tolist(), rnd.uniform(0.2, 1, 8)
    return np.concatenate([tone(seconds / 8, hertz=h) * a for h, a in zip(hertz, loud, strict=True)])


def test_a_louder_noisier_sound_is_near_and_others_are_not():
    sounds = [speechlike(i) for i in range(30)]
    rnd = np.random.default_rng(0)
    sounds += [0.5 * s + 1e-4 * rnd.normal(size=len(s)).astype(np.float32) for s in sounds[:10]]
    pairs = near_pairs("audio", [sound_print(s) for s in sounds])
    assert [(i, 30 + i) for i in range(10)] == pairs
    longer = np.concatenate([sounds[0], sounds[0]])
    assert near_pairs("audio", [sound_print(sounds[0]), None, sound_print(longer)]) == []


def test_one_sample_of_sound_has_a_print():
    assert np.isfinite(sound_print(np.zeros(1, np.float32))).all()


def test_pairs_are_merged_into_disjoint_sets():
    assert merged([(0, 3), (5, 6), (3, 9)]) == [[0, 3, 9], [5, 6]]
    assert merged([]) == []


def test_near_rows_stay_together_where_asked(tmp_path):
    for i in range(3):
        drawing(i).save(tmp_path / f"{i}.png")
        write_wav(tmp_path / f"{i}.wav", speechlike(i))
    as_jpeg(drawing(0)).save(tmp_path / "3.png")
    write_wav(tmp_path / "3.wav", speechlike(2) * 0.5)
    (tmp_path / "4.png").write_bytes(b"broken")
    rows = "".join(f"{i}.png,{i}.wav\n" for i in range(4)) + "4.png,\n"
    (tmp_path / "t.csv").write_text("photo,sound\n" + rows)
    table = open_table(tmp_path / "t.csv")
    columns = infer_columns(table)
    near = near_rows(table, columns)
    assert near == [[0, 2, 3]]
    assert len(set(group_rows(table, columns))) == 5
    groups = group_rows(table, columns, near=near)
    assert len(set(groups)) == 3 and groups[0] == groups[2] == groups[3]


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_no_media_no_pairs(kind):
    assert near_pairs(kind, [None, None]) == []


def filmed(path, seed, size=96, frames=24, fast=1):
    """A clip of moving shapes."""
    import av

    rnd = np.random.default_rng(seed)
    shapes = [(rnd.integers(0, 96, 2), rnd.integers(-4, 5, 2), rnd.integers(0, 255, 3)) for _ in range(6)]
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=8 * fast)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for t in range(frames):
            image = Image.new("RGB", (96, 96), tuple(rnd.integers(0, 60, 3).tolist()) if t == 0 else "gray")
            pen = ImageDraw.Draw(image)
            for at, step, colour in shapes:
                x, y = ((at + step * t) % 96).tolist()
                pen.ellipse((x - 15, y - 15, x + 15, y + 15), fill=tuple(colour.tolist()))
            for packet in stream.encode(av.VideoFrame.from_image(image.resize((size, size)))):
                out.mux(packet)
        for packet in stream.encode():
            out.mux(packet)
    return path


def test_a_clip_encoded_again_is_near_and_others_are_not(tmp_path):
    clips = [filmed(tmp_path / f"{i}.mp4", seed=i) for i in range(4)]
    clips.append(filmed(tmp_path / "again.mkv", seed=1, size=64))
    clips.append(filmed(tmp_path / "longer.mp4", seed=2, frames=40))  # begins as another does
    prints = [clip_print(load_video(path)) for path in clips]
    assert near_pairs("video", prints) == [(1, 4)]
    (tmp_path / "t.csv").write_text("clip\n" + "".join(f"{path.name}\n" for path in clips))
    table = open_table(tmp_path / "t.csv")
    assert near_rows(table, infer_columns(table)) == [[1, 4]]
    findings = {f.rule: f.rows for f in check_table(tmp_path / "t.csv").findings}
    assert findings["near-duplicate"] == (1, 4)


def test_only_so_many_rows_are_compared(tmp_path, monkeypatch):
    for i in range(6):
        drawing(0, size=60 + i).save(tmp_path / f"{i}.png")
    (tmp_path / "t.csv").write_text("picture\n" + "".join(f"{i}.png\n" for i in range(6)))
    monkeypatch.setattr(check, "NEAR_ROWS", 3)
    findings = {f.rule: f for f in check_table(tmp_path / "t.csv").findings}
    assert findings["near-duplicate"].rows and set(findings["near-duplicate"].rows) <= {0, 1, 2}
    assert "first 3 of 6 rows" in findings["not all compared"].message
