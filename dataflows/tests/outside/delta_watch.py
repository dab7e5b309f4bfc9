"""Counts the rows of the Delta table `decisions` again and again, until there are as many as standard input says."""

import json
import sys
import time

from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

wanted, step = map(int, sys.stdin.read().split())
seen = []
deadline = time.monotonic() + 300
while time.monotonic() < deadline:
    try:
        rows = DeltaTable("decisions").to_pyarrow_table(columns=["decision_id"])
    except TableNotFoundError:
        time.sleep(0.01)
        continue
    assert len(set(rows["decision_id"].to_pylist())) == rows.num_rows, "a row is there twice"
    seen.append(rows.num_rows)
    if rows.num_rows >= wanted:
        break
json.dump(seen, sys.stdout)
