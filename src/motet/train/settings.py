"""What `fit` can be told: `--set data...`, `columns...`, `model...`, `train...`, `loader...`, `loss...`,
and one group per modality (by its name, or by its kind for all of that kind), such as `text.backbone`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from motet import config as configs
from motet.data.columns import KINDS, Columns
from motet.data.loader import LoaderConfig
from motet.errors import ConfigError
from motet.losses import LossConfig
from motet.model import MotetConfig, TaskSpec
from motet.nn.block import BlockConfig, Component
from motet.nn.embed import EmbedConfig
from motet.nn.fusion import FusionName
from motet.nn.mot import Attend, MoTConfig
from motet.nn.positions import RotaryConfig
from motet.train.loop import TrainConfig
from motet.types import ModalitySpec

C = TypeVar("C")
Preset = Literal["scratch", "fast", "best"]


@dataclass(frozen=True)
class DataSettings:
    """`root`: where the paths in media cells begin, else the table's folder. `fractions` of train, val and
    test rows where the table has no split. `quarantine_limit`: the share of broken rows that is too many.
    `cache`: whether prepared features are kept on disk for the next run. `isolate`: whether containers of
    sound and video are decoded in a process of their own, which may crash without harm; "never" decodes
    them here. `remote`: whether the table may be an address (s3://, gs://, hf:NAME). `near_duplicates`:
    whether pictures and sounds that are nearly the same stay in one part of the split, too. `before`,
    `after`: how many earlier and later rows of its conversation the model sees with a row, where a
    column is the `context`.
    """

    root: str | None = None
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    quarantine_limit: float = 0.01
    cache: bool = True
    isolate: Literal["auto", "never"] = "auto"
    remote: bool = False
    near_duplicates: bool = False
    before: int = 2
    after: int = 0

    def in_context(self, columns: Columns) -> Columns:
        """The columns with how much of the conversation around a row is seen."""
        return replace(columns, before=self.before, after=self.after) if columns.context else columns


@dataclass(frozen=True)
class ModelSettings:
    """The architecture, in the words of `MotetConfig`, `MoTConfig` and `BlockConfig`.

    `attend` is cut or repeated to `depth`. `ordinal`: the label's classes have an order; true where they
    are numbers, else their names, lowest first. `guess_hidden`: guess the features of the modalities
    that dropout hides. `late_heads`: each modality also learns to predict the label alone, so that a weak
    one is not left behind; by default where there are several that are not aligned for search, which
    teaches each alone, too. The defaults are for tables of one to ten thousand rows.
    """

    width: int = 128
    heads: int = 4
    depth: int = 2
    attend: tuple[Attend, ...] = ("own", "global")
    untie: tuple[Component, ...] = ("attention", "mlp", "norm")
    rotary: bool = True
    dropout: float = 0.1
    drop_path: float = 0.0
    qk_norm: bool = True
    fusion: FusionName = "late"
    embedding: int = 128
    pool: Literal["attention", "mean"] = "attention"
    direct: bool = True
    late_heads: bool | None = None
    head_dropout: float = 0.5
    ordinal: bool | tuple[str, ...] = False
    guess_hidden: bool = False

    def build(
        self, modalities: tuple[ModalitySpec, ...], tasks: tuple[TaskSpec, ...], *, contrastive: bool
    ) -> MotetConfig:
        if self.ordinal is not False:
            tasks = (replace(tasks[0], ordinal=True), *tasks[1:])
        alone = bool(tasks) and len(modalities) > 1 and not contrastive
        block = BlockConfig(
            width=self.width,
            heads=self.heads,
            untie=self.untie,
            dropout=self.dropout,
            drop_path=self.drop_path,
            qk_norm=self.qk_norm,
        )
        mot = MoTConfig(
            block=block,
            depth=self.depth,
            attend=self.attend[: self.depth],
            rotary=RotaryConfig() if self.rotary else None,
        )
        return MotetConfig(
            modalities=modalities,
            mot=mot,
            embed=EmbedConfig(dropout=self.dropout),
            fusion=self.fusion,
            tasks=tasks,
            contrastive=contrastive,
            embedding=self.embedding,
            pool=self.pool,
            direct=self.direct,
            late_heads=alone if self.late_heads is None else self.late_heads,
            head_dropout=self.head_dropout,
            guess_hidden=self.guess_hidden,
        )

    def in_order(self, columns: Columns) -> Columns:
        """The columns with the label's classes in the order that `ordinal` says.

        Raises:
            ConfigError: the label is not of classes, or the order is not that of exactly these.
        """
        if self.ordinal is False:
            return columns
        classes = columns.classes if columns.task == "classes" else ()
        order = self.ordinal if isinstance(self.ordinal, tuple) else _by_number(classes)
        if not order or sorted(order) != sorted(classes):
            raise ConfigError(
                f"model.ordinal={self.ordinal}: say the classes of the label in their order, lowest first, "
                f"such as --set model.ordinal=[low, high]. Here: {', '.join(classes) or 'none'}. "
                "For a label of numbers, --set columns.NAME=classes comes first."
            )
        return replace(columns, classes=order)


def _by_number(classes: tuple[str, ...]) -> tuple[str, ...]:
    """The classes from the lowest number to the highest; none where they are no numbers."""
    try:
        return tuple(sorted(classes, key=float))
    except ValueError:
        return ()


@dataclass(frozen=True)
class LoaderSettings:
    """How batches are made ahead of time, see `LoaderConfig`; `tokens` is the only one that changes them."""

    tokens: int = 0
    workers: int = 0
    kind: Literal["thread", "process"] = "thread"
    pin: bool = True

    def build(self, batch_size: int) -> LoaderConfig:
        return LoaderConfig(batch_size, self.tokens, self.workers, self.kind, self.pin)


@dataclass(frozen=True)
class TrainSettings(TrainConfig):
    """`TrainConfig`, with defaults for tables of one to ten thousand rows, and what concerns the batches.

    `batch_size` 0 is a tenth of the training rows, from 32 to 128: smaller tables need the steps.
    `modality_dropout`: how often a training sample loses some of its modalities, so that any subset
    works later; by default .3 where something is told or guessed from several together, and 0 for
    alignment alone, which reads each modality by itself and would only lose pairs. `spec_augment` masks
    sounds, `augment` changes pictures lightly (those that no frozen encoder reads). `balance` gives rare
    classes the weight count**-balance: 0 for none, 1 for all classes alike.
    """

    epochs: int = 16
    lr: float = 2e-3
    ema: float = 0.97
    batch_size: int = 0
    modality_dropout: float | None = None
    spec_augment: bool = True
    augment: bool = True
    balance: float = 0.5

    def batch(self, rows: int) -> int:
        """How many samples of `rows` a step has."""
        return self.batch_size or min(128, max(32, rows // 10))

    def dropout(self, *, together: bool) -> float:
        """How often a sample loses modalities; `together`: whether anything reads several at once."""
        return self.modality_dropout if self.modality_dropout is not None else 0.3 if together else 0.0


@dataclass(frozen=True)
class FitConfig:
    """All settings of a run. `columns`: column -> its part. `modalities`: name or kind -> its settings."""

    data: DataSettings = field(default_factory=DataSettings)
    columns: dict[str, str] = field(default_factory=dict)
    model: ModelSettings = field(default_factory=ModelSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    loader: LoaderSettings = field(default_factory=LoaderSettings)
    loss: LossConfig = field(default_factory=LossConfig)
    modalities: dict[str, dict[str, Any]] = field(default_factory=dict)


_GROUPS = tuple(f.name for f in dataclasses.fields(FitConfig) if f.name != "modalities")
_SMOOTH = ("loss.label_smoothing=0.1",)  # few labels are learned by heart within a few epochs
_PRESETS: Mapping[Preset, Sequence[str]] = {
    "scratch": _SMOOTH,
    "fast": _SMOOTH,
    "best": (*_SMOOTH, "train.epochs=60", "image.backbone=efficientnet-lite0@160"),
}


def read_settings(settings: Sequence[str], preset: str) -> FitConfig:
    """The preset's settings, then each "key=value" of `settings` over them.

    Raises:
        ConfigError: an unknown preset or key, a value of the wrong type.
    """
    match preset:
        case "scratch" | "fast" | "best":
            first = _PRESETS[preset]
        case _:
            raise ConfigError(f"--preset {preset}: choose one of {', '.join(_PRESETS)}.")
    values = configs.override({}, [*first, *settings])
    groups: dict[str, Any] = {key: values.pop(key) for key in _GROUPS if key in values}
    for key, inside in values.items():
        if not isinstance(inside, dict):
            raise ConfigError(
                f"--set {key}={inside}: unknown key. Groups of keys: {', '.join(_GROUPS)}, or a modality's "
                "name or kind, such as text.backbone=minilm."
            )
    for key, inside in groups.items():
        if not isinstance(inside, dict):
            raise ConfigError(f"--set {key}={inside}: {key} is a group of keys, such as train.epochs=5.")

    def group(cls: type[C], key: str) -> C:  # each by itself, so that an error lists the keys of its group
        return configs.from_dict(cls, groups.get(key, {}), where=f"--set {key}")

    return FitConfig(
        data=group(DataSettings, "data"),
        columns={name: str(part) for name, part in groups.get("columns", {}).items()},
        model=group(ModelSettings, "model"),
        train=group(TrainSettings, "train"),
        loader=group(LoaderSettings, "loader"),
        loss=group(LossConfig, "loss"),
        modalities=values,
    )


def check_modalities(config: FitConfig, modalities: Mapping[str, str], table: str) -> None:
    """Every key of `config.modalities` is a modality (name -> kind) of this table, or a kind.

    Raises:
        ConfigError: naming the keys that there are.
    """
    for key in config.modalities:
        if key not in modalities and key not in KINDS and key != "shared":
            raise ConfigError(
                f"--set {key}...: neither a group of keys ({', '.join(_GROUPS)}) nor a modality of {table} "
                f"({', '.join(modalities)}) nor a kind ({', '.join(KINDS)})."
            )
