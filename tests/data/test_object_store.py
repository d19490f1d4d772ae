"""Tables in an object store, by the real client from a server of the test's own."""

import pytest

from motet.data.check import check_opened
from motet.data.columns import infer_columns
from motet.data.table import open_table
from motet.errors import DataError
from tests.data.media_fakes import tone, write_wav


@pytest.fixture
def store(monkeypatch, tmp_path):
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
    server = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    host, port = running.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "y",
        "AWS_DEFAULT_REGION": "us-east-1",
        "MOTET_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    yield s3fs.S3FileSystem()
    running.stop()


def test_a_table_in_s3_is_read_with_its_sounds_and_their_words(store, tmp_path):
    folder = tmp_path / "talks"
    folder.mkdir()
    for name in ("a", "b"):
        write_wav(folder / f"{name}.wav", tone(0.5, hertz=440 if name == "a" else 700))
    (folder / "a.srt").write_text("1\n00:00:00,100 --> 00:00:00,400\nhello there\n")
    (folder / "t.csv").write_text("voice,said\na.wav,\nb.wav,plain words\nc.wav,\n")
    store.mkdir("talks")
    store.put(str(folder), "talks/set", recursive=True)
    opened = open_table("s3://talks/set/t.csv", remote=True)
    assert (opened.root / "a.wav").read_bytes() == (folder / "a.wav").read_bytes()
    assert (opened.root / "a.srt").is_file()
    errors = [f for f in check_opened(opened, infer_columns(opened)).findings if f.level == "error"]
    assert [(f.rule, f.lines) for f in errors] == [("missing file", (4,))]
    before = opened.root
    write_wav(folder / "b.wav", tone(0.5, hertz=300))
    store.put(str(folder / "b.wav"), "talks/set/b.wav")
    opened = open_table("s3://talks/set/t.csv", remote=True)  # the table is the same, what it names is not
    assert opened.root == before and (before / "b.wav").read_bytes() == (folder / "b.wav").read_bytes()
    with pytest.raises(DataError, match="nothing is there"):
        open_table("s3://talks/none.csv", remote=True)
