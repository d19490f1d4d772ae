"""The networks inside pretrained encoders, called in one way; made from weights or from a description."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from motet.config import parse_json
from motet.errors import ConfigError, missing_extra
from motet.nn.pretrained import bare, installed

EFFICIENTNET = "efficientnet-lite0"
_CODE = ("auto_map", "_name_or_path", "transformers_version")  # never needed, and the first names code


class TextNet(nn.Module):
    """(B, L) ids and a mask of which are there -> (B, L, width)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        if getattr(model, "pooler", None) is not None:
            model.pooler = None  # type: ignore[assignment]  # what we do not read need not be kept and trained

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.model(input_ids=ids, attention_mask=mask).last_hidden_state


class TokenGrid(nn.Module):
    """A vision model of `transformers`: (B, 3, side, side) -> (B, rows, cols, width), the last hidden
    state without class or register tokens."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        if getattr(model, "pooler", None) is not None:
            model.pooler = None  # type: ignore[assignment]
        config: Any = model.config
        patch, side = getattr(config, "patch_size", None), getattr(config, "image_size", None)
        self.expected = side // patch if isinstance(patch, int) and patch and isinstance(side, int) else 0

    def forward(self, pictures: Tensor) -> Tensor:
        states = self.model(pixel_values=pictures).last_hidden_state
        if states.ndim == 4:  # convolutional models: (B, width, rows, cols)
            return states.permute(0, 2, 3, 1)
        tokens = states.shape[1]
        side = self.expected if 0 < self.expected**2 <= tokens else math.isqrt(tokens)
        return states[:, tokens - side**2 :].unflatten(1, (side, side))


class MapGrid(nn.Module):
    """EfficientNet up to the map before global pooling: (B, 3, side, side) -> (B, side/32, side/32, 1280).

    Its batch norms are folded into the convolutions: the same function, and what a picture gives does not
    depend on its batch when it is trained either.
    """

    def __init__(self, net: Any) -> None:
        super().__init__()
        net._fc = nn.Identity()
        self.model = _folded(net.eval()).to(memory_format=torch.channels_last)

    def forward(self, pictures: Tensor) -> Tensor:
        # Channels last is 2.6 times as fast for convolutions on the CPU.
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        return self.model.extract_features(pictures).permute(0, 2, 3, 1)


def efficientnet(weights: Path | None = None) -> Any:
    """EfficientNet-Lite0 as its package has it, with random weights where none are given."""
    if not installed("efficientnet_lite_pytorch"):
        raise missing_extra("encoders", "efficientnet-lite-pytorch", f"the picture encoder {EFFICIENTNET!r}")
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_name(EFFICIENTNET)
    if weights is not None:
        net.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu"))
    return net


def described(model: Any) -> str:
    """The JSON from which `from_description` makes the same architecture."""
    values = {key: value for key, value in model.config.to_dict().items() if key not in _CODE}
    return json.dumps(values, sort_keys=True, allow_nan=False)


def from_description(text: str, where: str) -> Any:
    """A `transformers` model with random weights, of the library's own classes.

    Raises:
        ConfigError: `transformers` is missing, or does not know this architecture.
    """
    if not installed("transformers"):
        raise missing_extra("hf", "transformers", where)
    from transformers import AutoConfig, AutoModel

    values = parse_json(text, where=where)
    if not isinstance(values, dict) or not isinstance(values.get("model_type"), str):
        raise ConfigError(f"{where}: its architecture is not a config of `transformers`.")
    kept = {key: value for key, value in values.items() if key not in (*_CODE, "model_type")}
    try:
        config = AutoConfig.for_model(values["model_type"], **kept)
        return bare(AutoModel.from_config(config, trust_remote_code=False, dtype=torch.float32))
    except (ValueError, TypeError, KeyError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"{where}: this `transformers` cannot make a {values['model_type']!r}: {line}"
        ) from None


def package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None  # only called for installed packages
    return Path(spec.origin).parent


def _folded(net: Any) -> Any:
    """Batch norms folded into the convolutions before them: same function, one step less each."""
    for owner, conv, norm in [(net, "_conv_stem", "_bn0"), (net, "_conv_head", "_bn1")] + [
        (block, conv, norm)
        for block in net._blocks
        for conv, norm in (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))
        if hasattr(block, conv)
    ]:
        setattr(owner, conv, fuse_conv_bn_eval(getattr(owner, conv), getattr(owner, norm)))
        setattr(owner, norm, nn.Identity())
    return net
