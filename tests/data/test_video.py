import numpy as np
import pytest

from motet.data.audio import load_audio
from motet.data.processor import load_processor
from motet.data.video import VideoConfig, VideoProcessor, load_video
from motet.errors import DataError
from tests.data.media_fakes import ImageEncoder, tone, write_clip


def colours(clip):
    """What colour each frame is: 0 red, 1 green, 2 blue."""
    return clip.frames.reshape(len(clip.frames), -1, 3).mean(1).argmax(1).tolist()


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov"])
def test_frames_are_chosen_by_time(tmp_path, name):
    path = write_clip(tmp_path / name, times=(0.0, 0.1, 1.4))  # variable rate: green is on for 1.3 s
    clip = load_video(path, config=VideoConfig(fps=2))
    assert clip.times.tolist()[:3] == [0, 0.5, 1.0]
    assert colours(clip)[:3] == [0, 1, 1]
    fine = load_video(path, config=VideoConfig(fps=20, max_frames=100))
    assert set(colours(fine)) == {0, 1, 2}
    first_blue = fine.times[colours(fine).index(2)]
    assert abs(first_blue - 1.4) <= 0.05 + 1e-6


def test_long_clip_is_thinned_evenly(tmp_path):
    path = write_clip(tmp_path / "a.mp4", times=[i * 0.1 for i in range(50)], colours=[(255, 0, 0)] * 50)
    clip = load_video(path, config=VideoConfig(fps=10, max_frames=7))
    assert len(clip.frames) <= 7
    assert np.allclose(np.diff(clip.times), clip.times[1]) and clip.times[-1] >= 4
    assert len(load_video(path, config=VideoConfig(fps=10, max_frames=1)).frames) == 1


def test_rotation_is_applied(tmp_path):
    path = write_clip(tmp_path / "a.mp4", mark=True, size=(64, 64))
    data = bytearray(path.read_bytes())
    matrix = data.find(b"tkhd") + 4 + 40
    # 90 degrees clockwise on display, as phones write it
    turned = [0, 0x10000, 0, -0x10000 & 0xFFFFFFFF, 0, 0, 64 << 16, 0, 0x40000000]
    data[matrix : matrix + 36] = b"".join(v.to_bytes(4, "big") for v in turned)
    (tmp_path / "r.mp4").write_bytes(data)
    plain, rotated = load_video(path).frames[0], load_video(tmp_path / "r.mp4").frames[0]
    assert plain[8, 8].min() > 200 and plain[8, 56].min() < 100  # white upper left
    assert rotated[8, 56].min() > 200 and rotated[8, 8].min() < 100  # white upper right
    assert np.abs(np.rot90(plain, -1).astype(int) - rotated).max() < 40


def test_sound_and_picture_share_a_clock(tmp_path):
    sound = np.zeros(48_000, np.float32)
    sound[32_000:] = tone(1.0)  # from 2 s on, with the blue frame
    path = write_clip(tmp_path / "a.mp4", sound=sound)
    clip = load_video(path, config=VideoConfig(fps=10, max_frames=64))
    blue = clip.times[colours(clip).index(2)]
    loud = np.flatnonzero(np.abs(load_audio(path)) > 0.2)[0] / 16_000
    assert abs(blue - 2) <= 0.1 and abs(loud - 2) <= 0.08


def test_sound_only_container_has_no_frames(tmp_path):
    assert load_video(write_clip(tmp_path / "a.mp4", video=False, sound=tone(0.5))) is None


def test_tokens_have_time_row_and_column(tmp_path):
    write_clip(tmp_path / "a.mp4")
    processor = VideoProcessor("clip", VideoConfig(size=32, patch=16, fps=1))
    (piece,) = processor.pieces([processor.read("a.mp4", tmp_path)])
    frames = len(piece) // 4
    assert frames == 3 and piece.values.shape == (12, 768)
    assert piece.time.tolist() == [t for t in (0, 1, 2) for _ in range(4)]
    assert piece.row.tolist() == [0, 0, 1, 1] * 3 and piece.col.tolist() == [0, 1] * 6
    again = load_processor(processor.to_dict())
    assert (again.pieces([again.read("a.mp4", tmp_path)])[0].values == piece.values).all()


def test_frames_go_through_the_picture_encoder(tmp_path):
    write_clip(tmp_path / "a.mp4")
    encoder = ImageEncoder()
    processor = VideoProcessor("clip", VideoConfig(fps=1), encoder)
    (piece,) = processor.pieces([processor.read("a.mp4", tmp_path)])
    assert piece.values.shape == (18, 4) and encoder.seen == 3


def test_limits(tmp_path):
    path = write_clip(tmp_path / "a.mp4")
    with pytest.raises(DataError, match="max_seconds"):
        load_video(path, config=VideoConfig(max_seconds=1.5))
    with pytest.raises(DataError, match="64 x 48"):
        load_video(path, config=VideoConfig(max_pixels=1000))
