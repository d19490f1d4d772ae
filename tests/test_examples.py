"""Examples are small and run; those that need data skip where it is absent."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from motet.data.columns import infer_columns
from motet.data.table import open_table

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_fillets_makes_a_table_of_spoken_lines(tmp_path):
    done = subprocess.run(
        [sys.executable, EXAMPLES / "fillets.py"], cwd=tmp_path, capture_output=True, text=True
    )
    if done.returncode:
        assert "apt-get install fillets-ng-data-cs" in done.stderr
        pytest.skip(done.stderr.strip())
    with (tmp_path / "fillets" / "cs.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) > 1000
    columns = infer_columns(open_table(tmp_path / "fillets" / "cs.csv"))
    assert columns.modalities == {"speech": "audio", "caption_own": "text", "caption": "text"}


def test_fillets_is_short():
    lines = (EXAMPLES / "fillets.py").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) < 40
