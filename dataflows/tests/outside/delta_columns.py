"""Reads a Delta table whose rows are of two widths."""

import json
import sys

from deltalake import DeltaTable

sys.stdin.read()
rows = DeltaTable("decisions").to_pyarrow_table()
contributions = [item for items in rows["churn_risk_contributions"].to_pylist() for item in items or []]
assert all(set(item) == {"feature", "contribution"} for item in contributions)
read = {
    "rows": rows.num_rows,
    "clicks": sum(clicks == 7.5 for clicks in rows["clicks"].to_pylist()),
    "contributions": len(contributions),
    "dates": sorted({date.isoformat() for date in rows["event_date"].to_pylist()}),
}
json.dump(read, sys.stdout)
