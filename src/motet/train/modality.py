"""What can be said of one modality: `--set text.backbone=...`, `text.tune=...`, `text.lr=...`, and how its
cells become tokens; by its name, or by its kind for all of that kind."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from motet import config as configs
from motet.data.processor import ProcessorConfig
from motet.errors import ConfigError
from motet.train.optim import GroupConfig
from motet.train.settings import FitConfig

BACKBONE_LR = {"full": 3e-5, "lora": 3e-4}
SHARED = "shared"


@dataclass(frozen=True)
class Tuning:
    """How a modality's pretrained encoder takes part in training.

    `tune`: "frozen" computes its vectors once; "full" trains it, "lora" updates of rank `lora_rank`
    scaled by `lora_alpha` / `lora_rank`. Until epoch `unfreeze_at` it stays as it is. `backbone_lr` is
    its highest learning rate, 3e-5 ("full") or 3e-4 ("lora") if not said; `backbone_decay` its weight decay.
    """

    backbone: str | None = None
    tune: Literal["frozen", "full", "lora"] = "frozen"
    unfreeze_at: int = 0
    lora_rank: int = 8
    lora_alpha: int = 16
    backbone_lr: float | None = None
    backbone_decay: float = 0.01

    def __post_init__(self) -> None:
        if self.tune == "frozen" and self.unfreeze_at:
            raise ConfigError(f"unfreeze_at={self.unfreeze_at}: say tune=full or tune=lora as well.")
        if self.unfreeze_at < 0 or self.lora_rank < 1:
            raise ConfigError("unfreeze_at must be at least 0 and lora_rank at least 1.")

    @property
    def trained(self) -> bool:
        return self.tune != "frozen"

    def group(self) -> GroupConfig:
        lr = BACKBONE_LR[self.tune] if self.backbone_lr is None else self.backbone_lr
        return GroupConfig(lr=lr, weight_decay=self.backbone_decay, start=self.unfreeze_at)


@dataclass(frozen=True)
class ModalitySettings:
    """`group` is its optimizer's."""

    tuning: Tuning = field(default_factory=Tuning)
    group: GroupConfig = field(default_factory=GroupConfig)
    processor: ProcessorConfig = field(default_factory=ProcessorConfig)


def modality_settings(config: FitConfig, name: str, kind: str) -> ModalitySettings:
    """What is said of a modality; its name goes before its kind.

    Raises:
        ConfigError: an unknown key, with those that this kind has.
    """
    said = {**config.modalities.get(kind, {}), **config.modalities.get(name, {})}
    hints = {f.name: f.type for f in dataclasses.fields(ProcessorConfig)}
    if kind not in hints:
        raise ConfigError(f"{name}: no settings for the kind {kind!r}.")
    default = getattr(ProcessorConfig(), kind)
    tuning, group = _taken(said, Tuning), _taken(said, GroupConfig)
    also = ", ".join([*_names(Tuning), *_names(GroupConfig)])
    made = configs.from_dict(type(default), said, where=f"--set {name} (besides {also})")
    return ModalitySettings(
        configs.from_dict(Tuning, tuning, where=f"--set {name}"),
        configs.from_dict(GroupConfig, group, where=f"--set {name}"),
        dataclasses.replace(ProcessorConfig(), **{kind: made}),
    )


def optimizer_groups(config: FitConfig, modalities: Mapping[str, str]) -> dict[str, GroupConfig]:
    """The settings of every optimizer that has some of its own. modalities: name -> kind.

    `train.groups` goes before what is said of a modality.
    """
    groups: dict[str, GroupConfig] = {}
    for name, kind in modalities.items():
        said = modality_settings(config, name, kind)
        groups[name] = said.group
        if said.tuning.trained:
            groups[f"{name}.backbone"] = said.tuning.group()
    said_of_shared = config.modalities.get(SHARED, {})
    groups[SHARED] = configs.from_dict(GroupConfig, said_of_shared, where=f"--set {SHARED}")
    return {**{n: g for n, g in groups.items() if g != GroupConfig()}, **config.train.groups}


def _names(cls: Any) -> list[str]:
    return [f.name for f in dataclasses.fields(cls)]


def _taken(said: dict[str, Any], cls: Any) -> dict[str, Any]:
    """The keys of `cls`, removed from `said`."""
    return {name: said.pop(name) for name in _names(cls) if name in said}
