"""Time and memory of capturing attention, by tokens, against keeping full matrices; prints JSON.

python benchmarks/explain.py [--tokens 1024 4096 ...]   each measurement runs in a process of its own
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

NAIVE_MOST = 4096  # full matrices of 2 layers x 4 heads x T x T float32: 0.5 GiB here, 32 GiB at 32k


def measure(tokens: int, how: str) -> dict[str, object]:
    """Peak memory above the loaded model, and seconds of one pass and one modality matrix."""
    import torch

    from motet.explain.capture import capture
    from motet.explain.views import modality_matrix
    from motet.model import Motet, MotetConfig, TaskSpec
    from motet.nn.block import BlockConfig
    from motet.nn.mot import MoTConfig
    from motet.types import Layout, ModalitySpec, TokenBatch

    torch.manual_seed(0)
    specs = (ModalitySpec("a", "features", "vectors", 16), ModalitySpec("b", "features", "vectors", 16))
    stack = MoTConfig(block=BlockConfig(width=64, heads=4), depth=2, attend=("global",))
    tasks = (TaskSpec("t", "classes", ("x", "y")),)
    model = Motet(MotetConfig(modalities=specs, mot=stack, tasks=tasks, contrastive=False)).eval()
    layout, _ = Layout.build(("a", "b"), torch.arange(tokens) % 2, torch.zeros(tokens, dtype=torch.long))
    values = {name: torch.randn(count, 16) for name, count in zip("ab", layout.counts, strict=True)}
    batch = TokenBatch(layout, values, {}, torch.zeros(1, dtype=torch.long), ("0",))
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    captured = capture(model, batch)
    captured_s = time.perf_counter() - start
    if how == "pieces":
        whole = modality_matrix(captured).whole_raw
    else:
        full = [captured.weights(layer, torch.arange(tokens)) for layer in range(2)]
        parts = [layout.slice_of(name) for name in "ab"]
        mean = torch.stack(full).mean((0, 2))
        whole = torch.stack(
            [torch.stack([mean[p][:, q].sum(1).mean() for q in parts]) for p in parts]
        ).numpy()
    seconds = time.perf_counter() - start
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {
        "tokens": tokens, "how": how, "capture_s": round(captured_s, 2), "total_s": round(seconds, 2),
        "peak_mib": round(peak), "shares": [[round(float(v), 4) for v in row] for row in whole],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 4096, 8192, 16384, 32768])
    parser.add_argument("--one", choices=("pieces", "full"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(asked.tokens[0], asked.one)))
        return
    for tokens in asked.tokens:
        for how in ("pieces", "full") if tokens <= NAIVE_MOST else ("pieces",):
            command = [sys.executable, __file__, "--tokens", str(tokens), "--one", how]
            print(
                subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip(), flush=True
            )


if __name__ == "__main__":
    main()
