"""From a pretrained encoder to a backbone that can be trained: its description, its weights, LoRA."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from motet.errors import ConfigError, missing_extra
from motet.nn.backbone import Backbone
from motet.nn.backbones import PictureEncoder, TextEncoder, load_encoder
from motet.nn.nets import described
from motet.nn.pretrained import installed
from motet.types import BackboneSpec, Kind

ADAPTER = "lora"


@dataclass(frozen=True, eq=False)
class Start:
    """A pretrained encoder that a backbone can start from.

    `tokenizer`, of a text encoder, is a `tokenizers.Tokenizer`; it has `vocab` ids and reads texts of up to
    `longest` of them, special ones included.
    """

    spec: BackboneSpec
    weights: dict[str, torch.Tensor]
    tokenizer: Any = None
    vocab: int = 0
    longest: int = 0


def load_start(name: str, kind: Kind) -> Start:
    """The encoder `name`, as `load_encoder` finds it, to be trained.

    Raises:
        ConfigError, DataError: as `load_encoder`; pictures that are not squares of square patches.
    """
    encoder = load_encoder(name, kind)
    if isinstance(encoder, TextEncoder):
        lead, tail = _around(encoder.tokenizer)
        spec = BackboneSpec(name, encoder.width, described(encoder.model), lead, tail)
        weights = _named("model", encoder.model)
        vocab: int = encoder.model.config.vocab_size
        return Start(spec, weights, encoder.tokenizer, vocab, encoder.longest)
    assert isinstance(encoder, PictureEncoder) and isinstance(encoder.net.model, nn.Module)
    if encoder.rows != encoder.cols or encoder.size % encoder.rows:
        raise ConfigError(
            f"backbone {name!r}: its {encoder.rows} x {encoder.cols} tokens are no whole patches of a square "
            f"of {encoder.size} pixels; it can only be used with tune=frozen."
        )
    config = getattr(encoder.net.model, "config", None)
    spec = BackboneSpec(
        name,
        encoder.width,
        described(encoder.net.model) if config is not None else "",
        side=encoder.size,
        patch=encoder.size // encoder.rows,
        mean=encoder.mean,
        std=encoder.std,
    )
    return Start(spec, _named("model", encoder.net.model))


def put_weights(backbone: Backbone, start: Start) -> None:
    """The pretrained weights into the architecture of the same description.

    Raises:
        ConfigError: the description does not give the architecture again.
    """
    wanted = backbone.net.state_dict()
    lacking = sorted(wanted.keys() - start.weights.keys())
    if lacking:
        raise ConfigError(
            f"backbone {start.spec.name!r}: {lacking[0]} has no pretrained weight where its architecture is "
            "made anew; it can only be used with tune=frozen."
        )
    backbone.net.load_state_dict({name: start.weights[name] for name in wanted})


def add_lora(backbone: Backbone, rank: int, alpha: int) -> None:
    """Freeze the encoder and give each of its linear layers a trainable update of rank `rank`.

    The update starts at zero and is scaled by alpha / rank. Source: Hu et al. 2021, arXiv:2106.09685.

    Raises:
        ConfigError: `peft` is missing, or the encoder has no linear layers that it knows.
    """
    if not installed("peft"):
        raise missing_extra("hf", "peft", "tune=lora")
    from peft import LoraConfig, inject_adapter_in_model

    names = [name for name, part in backbone.net.named_modules() if isinstance(part, nn.Linear)]
    if not names:
        raise ConfigError("tune=lora: this encoder has no linear layers; choose tune=full or tune=frozen.")
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=names, bias="none")
    inject_adapter_in_model(config, backbone.net, ADAPTER)


def merge_lora(model: nn.Module) -> None:
    """Add every update to its layer for good: the same function, without `peft` from then on."""
    if not any(isinstance(part, Backbone) for part in model.modules()) or not installed("peft"):
        return
    from peft.tuners.lora import LoraLayer

    for owner in list(model.modules()):
        for name, part in list(owner.named_children()):
            if isinstance(part, LoraLayer):
                part.merge()
                setattr(owner, name, part.get_base_layer())


def _named(prefix: str, model: nn.Module) -> dict[str, torch.Tensor]:
    return {f"{prefix}.{name}": value.detach().clone() for name, value in model.state_dict().items()}


def _around(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The special ids before and after a text."""
    encoding = tokenizer.encode("a")
    special = encoding.special_tokens_mask
    told = [i for i, mark in enumerate(special) if not mark]
    if not told:
        return tuple(encoding.ids), ()
    return tuple(encoding.ids[: told[0]]), tuple(encoding.ids[told[-1] + 1 :])
