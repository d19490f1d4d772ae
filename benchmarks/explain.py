"""Time and peak memory of explaining 1k to 32k tokens, beside full matrices, captum and bertviz.

python benchmarks/explain.py [--tokens 1024 4096 ...] [--out benchmarks/results]

Each measurement is a process of its own: `cpu_s` of all its threads, `wall_s`, and the peak of memory
above that of the loaded model and batch. captum and bertviz are measured where they can be imported.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from common import report
from torch import Tensor

from motet.explain.capture import Capture, capture
from motet.explain.relevance import relevance
from motet.explain.rollout import gradient_rollout, integrated_gradients
from motet.explain.views import modality_matrix
from motet.model import Motet, MotetConfig, TaskSpec
from motet.nn.block import BlockConfig
from motet.nn.mot import MoTConfig
from motet.types import Layout, ModalitySpec, Output, TokenBatch

NAMES, WIDTH, DEPTH, HEADS, STEPS = ("a", "b"), 64, 2, 4, 16
MOST = {  # tokens above which a way is not tried: memory of T x T numbers, or minutes
    "capture, modality matrix": 32768,
    "capture with gradients, gradient rollout": 32768,
    "relevance": 32768,
    "integrated gradients, 16 steps": 1024,
    "naive: full matrices, modality matrix": 8192,
    "captum integrated gradients, 16 steps": 1024,
    "bertviz head view of full matrices": 512,
}


def build(tokens: int) -> tuple[Motet, TokenBatch]:
    torch.manual_seed(0)
    specs = tuple(ModalitySpec(name, "features", "vectors", 16) for name in NAMES)
    stack = MoTConfig(block=BlockConfig(width=WIDTH, heads=HEADS), depth=DEPTH, attend=("global",))
    tasks = (TaskSpec("t", "classes", ("x", "y")),)
    model = Motet(MotetConfig(modalities=specs, mot=stack, tasks=tasks, contrastive=False)).eval()
    layout = layout_of(tokens, 1)
    values = {name: torch.randn(count, 16) for name, count in zip(NAMES, layout.counts, strict=True)}
    return model, TokenBatch(layout, values, {}, torch.zeros(1, dtype=torch.long), ("0",))


def layout_of(tokens: int, samples: int) -> Layout:
    modality = (torch.arange(tokens * samples) % tokens) % 2
    return Layout.build(NAMES, modality, torch.arange(samples).repeat_interleave(tokens))[0]


def score(output: Output) -> Tensor:
    return output.predictions["t"].softmax(-1)[:, 0]


def full(model: Motet, batch: TokenBatch) -> list[Tensor]:
    """What most tools keep: every layer's weights, each (1, H, T, T)."""
    captured, rows = capture(model, batch), torch.arange(batch.layout.tokens)
    return [captured.weights(i, rows).transpose(0, 1)[None] for i in range(DEPTH)]


def naive_matrix(model: Motet, batch: TokenBatch) -> list[list[float]]:
    mean = torch.stack([w.mean((0, 1)) for w in full(model, batch)]).mean(0)
    parts = [batch.layout.slice_of(name) for name in NAMES]
    return [[float(mean[p][:, q].sum(1).mean()) for q in parts] for p in parts]


def ours_ig(model: Motet, batch: TokenBatch) -> Tensor:
    found = integrated_gradients(model, batch, capture(model, batch), score, steps=STEPS)
    return torch.as_tensor(found.signed)


def captum_ig(model: Motet, batch: TokenBatch) -> Tensor:
    """The same baseline and midpoints; captum wants samples before tokens, the model packs by modality."""
    from captum.attr import IntegratedGradients

    tokens = batch.layout.tokens
    with torch.no_grad():
        x = model.embed(batch.values, batch.layout)
    baseline = torch.cat(
        [part.mean(0, keepdim=True).expand_as(part) for part in x.split(batch.layout.counts)]
    )

    def forward(states: Tensor) -> Tensor:  # (S, T, D) -> (S,)
        layout = layout_of(tokens, len(states))
        parts = [states[:, batch.layout.slice_of(name)].flatten(0, 1) for name in NAMES]
        fused = model.fusion(model.mot(torch.cat(parts), layout), layout)
        return model.heads[0](fused).softmax(-1)[:, 0]

    method = IntegratedGradients(forward)
    found = method.attribute(
        x[None], baseline[None], n_steps=STEPS, method="riemann_middle", internal_batch_size=1
    )
    return found[0].sum(-1)


