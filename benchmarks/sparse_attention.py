"""What does a block-sparse rule save? Attention alone, forward + backward, against dense attention.

    python benchmarks/sparse_attention.py
    python benchmarks/sparse_attention.py --out benchmarks/results

`dense` is PyTorch's scaled_dot_product_attention over the same tokens in one run. `ideal` is what
the density would give if time were proportional to it. Plans are built before timing, as in
training, where one serves all layers; `plan_ms` says what building costs.
"""

from __future__ import annotations

import argparse
import time

import torch
from common import report, side_by_side
from torch import Tensor

from motet.nn.attention import AttentionPlan, make_plan
from motet.nn.rules import Rule, block_sparse, same_sample
from motet.types import Layout


def step(plan: AttentionPlan, inputs: list[Tensor], grad: Tensor) -> None:
    torch.autograd.grad(plan.attend(*inputs), inputs, grad)


def planned(rule: Rule, layout: Layout, backend: str = "auto") -> tuple[AttentionPlan, float]:
    begin = time.perf_counter()
    plan = make_plan(rule, layout, backend=backend)  # type: ignore[arg-type]
    if layout.device.type == "cuda":
        torch.cuda.synchronize()
    return plan, (time.perf_counter() - begin) * 1e3


def main() -> None:
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=16384 if gpu else 4096)
    parser.add_argument("--heads", type=int, default=16 if gpu else 8)
    parser.add_argument("--head-size", type=int, default=128 if gpu else 64)
    parser.add_argument("--block", type=int, default=128)
    parser.add_argument("--density", type=float, nargs="+", default=[0.5, 0.2, 0.05])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out")
    args = parser.parse_args()
    device, dtype = ("cuda", torch.bfloat16) if gpu else ("cpu", torch.float32)
    g = torch.Generator().manual_seed(0)
    modality = torch.randint(0, 2, (args.tokens,), generator=g)
    layout, _ = Layout.build(("text", "image"), modality, torch.zeros(args.tokens, dtype=torch.long))
    layout = layout.to(device)
    shape = (args.tokens, args.heads, args.head_size)
    q, k, v = (torch.randn(shape, generator=g).to(device, dtype).requires_grad_() for _ in range(3))
    grad = torch.randn(shape, generator=g).to(device, dtype)
    dense, dense_ms = planned(same_sample, layout, "sdpa")
    plans, rows = {"dense": dense}, []
    for density in args.density:
        plan, ms = planned(same_sample & block_sparse(args.block, density), layout)
        plans[f"{density}"] = plan
        rows.append({"density": round(plan.density, 4), "backend": plan.backend, "plan_ms": round(ms, 1)})
    runs = {name: (lambda p=plan: step(p, [q, k, v], grad)) for name, plan in plans.items()}
    times = side_by_side(runs, device=device, rounds=args.rounds)
    for row, density in zip(rows, args.density, strict=True):
        found = times[f"{density}"]
        row |= {"ms": round(found, 2), "times_faster": round(times["dense"] / found, 2)}
        row["ideal"] = round(1 / row["density"], 2)
    sizes = {key: getattr(args, key) for key in ("tokens", "heads", "head_size", "block")}
    dense_row = {"ms": round(times["dense"], 2), "plan_ms": round(dense_ms, 1)}
    report(
        "sparse_attention",
        device,
        {"sizes": sizes, "dtype": str(dtype), "dense": dense_row, "rows": rows},
        args.out,
    )


if __name__ == "__main__":
    main()
