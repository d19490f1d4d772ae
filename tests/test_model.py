import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from motet import config as configs
from motet.errors import ConfigError, MismatchError
from motet.model import Motet, MotetConfig, TaskSpec, parameter_groups
from motet.nn.block import BlockConfig
from motet.nn.mot import MoTConfig
from motet.types import Layout, ModalitySpec, TokenBatch

SPECS = (
    ModalitySpec("text", "text", "ids", 30),
    ModalitySpec("picture", "image", "vectors", 6, pretrained="someone"),
    ModalitySpec("speech", "audio", "vectors", 5),
)
TASKS = (
    TaskSpec("mood", "classes", ("bad", "so", "good")),
    TaskSpec("price", "number", mean=100.0, std=10.0),
)
CONFIG = MotetConfig(
    modalities=SPECS,
    mot=MoTConfig(block=BlockConfig(width=32, heads=2), depth=3, attend=("own", "global")),
    tasks=TASKS,
    embedding=8,
    late_heads=True,
)
VARIANTS = {
    "own first": CONFIG,
    "global": replace(CONFIG, mot=replace(CONFIG.mot, attend=("global",))),
    "own only": replace(CONFIG, mot=replace(CONFIG.mot, attend=("own",))),
    "no rotary": replace(CONFIG, mot=replace(CONFIG.mot, rotary=None)),
    "mean pool": replace(CONFIG, pool="mean", direct=False),
}


def make(config: MotetConfig, seed: int = 0) -> Motet:
    torch.manual_seed(seed)
    return Motet(config).eval()


def batch_of(
    samples: list[dict[str, int]], seed: int = 0, specs: tuple[ModalitySpec, ...] = SPECS
) -> TokenBatch:
    """Random tokens: for each sample, how many of which. Equal samples have equal tokens anywhere."""
    names = [spec.name for spec in specs]
    modality, sample, time = [], [], []
    values: dict[str, list[Tensor]] = {name: [] for name in names}
    for b, counts in enumerate(samples):
        for m, spec in enumerate(specs):
            n = counts.get(spec.name, 0)
            rng = torch.Generator().manual_seed(seed + 100 * m + n)
            modality += [m] * n
            sample += [b] * n
            time += [0.1 * i for i in range(n)]
            if spec.input == "ids":
                values[spec.name].append(torch.randint(spec.size, (n,), generator=rng))
            else:
                values[spec.name].append(torch.randn(n, spec.size, generator=rng))
    layout, _ = Layout.build(
        names,
        torch.tensor(modality, dtype=torch.long),
        torch.tensor(sample, dtype=torch.long),
        time=torch.tensor(time),
        samples=len(samples),
    )
    return TokenBatch(
        layout=layout,
        values={name: torch.cat(parts) for name, parts in values.items() if sum(map(len, parts))},
        targets={},
        group=torch.arange(len(samples)),
        ids=tuple(map(str, range(len(samples)))),
    )


FULL = {"text": 4, "picture": 3, "speech": 5}


@pytest.mark.parametrize("name", VARIANTS)
def test_shapes_unit_length_and_zeros_where_absent(name: str) -> None:
    batch = batch_of([FULL, {"text": 2}, {}, {"picture": 1, "speech": 2}])
    out = make(VARIANTS[name])(batch)
    assert out.tokens.shape == (17, 32) and out.fused.shape == (4, 32)
    assert out.present.tolist() == [[True] * 3, [True, False, False], [False] * 3, [False, True, True]]
    for m, modality in enumerate(("text", "picture", "speech")):
        length = out.embeddings[modality].norm(dim=1)
        assert torch.allclose(length, out.present[:, m].float(), atol=1e-6)
        assert out.modality_predictions[modality]["mood"].shape == (4, 3)
    assert out.predictions["mood"].shape == (4, 3) and out.predictions["price"].shape == (4,)
    assert bool((out.fused[2] == 0).all())
    assert all(bool(p.isfinite().all()) for p in out.predictions.values())


@pytest.mark.parametrize("name", VARIANTS)
def test_encode_gives_the_embeddings_of_forward(name: str) -> None:
    model, batch = make(VARIANTS[name]), batch_of([FULL, {"picture": 2}, {"text": 3, "speech": 1}])
    alone, full = model.encode(batch), model(batch).embeddings
    assert alone.keys() == full.keys()
    for modality, value in alone.items():
        assert torch.allclose(value, full[modality], atol=1e-6)


@pytest.mark.parametrize("name", VARIANTS)
def test_an_embedding_hears_no_other_modality_and_no_other_sample(name: str) -> None:
    model = make(VARIANTS[name])
    together = model(batch_of([{"text": 7}, FULL, {"picture": 2}]))
    for modality, n in FULL.items():
        alone = model(batch_of([{modality: n}]))
        assert torch.allclose(together.embeddings[modality][1], alone.embeddings[modality][0], atol=1e-5)
        for task in ("mood", "price"):
            a, b = (o.modality_predictions[modality][task] for o in (together, alone))
            assert torch.allclose(a[1], b[0], atol=1e-4)
    # The fused prediction, in contrast, does listen.
    assert not torch.allclose(
        together.predictions["mood"][1], model(batch_of([{"text": 4}])).predictions["mood"][0]
    )


def test_a_sample_is_the_same_in_any_batch() -> None:
    model = make(CONFIG)
    alone, together = model(batch_of([FULL])), model(batch_of([{"speech": 9}, {}, FULL, {"text": 1}]))
    assert torch.allclose(alone.predictions["price"][0], together.predictions["price"][2], atol=1e-4)
    assert torch.allclose(alone.fused[0], together.fused[2], atol=1e-5)


