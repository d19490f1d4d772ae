"""Tensors to tensors: the Mixture-of-Transformers core."""

from motet.nn.attention import AttentionPlan, make_plan
from motet.nn.block import Block, BlockConfig
from motet.nn.convert import from_llama, from_torch_encoder
from motet.nn.counting import count_flops, count_parameters
from motet.nn.fusion import make_fusion
from motet.nn.modules import CrossModalAttention, SparseAttention
from motet.nn.mot import MixtureOfTransformers, MoTConfig
from motet.nn.positions import Rotary, RotaryConfig
from motet.nn.untied import UntiedLinear, UntiedNorm

__all__ = [
    "AttentionPlan",
    "Block",
    "BlockConfig",
    "CrossModalAttention",
    "MixtureOfTransformers",
    "MoTConfig",
    "Rotary",
    "RotaryConfig",
    "SparseAttention",
    "UntiedLinear",
    "UntiedNorm",
    "count_flops",
    "count_parameters",
    "from_llama",
    "from_torch_encoder",
    "make_fusion",
    "make_plan",
]
