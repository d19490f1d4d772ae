"""A model as `mteb` (the benchmark of embeddings, extra `mteb`) wants an encoder: its `EncoderProtocol`.

    encoder = MtebEncoder("runs/photos")
    mteb.evaluate(encoder, mteb.get_tasks(tasks=["Flickr30kT2IRetrieval"]))

Texts, pictures and sounds go to the model's modality of that kind, a row with several to their sum.
Sources: Muennighoff et al. 2022, arXiv:2210.07316; the protocol is that of mteb 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from motet.errors import ConfigError, missing_extra
from motet.nn.pretrained import installed
from motet.predictor.predictor import Predictor

if TYPE_CHECKING:
    from mteb.models.model_meta import ModelMeta

KINDS = ("text", "image", "audio")


class MtebEncoder:
    """A model folder, or a model by its name on the hub, behind mteb's protocol.

    Raises:
        ConfigError: the extra is not installed, no such model, or one without a shared space.
    """

    def __init__(
        self, model_name: str | Path, revision: str | None = None, *, device: str | None = None, **kwargs: Any
    ) -> None:
        if not installed("mteb"):
            raise missing_extra("mteb", "mteb", "evaluation with mteb")
        if kwargs:
            raise ConfigError(f"MtebEncoder: {', '.join(kwargs)}: unknown. It takes a model and a device.")
        self.model = Predictor.from_pretrained(model_name, revision=revision, device=device or "auto")
        self.model.needs_space()

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """(N, E) float32 of unit length. inputs: batches, kind -> values; only `batch_size` of kwargs counts.

        Raises:
            ConfigError: a row of nothing but kinds that the model has no modality for.
        """
        batch = int(kwargs.get("batch_size", 64))
        parts = [self.model.encode(list(self._rows(part)), batch=batch) for part in inputs]
        return np.concatenate(parts) if parts else np.zeros((0, self.model.width), np.float32)

    def _rows(self, part: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        kinds = [kind for kind in KINDS if kind in part and self.model.supports(kind)]
        if not kinds:
            has = ", ".join(f"{m} ({p.kind})" for m, p in self.model.processors.items())
            raise ConfigError(f"mteb: a task of {', '.join(part)}; this model has {has}.")
        for values in zip(*(part[kind] for kind in kinds), strict=True):
            row = dict(zip(kinds, values, strict=True))
            if "audio" in row:
                row["audio"] = np.asarray(row["audio"]["array"]), int(row["audio"]["sampling_rate"])
            yield row

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Cosines (N, M) of unit vectors (N, E) and (M, E)."""
        return _matrix(embeddings1) @ _matrix(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Cosines (N,) of the rows of (N, E) and (N, E)."""
        return (_matrix(embeddings1) * _matrix(embeddings2)).sum(-1)

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """What mteb writes beside the results: the folder's name, and the weights' digest as revision."""
        from mteb.models.model_meta import ModelMeta, ScoringFunction

        model = self.model
        kinds = {p.kind for p in model.processors.values()}
        return ModelMeta.create_empty(
            {
                "name": f"motet/{model.folder.name}",
                "revision": model.fingerprint[:16],
                "n_parameters": sum(p.numel() for p in model.model.parameters()),
                "embed_dim": model.width,
                "framework": ["PyTorch"],
                "similarity_fn_name": ScoringFunction.COSINE,
                "use_instructions": False,
                "modalities": [kind for kind in KINDS if kind in kinds],
            }
        )


def _matrix(vectors: Any) -> Tensor:
    return torch.atleast_2d(torch.as_tensor(vectors, dtype=torch.float32))
