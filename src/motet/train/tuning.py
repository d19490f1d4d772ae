"""Pretrained encoders that are trained with the model: their tokens, their weights, and LoRA."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from motet.data.image import ImageProcessor
from motet.data.processor import Processor, ProcessorConfig
from motet.data.text import TextProcessor, parse_tokenizer
from motet.data.video import VideoProcessor
from motet.errors import ConfigError
from motet.model import Motet, MotetConfig
from motet.nn.backbone import Backbone
from motet.nn.backbones import available
from motet.nn.finetune import add_lora, load_start, put_weights
from motet.train.modality import Tuning
from motet.types import Kind, ModalitySpec


def encoder_kind(kind: str) -> Kind:
    return "text" if kind == "text" else "image"


def tuned_processor(name: str, kind: str, settings: ProcessorConfig, tuning: Tuning) -> Processor:
    """Cells to the tokens that the encoder reads: its ids of a text, its patches of a picture.

    Raises:
        ConfigError: no encoder, or one that can only be used frozen.
    """
    wanted = encoder_kind(kind)
    if kind not in ("text", "image", "video"):
        raise ConfigError(
            f"{name}.tune={tuning.tune}: there are encoders for texts and pictures, not for {kind}."
        )
    backbone = tuning.backbone or available(wanted)
    if backbone is None or backbone in ("none", "scratch"):
        raise ConfigError(
            f"{name}.tune={tuning.tune}: say which encoder, such as --set {name}.backbone=minilm."
        )
    start = load_start(backbone, wanted)
    spec = start.spec
    made: TextProcessor | ImageProcessor | VideoProcessor
    match kind:
        case "text":
            tokenizer = parse_tokenizer(start.tokenizer.to_str(), f"backbone {backbone!r}")
            tokenizer.no_padding()
            tokenizer.no_truncation()
            fits = min(settings.text.max_tokens, start.longest)
            made = TextProcessor(name, replace(settings.text, max_tokens=fits), tokenizer)
            made.spec = ModalitySpec(name, "text", "ids", start.vocab, backbone=spec)
        case "image":
            made = ImageProcessor(name, replace(settings.image, size=spec.side, patch=spec.patch))
            made.spec = replace(made.spec, backbone=spec)
        case _:
            made = VideoProcessor(name, replace(settings.video, size=spec.side, patch=spec.patch))
            made.spec = replace(made.spec, backbone=spec)
    return made


def make_model(config: MotetConfig, tunings: Mapping[str, Tuning]) -> Motet:
    """The model as its training begins: pretrained weights in its backbones, LoRA where it is asked for."""
    model = Motet(config)
    for spec in config.modalities:
        if spec.backbone is None:
            continue
        backbone, tuning = model.backbone[spec.name], tunings[spec.name]
        assert isinstance(backbone, Backbone)
        put_weights(backbone, load_start(spec.backbone.name, encoder_kind(spec.kind)))
        backbone.unfreeze_at = tuning.unfreeze_at
        if tuning.tune == "lora":
            add_lora(backbone, tuning.lora_rank, tuning.lora_alpha)
    return model
