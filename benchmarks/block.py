"""What does untying cost? Forward + backward of a MoT stack against its dense twin, in one run.

    python benchmarks/block.py                          # on this machine's best device
    python benchmarks/block.py --out benchmarks/results

The dense twin is written here, plainly, on tokens in their natural order: nothing of the packed
layout slows it. `tied` is Motet's own block with `untie=()`. `paper` is a working version of the
paper's published pattern: a boolean mask per modality, one after the other, in every layer. All have
the same sizes, rotary positions, RMS norms and SwiGLU; on a GPU all are compiled block by block.

On a CPU a product of matrices is up to a fifth slower or faster by where its tensors happen to lie in
memory, for as long as they lie there; so every setting is drawn several times.
"""

from __future__ import annotations

import argparse
import gc
import statistics
from dataclasses import replace

import torch
import torch.nn.functional as F
from common import in_turn, ratios, report, side_by_side
from torch import Tensor, nn

from motet.nn.block import Block, BlockConfig
from motet.nn.mot import MixtureOfTransformers, MoTConfig
from motet.nn.positions import RotaryConfig, Rotation, apply_rotary
from motet.types import Layout

NAMES = ("text", "image", "audio", "video", "touch", "smell")


class RMS(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6) * self.weight).to(x.dtype)


class Dense(nn.Module):
    """A plain dense block on (B * L, D)."""

    def __init__(self, config: BlockConfig, samples: int, causal: bool) -> None:
        super().__init__()
        width, self.heads, self.samples, self.causal = config.width, config.heads, samples, causal
        self.norm_in, self.norm_mlp = RMS(width), RMS(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 2 * config.inner, bias=False)
        self.down = nn.Linear(config.inner, width, bias=False)

    def forward(self, x: Tensor, rotation: Rotation) -> Tensor:
        q, k, v = self.qkv(self.norm_in(x)).unflatten(-1, (3, self.heads, -1)).unbind(1)
        q, k = apply_rotary(q, rotation), apply_rotary(k, rotation)
        q, k, v = (t.unflatten(0, (self.samples, -1)).transpose(1, 2) for t in (q, k, v))
        heard = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.out(heard.transpose(1, 2).flatten(0, 1).flatten(1))
        gate, value = self.up(self.norm_mlp(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * value)


class Paper(nn.Module):
    """The paper's pattern on (B * L, D): for each modality, mask, select, compute, write back."""

    def __init__(self, config: BlockConfig, samples: int, causal: bool, modalities: int) -> None:
        super().__init__()
        self.experts = nn.ModuleList(Dense(config, samples, causal) for _ in range(modalities))

    def forward(self, x: Tensor, rotation: Rotation, modality: Tensor) -> Tensor:
        one = self.experts[0]
        qkv = x.new_empty(x.shape[0], 3 * x.shape[1])
        for m, e in enumerate(self.experts):
            qkv[modality == m] = e.qkv(e.norm_in(x[modality == m]))
        q, k, v = qkv.unflatten(-1, (3, one.heads, -1)).unbind(1)
        q, k = apply_rotary(q, rotation), apply_rotary(k, rotation)
        q, k, v = (t.unflatten(0, (one.samples, -1)).transpose(1, 2) for t in (q, k, v))
        heard = F.scaled_dot_product_attention(q, k, v, is_causal=one.causal).transpose(1, 2)
        heard = heard.flatten(0, 1).flatten(1)
        y = torch.empty_like(x)
        for m, e in enumerate(self.experts):
            mine = modality == m
            part = x[mine] + e.out(heard[mine])
            gate, value = e.up(e.norm_mlp(part)).chunk(2, dim=-1)
            y[mine] = part + e.down(F.silu(gate) * value)
        return y


def interleaved(modalities: int, samples: int, length: int) -> tuple[Layout, Tensor, Tensor]:
    """Spans of 1/128 to 1/8 of a sample; the layout, its order, each modality as it lay."""
    g = torch.Generator().manual_seed(0)
    rows = []
    for _ in range(samples):
        spans: list[Tensor] = []
        while sum(map(len, spans)) < length:
            size = int(torch.randint(length // 128, length // 8 + 1, (1,), generator=g))
            spans.append(torch.full((size,), int(torch.randint(0, modalities, (1,), generator=g))))
        rows.append(torch.cat(spans)[:length])
    modality = torch.cat(rows)
    sample = torch.arange(samples).repeat_interleave(length)
    layout, order = Layout.build(NAMES[:modalities], modality, sample)
    return layout, order, modality


class Case:
    """The runs of one setting; each run is a forward and a backward of the whole stack."""

    def __init__(self, args: argparse.Namespace, modalities: int, causal: bool) -> None:
        torch.manual_seed(0)
        self.args, device, dtype = args, args.device, args.dtype
        block = BlockConfig(width=args.width, heads=args.heads, mlp_width=args.mlp_width)
        samples = args.tokens // args.length
        layout, order, modality = interleaved(modalities, samples, args.length)
        natural, _ = Layout.build(("all",), torch.zeros(args.tokens), layout.sample.sort().values)
        config = MoTConfig(
            block, args.depth, rotary=RotaryConfig(1.0, 0.0, 0.0, time_unit=1.0), causal=causal
        )
        self.mot = MixtureOfTransformers(config, NAMES[:modalities]).to(device, dtype)
        tied = replace(config, block=replace(block, untie=()))
        self.tied = MixtureOfTransformers(tied, NAMES[:modalities]).to(device, dtype)
        self.layout, modality = layout.to(device), modality.to(device)
        plans = self.mot.plans(self.layout)
        rotation_packed = self.mot.rotary(self.layout)
        rotation = self.mot.rotary(natural.to(device))
        x = torch.randn(args.tokens, args.width, generator=torch.Generator().manual_seed(1)).to(device, dtype)
        packed = x[order.to(device)].requires_grad_()
        x.requires_grad_()
        grad = torch.randn_like(x)
        dense = nn.ModuleList(Dense(block, samples, causal) for _ in range(args.depth)).to(device, dtype)
        paper = nn.ModuleList(Paper(block, samples, causal, modalities) for _ in range(args.depth))
        paper = paper.to(device, dtype)
        self.parameters = {"mot": sum(p.numel() for p in self.mot.blocks.parameters())}
        self.weights = [*self.mot.parameters(), *self.tied.parameters(), *dense.parameters()]
        self.parameters["dense"] = sum(p.numel() for p in dense.parameters())
        if args.compile:
            for stack in (self.mot.blocks, self.tied.blocks, dense, paper):
                for layer in stack:
                    layer.compile(fullgraph=stack is not paper)

        def step(stack: nn.ModuleList, start: Tensor, *rest: object) -> None:
            y = start
            for i, layer in enumerate(stack):
                packed_too = (self.layout, plans[i], rotation_packed)
                y = layer(y, *(packed_too if isinstance(layer, Block) else rest))
            y.backward(grad)
            for p in stack.parameters():
                p.grad = None
            start.grad = None

        self.runs = {
            "dense": lambda: step(dense, x, rotation),
            "mot": lambda: step(self.mot.blocks, packed),
            "tied": lambda: step(self.tied.blocks, packed),
            "paper": lambda: step(paper, x, rotation, modality),
        }

    def flops(self) -> float:
        """Of the matrix products, forward and backward: 3 x 2 per weight and token, and attention."""
        args, causal = self.args, self.mot.config.causal
        attention = 3 * 2 * 2 * args.tokens * args.length * args.width * args.depth / (2 if causal else 1)
        return 6 * args.tokens * self.parameters["dense"] + attention

    def peaks(self) -> dict[str, int]:
        """Peak bytes above the standing ones during a step: activations, and gradients of weights."""
        found = {}
        for name in ("dense", "mot", "tied"):
            self.runs[name]()
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            standing = torch.cuda.memory_allocated()
            self.runs[name]()
            torch.cuda.synchronize()
            found[name] = torch.cuda.max_memory_allocated() - standing
        return found


def activations(case: Case) -> dict[str, int]:
    """Bytes that the forward keeps for the backward, one step each, without the weights' gradients."""
    found = {}
    for name in ("dense", "mot", "tied"):
        kept: dict[int, int] = {}

        def pack(t: Tensor, kept: dict[int, int] = kept) -> Tensor:
            kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            case.runs[name]()
        weights = {p.untyped_storage().data_ptr() for p in case.weights}
        found[name] = sum(size for at, size in kept.items() if at not in weights)
    return found


def matmul_ceiling(device: str, dtype: torch.dtype, size: int, rounds: int) -> float:
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    ms = side_by_side({"matmul": lambda: a @ b}, device=device, rounds=rounds)["matmul"]
    return 2 * size**3 / ms * 1e3


def main() -> None:
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=2048 if gpu else 512)
    parser.add_argument("--heads", type=int, default=16 if gpu else 8)
    parser.add_argument("--depth", type=int, default=8 if gpu else 2)
    parser.add_argument("--mlp-width", type=int, default=None)
    parser.add_argument("--tokens", type=int, default=16384 if gpu else 2048)
    parser.add_argument("--length", type=int, default=4096 if gpu else 512)
    parser.add_argument("--modalities", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--draws", type=int, default=1 if gpu else 5)
    parser.add_argument("--no-compile", dest="compile", action="store_false", default=gpu)
    parser.add_argument("--out")
    args = parser.parse_args()
    args.device, args.dtype = ("cuda", torch.bfloat16) if gpu else ("cpu", torch.float32)
    ceiling = matmul_ceiling(args.device, args.dtype, 8192 if gpu else 2048, 10)
    rows = []
    for modalities in args.modalities:
        for causal in (True, False):
            times: dict[str, list[float]] = {}
            found: list[dict[str, float]] = []
            for _ in range(args.draws):
                case = Case(args, modalities, causal)
                once = in_turn(case.runs, device=args.device, rounds=args.rounds, warmup=3)
                found.append(ratios(once, to="dense"))
                times = {name: [*times.get(name, []), *values] for name, values in once.items()}
            ms = {name: statistics.median(values) for name, values in times.items()}
            rate = {name: case.flops() / value * 1e3 for name, value in ms.items()}
            rows.append(
                {
                    "modalities": modalities,
                    "counts": case.layout.counts,
                    "causal": causal,
                    "ms": {name: round(value, 2) for name, value in ms.items()},
                    "ratio": ratios(times, to="dense"),
                    "ratios_of_draws": [each["mot"] for each in found],
                    "tflops": {name: round(value / 1e12, 2) for name, value in rate.items()},
                    "of_ceiling": {name: round(value / ceiling, 3) for name, value in rate.items()},
                    "peak_bytes": case.peaks() if gpu else None,
                    "kept_bytes": activations(case),
                }
            )
            del case
            gc.collect()
            torch.compiler.reset()
    sizes = {key: getattr(args, key) for key in ("width", "heads", "depth", "tokens", "length", "compile")}
    result = {
        "sizes": sizes,
        "dtype": str(args.dtype),
        "ceiling_tflops": round(ceiling / 1e12, 2),
        "rows": rows,
    }
    report("block", args.device, result, args.out)


if __name__ == "__main__":
    main()
