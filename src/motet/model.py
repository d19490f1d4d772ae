"""The model: embed -> blocks -> fusion -> heads.

What one modality says alone (embeddings, late heads) is read from states that have heard no other
modality: those after the leading "own" layers, or, without such layers, those of a second pass in
which every layer attends within its own modality.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from motet.errors import ConfigError, MismatchError
from motet.nn.attention import AttentionPlan
from motet.nn.backbone import make_backbone
from motet.nn.embed import EmbedConfig, TokenEmbedding
from motet.nn.fusion import FusionName, make_fusion
from motet.nn.heads import EmbeddingHead, OrdinalHead, SequencePool, TaskHead
from motet.nn.mot import MixtureOfTransformers, MoTConfig
from motet.nn.segments import segment_mean
from motet.types import Layout, ModalitySpec, Output, TokenBatch, floats_of


@dataclass(frozen=True)
class TaskSpec:
    """One thing to predict for a sample. `mean` and `std` are those of a number over the training rows.

    "classes" is one of `classes`, "multilabel" any number of them. `ordinal`: the classes stand in
    their order, lowest first, and what is predicted respects it (see `OrdinalHead`). `temperature`
    divides the logits of "classes" so that probabilities are calibrated (see `motet.tasks.calibrate`).
    """

    name: str
    kind: Literal["classes", "number", "multilabel"]
    classes: tuple[str, ...] = ()
    mean: float = 0.0
    std: float = 1.0
    ordinal: bool = False
    temperature: float = 1.0


@dataclass(frozen=True)
class MotetConfig:
    """Everything that makes the architecture; `motet.config` turns it into JSON and back.

    `embedding` is E, the size of the shared space, and `pool` how a modality's tokens become one
    vector. `direct` gives pretrained features and columns of features a linear way into that space (see
    `EmbeddingHead`). `late_heads` adds a prediction of every task from every modality alone; in use (not
    in training) it is the answer where a sample has that modality only.
    `guess_hidden` adds, for modalities with pretrained features, a guess of these from the fused
    state: an objective where training dropped the modality.
    """

    modalities: tuple[ModalitySpec, ...]
    mot: MoTConfig = field(default_factory=MoTConfig)
    embed: EmbedConfig = field(default_factory=EmbedConfig)
    fusion: FusionName = "attention"
    tasks: tuple[TaskSpec, ...] = ()
    contrastive: bool = True
    embedding: int = 128
    pool: Literal["attention", "mean"] = "attention"
    direct: bool = True
    late_heads: bool = False
    head_dropout: float = 0.1
    guess_hidden: bool = False


class Motet(nn.Module):
    """Mixture-of-Transformers with heads. Batches are packed; a missing modality simply has no tokens.

    Raises:
        ConfigError: no modality, a name twice, a name that torch modules keep for themselves, a task
            without classes, or nothing to predict and nothing to align.
    """

    def __init__(self, config: MotetConfig) -> None:
        super().__init__()
        _check(config)
        self.config = config
        self.modalities = tuple(spec.name for spec in config.modalities)
        self.backbone = nn.ModuleDict(
            {spec.name: make_backbone(spec) for spec in config.modalities if spec.backbone is not None}
        )
        block, dropout = config.mot.block, config.head_dropout
        self.embed = TokenEmbedding(
            config.modalities, block.width, config.embed, rotary=config.mot.rotary is not None
        )
        self.mot = MixtureOfTransformers(config.mot, self.modalities)
        self.fusion = make_fusion(config.fusion, block.width, self.modalities, heads=block.heads)
        self.heads = nn.ModuleList(_task_head(task, block.width, dropout) for task in config.tasks)
        alone = self.modalities if config.contrastive or config.late_heads else ()
        self.pool = nn.ModuleDict(
            {m: SequencePool(block.width, heads=block.heads, kind=config.pool) for m in alone}
        )
        self.space = nn.ModuleDict()
        if config.contrastive:
            self.space.update(
                {
                    spec.name: EmbeddingHead(
                        block.width, config.embedding, direct=_direct(spec, config), dropout=dropout
                    )
                    for spec in config.modalities
                }
            )
        self.late = nn.ModuleDict()
        if config.late_heads:
            for m in self.modalities:
                self.late[m] = nn.ModuleList(_task_head(task, block.width, dropout) for task in config.tasks)
        self.guess = nn.ModuleDict()
        if config.guess_hidden:
            hidden = [spec for spec in config.modalities if spec.pretrained and spec.input == "vectors"]
            self.guess.update({spec.name: nn.Linear(block.width, spec.size) for spec in hidden})

    def forward(self, batch: TokenBatch, *, plans: Sequence[AttentionPlan] | None = None) -> Output:
        """One packed batch -> Output. `plans`: one per layer, from `self.mot.plans`; made here if absent."""
        layout = batch.layout
        present = layout.present()
        values = self._values(batch)
        x = self.embed(values, layout)
        if plans is None and layout.tokens:
            plans = self.mot.plans(layout)
        pooled: dict[str, Tensor] = {}
        start = 0
        if len(self.pool):
            own = self._own(x, layout, plans)
            pooled = self._pooled(own, layout)
            if self.mot.leading_own:
                x, start = own, self.mot.leading_own
        tokens = self.mot(x, layout, plans, start=start) if layout.tokens else x
        fused = self.fusion(tokens, layout)
        alone = {m: self._predictions(self.late[m], pooled[m]) for m in self.late}
        return Output(
            tokens=tokens,
            fused=fused,
            present=present,
            embeddings=self._embeddings(pooled, values, layout, present),
            predictions=self._answers(self._predictions(self.heads, fused), alone, present),
            modality_predictions=alone,
            guesses={m: head(fused) for m, head in self.guess.items()},
        )

    def encode(self, batch: TokenBatch) -> dict[str, Tensor]:
        """The embeddings alone, (B, E) per modality, equal to those of `forward` but cheaper.

        Raises:
            ConfigError: the model was built without `contrastive`.
        """
        if not len(self.space):
            raise ConfigError("this model has no shared space: it was built with contrastive=false.")
        layout = batch.layout
        values = self._values(batch)
        x = self.embed(values, layout)
        plans = self.mot.plans(layout, own_only=True) if layout.tokens else None
        pooled = self._pooled(self._own(x, layout, plans), layout)
        return self._embeddings(pooled, values, layout, layout.present())

    def encode_tokens(self, batch: TokenBatch) -> dict[str, Tensor]:
        """Every token by itself in the shared space: (counts[m], E) per modality, of unit length.

        What late interaction compares (see `motet.predictor.late`). For the error see `encode`.
        """
        if not len(self.space):
            raise ConfigError("this model has no shared space: it was built with contrastive=false.")
        layout, values, out = batch.layout, self._values(batch), {}
        plans = self.mot.plans(layout, own_only=True) if layout.tokens else None
        own = self._own(self.embed(values, layout), layout, plans)
        for m, head in self.space.items():
            pool = self.pool[m]
            assert isinstance(head, EmbeddingHead) and isinstance(pool, SequencePool)
            states = pool.norm(own[layout.slice_of(m)])
            out[m] = head.each(states, values[m] if head.direct is not None else None)
        return out

    def _values(self, batch: TokenBatch) -> Mapping[str, Tensor]:
        """What the tokens hold; where a backbone stands in the model, what it makes of that."""
        if batch.layout.modalities != self.modalities:
            raise MismatchError(
                f"the batch has the modalities {batch.layout.modalities}, the model {self.modalities}. "
                "Make batches with the specs in the model's config, in their order."
            )
        values = {m: floats_of(value) for m, value in batch.values.items()}
        return values | {m: net(values[m], batch.layout, m) for m, net in self.backbone.items()}

    def _own(self, x: Tensor, layout: Layout, plans: Sequence[AttentionPlan] | None) -> Tensor:
        """States (T, D) in which every token has heard its own modality only."""
        if not layout.tokens:
            return x
        if self.mot.leading_own:
            return self.mot(x, layout, plans, stop=self.mot.leading_own)
        return self.mot(x, layout, self.mot.plans(layout, own_only=True))

    def _pooled(self, own: Tensor, layout: Layout) -> dict[str, Tensor]:
        """(T, D) -> (B, D) per modality."""
        out = {}
        for m, pool in self.pool.items():
            here = layout.slice_of(m)
            out[m] = pool(own[here], layout.sample[here], layout.samples)
        return out

    def _embeddings(
        self, pooled: dict[str, Tensor], values: Mapping[str, Tensor], layout: Layout, present: Tensor
    ) -> dict[str, Tensor]:
        out = {}
        for column, (m, head) in enumerate(self.space.items()):
            here, features = layout.slice_of(m), None
            if head.direct is not None and m in values:
                features = segment_mean(values[m], layout.sample[here], layout.samples)
            out[m] = head(pooled[m], features, present[:, column])
        return out

    def _answers(
        self, together: dict[str, Tensor], alone: Mapping[str, Mapping[str, Tensor]], present: Tensor
    ) -> dict[str, Tensor]:
        """Of all heads; but what a sample's only modality says is asked of its own head, which learned
        from every row that has it. In training both heads learn from such a row."""
        if self.training or not alone:
            return together
        for m, predictions in alone.items():
            here = present[:, self.modalities.index(m)] & (present.sum(1) == 1)
            together = {
                task: y.where(~here.view(-1, *[1] * (y.dim() - 1)), predictions[task])
                for task, y in together.items()
            }
        return together

    def _predictions(self, heads: nn.Module, vectors: Tensor) -> dict[str, Tensor]:
        found = {}
        for task, head in zip(self.config.tasks, heads.children(), strict=True):
            y = head(vectors)
            found[task.name] = y / task.temperature if task.kind == "classes" else y
        return found


def parameter_groups(model: nn.Module) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """Every parameter once, under the modality that it belongs to or "shared".

    A parameter is a modality's if it stands under that key of a ModuleDict or ParameterDict. Those of a
    pretrained encoder in the model are a group of their own, "<modality>.backbone".
    """
    modalities: tuple[str, ...] = model.modalities  # type: ignore[assignment]
    owner: dict[str, str] = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleDict | nn.ParameterDict):
            for name in (n for n, _ in module.named_parameters(remove_duplicate=False)):
                key = name.split(".")[0]
                if key in modalities:  # the outermost decides: what is inside may bear any name
                    owner.setdefault(f"{path}.{name}", f"{key}.backbone" if path == "backbone" else key)
    groups: dict[str, list[tuple[str, nn.Parameter]]] = {name: [] for name in (*modalities, "shared")}
    for name, parameter in model.named_parameters():
        groups.setdefault(owner.get(name, "shared"), []).append((name, parameter))
    return groups


def _task_head(task: TaskSpec, width: int, dropout: float) -> nn.Module:
    if task.ordinal:
        return OrdinalHead(width, len(task.classes), dropout=dropout)
    outputs = 1 if task.kind == "number" else len(task.classes)
    return TaskHead(width, outputs, dropout=dropout, mean=task.mean, std=task.std)


def _direct(spec: ModalitySpec, config: MotetConfig) -> int | None:
    features = spec.size if spec.kind == "features" else spec.features
    return features if config.direct else None


def _check(config: MotetConfig) -> None:
    names = [spec.name for spec in config.modalities]
    if not names:
        raise ConfigError(
            "model: no modality. Give at least one column of text, pictures, sounds or features."
        )
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"model: two modalities are called {name!r}; rename a column.")
        if name == "shared" or hasattr(nn.ModuleDict(), name) or hasattr(nn.ParameterDict(), name):
            raise ConfigError(
                f"model: a modality cannot be called {name!r}, torch keeps that name; rename it."
            )
    for task in config.tasks:
        if task.kind != "number" and len(task.classes) < 2:
            raise ConfigError(
                f"model: task {task.name!r} needs at least two classes, it has {len(task.classes)}."
            )
        if task.ordinal and task.kind != "classes":
            raise ConfigError(f"model: task {task.name!r} can be ordinal only with classes.")
        if not task.temperature > 0:
            raise ConfigError(f"model: task {task.name!r} needs a temperature above 0.")
        if task.kind == "number" and not task.std > 0:
            raise ConfigError(f"model: task {task.name!r} needs std above 0, it has {task.std}.")
    if not config.tasks and not config.contrastive:
        raise ConfigError("model: nothing to learn: give a label, or contrastive=true.")
