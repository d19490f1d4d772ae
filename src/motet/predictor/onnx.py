"""The encoders of a model as ONNX files (extra `onnx`): one a modality, from tokens to the shared space.

`NAME.onnx` takes a padded batch of what the model's processor makes of a thing (its `Piece`):
`values` (B, N) int64 ids or (B, N, size) float32, `time` in seconds, `row` and `col` in patches, each
(B, N) float32, and `mask` (B, N) bool, true for tokens and false for padding; every sample has a token.
It gives `vector` (B, E) of unit length. Where a frozen encoder makes the values, `NAME.backbone.onnx`
is that encoder: `ids` and `mask` (B, N) int64 to `states` (B, N, width), special tokens included, or
`pixels` (B, 3, side, side) to `grid` (B, rows, cols, width). `onnx.json` says all this of each file.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from motet.errors import ConfigError, StorageError, missing_extra
from motet.model import Motet
from motet.nn.backbones import PictureEncoder, TextEncoder
from motet.nn.heads import EmbeddingHead, SequencePool
from motet.nn.pretrained import installed
from motet.types import Layout, ModalitySpec

if TYPE_CHECKING:
    from motet.predictor.predictor import Predictor

OPSET = 20
DESCRIPTION = "onnx.json"


def export_onnx(predictor: Predictor, folder: str | Path) -> list[Path]:
    """Write the encoders of all modalities into `folder`; the paths of the files.

    Raises:
        ConfigError: the extra is not installed, the model has no shared space, or an encoder is trained
            within the model.
        StorageError: it cannot be written.
    """
    if not installed("onnx", "onnxscript"):
        raise missing_extra("onnx", "onnxscript", "the export to ONNX")
    folder, made, said = Path(folder), [], {}
    predictor.needs_space()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for spec in predictor.model.config.modalities:
            module = OneModality(predictor.model, spec)
            path = folder / f"{spec.name}.onnx"
            write_onnx(module, module.example(), ("vector",), path)
            said[path.name] = {
                "modality": spec.name,
                "kind": spec.kind,
                "values": {"type": spec.input, "size": spec.size, "from": spec.pretrained},
                "vector": predictor.width,
            }
            made.append(path)
            encoder = getattr(predictor.processors[spec.name], "encoder", None)
            if encoder is not None:
                path = folder / f"{spec.name}.backbone.onnx"
                said[path.name] = _backbone(encoder, path)
                made.append(path)
        about = {"model": predictor.fingerprint, "opset": OPSET, "files": said}
        (folder / DESCRIPTION).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written: {error.strerror or error}.") from None
    return [*made, folder / DESCRIPTION]


class OneModality(nn.Module):
    """The way of one modality to the shared space over a padded batch: a model of its own, same weights."""

    def __init__(self, model: Motet, spec: ModalitySpec) -> None:
        super().__init__()
        if getattr(spec, "backbone", None) is not None:
            raise ConfigError(
                f"{spec.name}: its encoder is trained within the model, which cannot be exported yet. "
                "Export a model with a frozen one."
            )
        config = replace(
            model.config, modalities=(spec,), tasks=(), fusion="mean", late_heads=False, guess_hidden=False
        )
        self.spec, self.model = spec, Motet(config).eval()
        weights = model.state_dict()
        self.model.load_state_dict({name: weights[name].cpu() for name in self.model.state_dict()})

    def example(self, samples: int = 2, tokens: int = 5) -> dict[str, Tensor]:
        """Inputs of the right types; the sizes of both axes are free."""
        of_ids = self.spec.input == "ids"
        shape = (samples, tokens)
        place = torch.arange(tokens, dtype=torch.float32).expand(shape).clone()
        values = torch.zeros(shape, dtype=torch.int64) if of_ids else torch.randn(*shape, self.spec.size)
        mask = torch.ones(shape, dtype=torch.bool)
        mask[0, -1] = False
        return {"values": values, "time": place, "row": place.clone(), "col": place.clone(), "mask": mask}

    def forward(self, values: Tensor, time: Tensor, row: Tensor, col: Tensor, mask: Tensor) -> Tensor:
        samples, tokens = mask.shape
        model, name = self.model, self.spec.name
        number = torch.arange(samples, device=mask.device)[:, None]
        # Padding belongs to a sample of its own, the last, which is left out in the end.
        sample = torch.where(mask, number, samples).flatten()
        zeros = torch.zeros_like(sample)
        layout = Layout(
            modalities=(name,),
            counts=(samples * tokens,),
            samples=samples + 1,
            offsets=zeros[:2],
            sample=sample,
            modality=zeros,
            position=zeros,
            time=time.flatten(),
            row=row.flatten(),
            col=col.flatten(),
            span=zeros,
        )
        flat = values.flatten(0, 1)
        x = model.embed({name: flat}, layout)
        seen = mask[:, None, None, :]
        if model.config.mot.causal:
            seen = seen & (time[:, None, None, :] <= time[:, None, :, None])
        plans: Any = [_PaddedPlan(seen)] * model.config.mot.depth
        stop = model.mot.leading_own or None
        own = model.mot(x, layout, plans[:stop], stop=stop)
        pool, head = model.pool[name], model.space[name]
        assert isinstance(pool, SequencePool) and isinstance(head, EmbeddingHead)
        if pool.score is None:
            pooled = _mean(pool.norm(own).unflatten(0, (samples, tokens)), mask)
        else:
            pooled = pool(own, sample, layout.samples)[:samples]
        features = _mean(values, mask) if head.direct is not None else None
        return head(pooled, features, mask.any(1))


def _mean(x: Tensor, mask: Tensor) -> Tensor:
    """(B, N, D) -> (B, D), over the tokens alone; the exporter cannot count by `segment_mean`."""
    return (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


class _PaddedPlan:
    """Attention within each row of a padded batch. seen: (B, 1, 1 or N, N) bool."""

    def __init__(self, seen: Tensor) -> None:
        self.seen = seen

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # (B * N, H, K) -> (B * N, H, K)
        rows = self.seen.shape[0]
        repeat = q.shape[1] // k.shape[1]
        k, v = (t[:, :, None].expand(-1, -1, repeat, -1).flatten(1, 2) for t in (k, v))
        q, k, v = (t.unflatten(0, (rows, -1)).transpose(1, 2) for t in (q, k, v))
        heard = scaled_dot_product_attention(q, k, v, attn_mask=self.seen)
        return heard.transpose(1, 2).flatten(0, 1)


class _TextBackbone(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.model(input_ids=ids, attention_mask=mask).last_hidden_state


class _PictureBackbone(nn.Module):
    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixels: Tensor) -> Tensor:
        return self.net(pixels)


def _backbone(encoder: Any, path: Path) -> dict[str, Any]:
    """Export a frozen encoder; what onnx.json says of it."""
    match encoder:
        case TextEncoder():
            ids = torch.ones(2, 7, dtype=torch.int64)
            write_onnx(_TextBackbone(encoder.model), {"ids": ids, "mask": ids.clone()}, ("states",), path)
            return {"backbone": encoder.name, "states": encoder.width}
        case PictureEncoder():
            pixels = torch.zeros(2, 3, encoder.size, encoder.size)
            write_onnx(_PictureBackbone(encoder.net), {"pixels": pixels}, ("grid",), path, sides=False)
            shown = {"side": encoder.size, "mean": list(encoder.mean), "std": list(encoder.std)}
            return {"backbone": encoder.name, "pixels": shown, "grid": encoder.width}
        case _:
            raise ConfigError(f"{path.stem}: an encoder of type {type(encoder).__name__} cannot be exported.")


def write_onnx(
    module: nn.Module, inputs: Mapping[str, Tensor], outputs: tuple[str, ...], path: Path, sides: bool = True
) -> None:
    """One ONNX file, weights included. Samples, and with `sides` tokens, may be any number."""
    axes: dict[int, Any] = {0: torch.export.Dim("samples", min=1)}
    if sides:
        axes[1] = torch.export.Dim("tokens", min=1)
    with _quiet():
        torch.onnx.export(
            module.eval(),
            kwargs=dict(inputs),
            f=str(path),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes={name: dict(axes) for name in inputs},
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's remarks on axes that share a name, and on packages that are not here, are no news."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