def bertviz_page(model: Motet, batch: TokenBatch) -> int:
    from bertviz import head_view

    words = [str(i) for i in range(batch.layout.tokens)]
    return len(head_view(full(model, batch), words, html_action="return").data)


def measure(tokens: int, how: str) -> dict[str, Any]:
    model, batch = build(tokens)
    runs: dict[str, Callable[[], Any]] = {
        "capture, modality matrix": lambda: (
            modality_matrix(capture(model, batch)).whole_raw.round(4).tolist()
        ),
        "capture with gradients, gradient rollout": lambda: gradient_rollout(capture(model, batch, score)),
        "relevance": lambda: relevance(model, batch, capture(model, batch), score),
        "integrated gradients, 16 steps": lambda: ours_ig(model, batch),
        "naive: full matrices, modality matrix": lambda: naive_matrix(model, batch),
        "captum integrated gradients, 16 steps": lambda: captum_ig(model, batch),
        "bertviz head view of full matrices": lambda: bertviz_page(model, batch),
    }
    before, wall, cpu = peak(), time.perf_counter(), time.process_time()
    result = runs[how]()
    found: dict[str, Any] = {
        "tokens": tokens,
        "how": how,
        "cpu_s": round(time.process_time() - cpu, 2),
        "wall_s": round(time.perf_counter() - wall, 2),
        "peak_mib": round(peak() - before),
    }
    if isinstance(result, list):
        found["shares"] = [[round(float(v), 4) for v in row] for row in result]
    if how.startswith("captum"):
        found["largest_difference_from_ours"] = float((result - ours_ig(model, batch)).abs().max())
        found["largest_value"] = float(result.abs().max())
    if how.startswith("bertviz"):
        found["page_mib"] = round(result / 2**20, 1)
    return found


def peak() -> float:
    """Most memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def largest_error(tokens: int = 1024) -> float:
    """Between what recomputed weights bring and what the model's attention brought."""
    model, batch = build(tokens)
    used: list[tuple[Tensor, Tensor]] = []
    for block in model.mot.blocks:
        block.attend.register_forward_hook(lambda _, args, out: used.append((args[2], out)))
    captured: Capture = capture(model, batch)
    rows = torch.arange(tokens)
    again = [torch.einsum("rht,thk->rhk", captured.weights(i, rows), v) for i, (v, _) in enumerate(used)]
    return max(float((a - out).abs().max()) for a, (_, out) in zip(again, used, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[512, 1024, 2048, 4096, 8192, 16384, 32768])
    parser.add_argument("--out", help="folder for the result")
    parser.add_argument("--one", choices=tuple(MOST), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(asked.tokens[0], asked.one)))
        return
    rows: list[dict[str, Any]] = []
    for tokens in asked.tokens:
        for how, most in MOST.items():
            peer = how.split()[0]
            there = peer not in ("captum", "bertviz") or importlib.util.find_spec(peer) is not None
            if tokens <= most and there:
                command = [sys.executable, __file__, "--tokens", str(tokens), "--one", how]
                done = subprocess.run(command, check=False, capture_output=True, text=True)
                failed = {"tokens": tokens, "how": how, "failed": done.stderr.strip().splitlines()[-1:]}
                rows.append(failed if done.returncode else json.loads(done.stdout.splitlines()[-1]))
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    result = {
        "model": f"width {WIDTH}, {DEPTH} layers, {HEADS} heads, every token sees every other",
        "load_average": round(os.getloadavg()[0], 1),
        "largest_error_of_recomputed_attention": largest_error(),
        "runs": rows,
    }
    report("explain", "cpu", result, asked.out)


if __name__ == "__main__":
    main()