def test_the_only_modality_of_a_sample_answers_by_its_own_head() -> None:
    model = make(CONFIG)
    batch = batch_of([FULL, {"speech": 2}, {"text": 2, "speech": 3}, {}, {"text": 3}])
    used = model(batch)
    model.training = True  # of the whole, not of its dropout
    trained = model(batch)
    for task in ("mood", "price"):
        joint, alone = trained.predictions[task], used.modality_predictions
        expected = torch.stack(
            [joint[0], alone["speech"][task][1], joint[2], joint[3], alone["text"][task][4]]
        )
        torch.testing.assert_close(used.predictions[task], expected)
        assert not torch.allclose(joint[1], expected[1]) and not torch.allclose(joint[4], expected[4])


def test_a_batch_without_any_token() -> None:
    model = make(CONFIG)
    out = model(batch_of([{}, {}]))
    assert out.tokens.shape == (0, 32)
    assert all(bool(p.isfinite().all()) for p in out.predictions.values())
    assert all(bool((e == 0).all()) for e in model.encode(batch_of([{}, {}])).values())


@pytest.mark.parametrize("fusion", ["early", "late", "hierarchical", "attention", "mean"])
def test_every_fusion_trains(fusion: str) -> None:
    model = make(replace(CONFIG, fusion=fusion)).train()  # type: ignore[arg-type]
    out = model(batch_of([FULL, {"text": 2}, {}]))
    (out.predictions["mood"].square().sum() + sum(e[:, 0].sum() for e in out.embeddings.values())).backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert all(bool(g.isfinite().all()) for g in grads.values())
    assert {"embed.modality.text.table.weight", "space.speech.project.weight"} <= grads.keys()


def test_a_loss_on_text_alone_gives_no_gradient_to_picture_weights() -> None:
    model = make(CONFIG).train()
    model(batch_of([FULL, FULL])).embeddings["text"][:, 0].sum().backward()
    for group in ("picture", "speech"):
        for name, p in parameter_groups(model)[group]:
            assert p.grad is None or bool((p.grad == 0).all()), name


def test_every_parameter_is_in_exactly_one_group() -> None:
    # Names that also occur as parts of parameter names must not confuse the groups.
    specs = tuple(ModalitySpec(m, "features", "vectors", 3) for m in ("embed", "weight", "out"))
    model = make(replace(CONFIG, modalities=specs))
    groups = parameter_groups(model)
    assert set(groups) == {"embed", "weight", "out", "shared"}
    names = [name for group in groups.values() for name, _ in group]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    sizes = {m: sorted(tuple(p.shape) for _, p in groups[m]) for m in ("embed", "weight", "out")}
    assert sizes["embed"] == sizes["weight"] == sizes["out"]
    assert {name.split(".")[0] for name, _ in groups["shared"]} == {"fusion", "heads"}


def test_a_number_is_in_the_units_of_its_task() -> None:
    model = make(CONFIG)
    price = model(batch_of([FULL, {"text": 2}])).predictions["price"]
    assert bool(((price - 100).abs() < 40).all()) and not torch.allclose(price, torch.full((2,), 100.0))


def test_the_config_goes_through_json() -> None:
    for config in VARIANTS.values():
        values = json.loads(json.dumps(configs.to_dict(config)))
        assert configs.from_dict(MotetConfig, values, where="config.json") == config
    with pytest.raises(ConfigError, match="widht"):
        configs.from_dict(MotetConfig, {**configs.to_dict(CONFIG), "widht": 3}, where="config.json")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"modalities": ()}, "no modality"),
        ({"modalities": (SPECS[0], SPECS[0])}, "two modalities"),
        ({"modalities": (replace(SPECS[0], name="type"),)}, "'type'"),
        ({"tasks": (TaskSpec("mood", "classes", ("one",)),)}, "two classes"),
        ({"tasks": (TaskSpec("price", "number", std=0.0),)}, "std"),
        ({"tasks": (), "contrastive": False}, "nothing to learn"),
    ],
)
def test_configs_that_make_no_model_are_refused(change: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Motet(replace(CONFIG, **change))


def test_levels_of_pictures_mean_the_same_as_floats() -> None:
    model, batch = make(CONFIG), batch_of([FULL, {"picture": 3}])
    levels = torch.arange(36, dtype=torch.uint8).reshape(6, 6) * 7
    floats = (levels.double() / 127.5 - 1).float()
    a, b = (model(replace(batch, values={**batch.values, "picture": v})) for v in (levels, floats))
    assert torch.allclose(a.fused, b.fused, atol=1e-6) and (a.fused - model(batch).fused).abs().max() > 1e-3


def test_a_batch_of_other_modalities_is_refused() -> None:
    with pytest.raises(MismatchError, match="speech"):
        make(CONFIG)(batch_of([{"text": 2}], specs=SPECS[:2]))


def test_without_contrast_there_is_no_space() -> None:
    model = make(replace(CONFIG, contrastive=False, late_heads=False))
    assert model(batch_of([FULL])).embeddings == {}
    with pytest.raises(ConfigError, match="contrastive"):
        model.encode(batch_of([FULL]))
    assert not any(name.startswith(("pool", "space", "late")) for name, _ in model.named_parameters())


def test_bf16_autocast_keeps_unit_length() -> None:
    model, batch = make(CONFIG), batch_of([FULL, {"text": 1}])
    with torch.autocast("cpu", torch.bfloat16):
        out = model(batch)
    plain = model(batch)
    for m, value in out.embeddings.items():
        assert value.dtype == torch.float32
        assert torch.allclose(value.norm(dim=1), plain.embeddings[m].norm(dim=1), atol=1e-6)
        assert bool((value * plain.embeddings[m]).sum(1)[0] > 0.98)
