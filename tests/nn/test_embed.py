import pytest
import torch

from motet.errors import MismatchError
from motet.nn.embed import EmbedConfig, TokenEmbedding
from motet.types import Layout, ModalitySpec

SPECS = (
    ModalitySpec("words", "text", "ids", 11),
    ModalitySpec("photo", "image", "vectors", 5, pretrained="someone"),
    ModalitySpec("sound", "audio", "vectors", 3),
)


def layout_of(counts: tuple[int, ...], *, place: bool = False) -> Layout:
    modality = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    total = len(modality)
    grid = torch.arange(total).float() if place else torch.zeros(total)
    zeros = torch.zeros(total)
    layout, _ = Layout.build(
        [spec.name for spec in SPECS],
        modality,
        torch.zeros(total).long(),
        time=zeros,
        row=grid,
        col=zeros,
        samples=1,
    )
    return layout


def make(*, rotary: bool = True, **options: object) -> TokenEmbedding:
    torch.manual_seed(0)
    return TokenEmbedding(SPECS, 16, EmbedConfig(**options), rotary=rotary).eval()  # type: ignore[arg-type]


VALUES = {"words": torch.tensor([3, 7]), "photo": torch.randn(3, 5), "sound": torch.randn(4, 3)}


def test_every_token_is_its_own_modalitys_map_in_the_layouts_order() -> None:
    embed = make()
    x = embed(VALUES, layout_of((2, 3, 4)))
    words, photo, sound = (embed.modality[spec.name] for spec in SPECS)
    assert torch.equal(x[1], words.table.weight[7] + words.kind)
    mean, std = VALUES["photo"].mean(1, keepdim=True), VALUES["photo"].var(1, keepdim=True, correction=0)
    unit = (VALUES["photo"] - mean) / (std + 1e-5).sqrt()
    assert torch.allclose(x[2:5], unit @ photo.project.weight.T + photo.project.bias + photo.kind, atol=1e-5)
    plain = VALUES["sound"] @ sound.project.weight.T + sound.project.bias + sound.kind
    assert torch.allclose(x[5:], plain, atol=1e-6)  # loudness is not normed away


def test_missing_modalities_need_no_values() -> None:
    embed = make()
    assert embed({"sound": VALUES["sound"]}, layout_of((0, 0, 4))).shape == (4, 16)
    assert embed({}, layout_of((0, 0, 0))).shape == (0, 16)


def test_places_are_added_only_where_nothing_rotates() -> None:
    here, there = layout_of((2, 3, 4)), layout_of((2, 3, 4), place=True)
    for options, differs in (
        ({"rotary": True}, False),
        ({"rotary": False}, True),
        ({"rotary": False, "positions": "none"}, False),
        ({"rotary": True, "positions": "sinusoidal"}, True),
    ):
        embed = make(**options)  # type: ignore[arg-type]
        a, b = embed(VALUES, here), embed(VALUES, there)
        assert (not torch.allclose(a[2:5], b[2:5])) is differs
        assert torch.equal(a[5:], b[5:])  # a sound has no row


def test_time_moves_every_modality_where_nothing_rotates() -> None:
    embed = make(rotary=False, time_unit=0.5)
    modality, sample = torch.tensor([0, 0, 2]), torch.zeros(3).long()
    layouts = [
        Layout.build(["words", "photo", "sound"], modality, sample, time=torch.tensor(t))[0]
        for t in ([0.0, 0.0, 0.0], [0.0, 0.5, 0.5])
    ]
    values = {"words": torch.tensor([3, 3]), "sound": VALUES["sound"][:1]}
    a, b = (embed(values, layout) for layout in layouts)
    assert torch.equal(a[0], b[0]) and not torch.allclose(a[1], b[1]) and not torch.allclose(a[2], b[2])


def test_vectors_of_another_size_are_refused() -> None:
    with pytest.raises(MismatchError, match="sound"):
        make()({"sound": torch.randn(4, 9)}, layout_of((0, 0, 4)))
