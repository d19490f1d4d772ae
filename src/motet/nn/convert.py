"""Dense pretrained transformers of other libraries as a stack with `untie=()`.

`MixtureOfTransformers.from_dense` then gives every modality its copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from motet.errors import ConfigError
from motet.nn.block import BlockConfig
from motet.nn.mot import MixtureOfTransformers, MoTConfig
from motet.nn.positions import RotaryConfig


def from_torch_encoder(encoder: nn.TransformerEncoder) -> MixtureOfTransformers:
    """`torch.nn.TransformerEncoder` (norm_first, GELU, batch_first irrelevant) as a dense stack.

    Raises:
        ConfigError: a choice of that encoder which the block does not have (ReLU, norm last).
    """
    layer: Any = encoder.layers[0]
    if not layer.norm_first or layer.activation_relu_or_gelu != 2:
        raise ConfigError("from_torch_encoder: needs norm_first=True and activation='gelu'.")
    config = MoTConfig(
        BlockConfig(
            width=layer.linear1.in_features,
            heads=layer.self_attn.num_heads,
            mlp="gelu",
            mlp_width=layer.linear1.out_features,
            norm="layer",
            norm_eps=layer.norm1.eps,
            untie=(),
            bias=True,
        ),
        depth=len(encoder.layers),
        rotary=None,
    )
    names = {
        "norm_in": "norm1",
        "norm_mlp": "norm2",
        "out": "self_attn.out_proj",
        "mlp.up": "linear1",
        "mlp.down": "linear2",
    }
    source = encoder.state_dict()
    state: dict[str, Tensor] = {}
    for i in range(config.depth):
        for part in ("weight", "bias"):
            state[f"blocks.{i}.qkv.{part}.shared"] = source[f"layers.{i}.self_attn.in_proj_{part}"]
            for ours, theirs in names.items():
                state[f"blocks.{i}.{ours}.{part}.shared"] = source[f"layers.{i}.{theirs}.{part}"]
    width = config.block.width
    state["final_norm.weight.shared"] = source.get("norm.weight", torch.ones(width))
    state["final_norm.bias.shared"] = source.get("norm.bias", torch.zeros(width))
    return _filled(config, state)


def from_llama(
    model: nn.Module, kind: Literal["causal", "bidirectional"] = "causal"
) -> MixtureOfTransformers:
    """A `transformers` LlamaModel (also Mistral, SmolLM, ...: RMS norm, SwiGLU, rotary) as a dense stack.

    Takes the blocks and the final norm; embed tokens by the model's own `embed_tokens`. The rotary
    angle is the token's position, so build the layout without `time`.

    Raises:
        ConfigError: biases, scaled rotary positions, or a head size that is not width / heads.
    """
    theirs: Any = model.config
    rope = getattr(theirs, "rope_parameters", None) or {}
    head = getattr(theirs, "head_dim", None) or theirs.hidden_size // theirs.num_attention_heads
    plain = (
        rope.get("rope_type", "default") == "default"
        and head * theirs.num_attention_heads == theirs.hidden_size
    )
    if not plain or getattr(theirs, "attention_bias", False) or theirs.hidden_act != "silu":
        raise ConfigError(
            "from_llama: needs plain rotary positions, no biases, SiLU, head size = width / heads."
        )
    config = MoTConfig(
        BlockConfig(
            width=theirs.hidden_size,
            heads=theirs.num_attention_heads,
            kv_heads=theirs.num_key_value_heads,
            mlp_width=theirs.intermediate_size,
            norm_eps=theirs.rms_norm_eps,
            untie=(),
        ),
        depth=theirs.num_hidden_layers,
        rotary=RotaryConfig(
            time=1.0, row=0.0, col=0.0, base=float(rope.get("rope_theta", 10000.0)), time_unit=1.0
        ),
        causal=kind == "causal",
    )
    source: Mapping[str, Tensor] = model.state_dict()
    state = {"final_norm.weight.shared": source["norm.weight"]}
    for i in range(config.depth):

        def take(*names: str, layer: int = i) -> Tensor:
            return torch.cat([source[f"layers.{layer}.{name}.weight"] for name in names])

        state |= {
            f"blocks.{i}.norm_in.weight.shared": take("input_layernorm"),
            f"blocks.{i}.norm_mlp.weight.shared": take("post_attention_layernorm"),
            f"blocks.{i}.qkv.weight.shared": take("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            f"blocks.{i}.out.weight.shared": take("self_attn.o_proj"),
            f"blocks.{i}.mlp.up.weight.shared": take("mlp.gate_proj", "mlp.up_proj"),
            f"blocks.{i}.mlp.down.weight.shared": take("mlp.down_proj"),
        }
    return _filled(config, state)


def _filled(config: MoTConfig, state: Mapping[str, Tensor]) -> MixtureOfTransformers:
    model = MixtureOfTransformers(config, ("any",))
    model.load_state_dict(state)
    return model
