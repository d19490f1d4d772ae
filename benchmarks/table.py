"""How long it takes to open a table of a million rows, to read a row, and to split it; and the memory.

    python benchmarks/table.py [--rows 1000000] [--out benchmarks/results]

Each format is opened in a process of its own; `peak_mb` is what opening added to its resident memory.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow
import pyarrow.feather
import pyarrow.parquet
from common import report

FORMATS = ("csv", "jsonl", "parquet", "feather")


def write(folder: Path, rows: int) -> None:
    draw = random.Random(0)
    data = pyarrow.table(
        {
            "id": [f"r{i}" for i in range(rows)],
            "text": [
                f"a {draw.choice(('dog', 'cat', 'bird'))} in garden {i * 7919 % rows}" for i in range(rows)
            ],
            "label": [draw.choice(("good", "bad", "so so")) for _ in range(rows)],
            "group": [f"g{i // 3}" for i in range(rows)],
        }
    )
    pyarrow.parquet.write_table(data, folder / "t.parquet")
    pyarrow.feather.write_feather(data, folder / "t.feather")
    with (folder / "t.csv").open("w", newline="") as out, (folder / "t.jsonl").open("w") as lines:
        rows_out = csv.writer(out)
        rows_out.writerow(data.column_names)
        for batch in data.to_batches(max_chunksize=10_000):
            for row in batch.to_pylist():
                rows_out.writerow(row.values())
                lines.write(json.dumps(row) + "\n")


def measure(path: Path) -> dict[str, float]:
    from motet.data.columns import infer_columns
    from motet.data.split import split_rows
    from motet.data.table import open_table

    def memory() -> float:  # the peak of this program, not of the one that started it
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    before, start = memory(), time.perf_counter()
    table = open_table(path)
    opened, peak = time.perf_counter() - start, memory() - before
    start = time.perf_counter()
    columns = infer_columns(table, label="label")
    judged = time.perf_counter() - start
    draw = random.Random(1)
    start = time.perf_counter()
    for _ in range(5000):
        table.row(draw.randrange(len(table)))
    row = (time.perf_counter() - start) / 5000
    start = time.perf_counter()
    split_rows(table, columns)
    return {
        "rows": len(table),
        "open_s": round(opened, 2),
        "columns_s": round(judged, 2),
        "peak_mb": round(peak),
        "row_us": round(row * 1e6, 1),
        "split_s": round(time.perf_counter() - start, 2),
        "split_peak_mb": round(memory() - before),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--out")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        print(json.dumps(measure(chosen.measure)))
        return
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), chosen.rows)
        environment = {**os.environ, "MOTET_CACHE": f"{folder}/cache"}
        found = {}
        for format in FORMATS:
            command = [sys.executable, __file__, "--measure", f"{folder}/t.{format}"]
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
            found[format] = json.loads(done.stdout)
    report("table", "cpu", {"formats": found}, chosen.out)


if __name__ == "__main__":
    main()
