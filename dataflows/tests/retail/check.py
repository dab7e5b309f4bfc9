"""Holds the profiles of a retail run against plain SQL over the data, and measures how well `churn_risk` foretells silence.

Standard input: a JSON object with `data` (the order lines), `lake` (the run's tables), `sql` (expected.sql) and `model` (the
churn model's file). Standard output: a JSON object with counts, differences and AUCs.
"""

import json
import math
import sys
import tomllib

import duckdb

asked = json.load(sys.stdin)
database = duckdb.connect()
database.execute("set timezone = 'UTC'")

COLUMNS = {
    "InvoiceNo": "varchar", "StockCode": "varchar", "Quantity": "double", "InvoiceDate": "timestamp",
    "UnitPrice": "double", "Country": "varchar", "CustomerID": "varchar",
}
database.execute(
    f"""create table raw as select row_number() over () as place, * from
        read_json(?, format = 'newline_delimited', compression = 'zstd', columns = {COLUMNS})""",
    [asked["data"]],
)
database.execute(
    """create table lines as select place, CustomerID as user_id, InvoiceNo as invoice, StockCode as stock_code,
       Quantity as quantity, UnitPrice as unit_price, Country as country, InvoiceDate as time
       from raw where CustomerID is not null"""
)
database.execute(
    "create view profiles as select * from read_parquet(? || '/profiles/*/*.parquet')".replace("?", f"'{asked['lake']}'")
)
FEATURES = [
    "orders_90d", "orders_365d", "trips_365d", "products_365d", "revenue_90d", "revenue_365d", "returns_365d",
    "refunded_365d", "days_since_last_order", "days_since_last_activity", "line_value_mean", "line_value_recent",
    "dearest_line_365d", "order_trend", "country",
]


def one(query, *parameters):
    return database.execute(query, list(parameters)).fetchone()[0]


def same(ours, theirs):
    """Counts and texts are equal; sums may be rounded in another order, and of large terms that cancel out."""
    if isinstance(ours, float) and isinstance(theirs, (int, float)):
        return math.isclose(ours, theirs, rel_tol=1e-9, abs_tol=1e-6)
    return ours == theirs


def expected_score(model, features):
    """The logistic model of the file, term by term."""
    z = model["intercept"]
    for term in model["feature"]:
        x = features[term["name"]]
        x = term["null"] if x is None else x
        transform = term.get("transform", "identity")
        if transform == "log1p":
            x = math.log1p(x) if x > -1 else None
        elif isinstance(transform, dict):
            x = min(max(x, transform["clip"]["min"]), transform["clip"]["max"])
        if x is None:
            return None
        z += term["weight"] * x
    return 1 / (1 + math.exp(-z))


def differences(now, until, rows):
    """Every field of every customer that differs, as text."""
    database.execute("set variable now = ?::timestamp", [now])
    database.execute("set variable until = ?::timestamp", [until])
    database.execute(f"create or replace table expected as {asked['sql']}")
    columns = ", ".join(["user_id", *FEATURES])
    theirs = {row[0]: row[1:] for row in database.execute(f"select {columns} from expected").fetchall()}
    ours = database.execute(f"select {columns}, churn_risk, lifecycle_stage from profiles where {rows}").fetchall()
    found = [] if len(ours) == len(theirs) else [f"{len(ours)} rows for {len(theirs)} customers"]
    for user, *values in ours:
        *features, score, stage = values
        if user not in theirs:
            found.append(f"{user}: has no lines before {until}")
            continue
        found += [
            f"{user}: {name} is {mine}, SQL says {other}"
            for name, mine, other in zip(FEATURES, features, theirs[user])
            if not same(mine, other)
        ]
        wanted = expected_score(model, dict(zip(FEATURES, features)))
        if (score is None) != (wanted is None) or (score is not None and not math.isclose(score, wanted, rel_tol=1e-12)):
            found.append(f"{user}: churn_risk is {score}, the model says {wanted}")
        silent = dict(zip(FEATURES, features))["days_since_last_order"]
        if (stage == "churned") != (silent is not None and silent >= 90):
            found.append(f"{user}: stage {stage} after {silent} days")
    return len(ours), found


def auc(pairs):
    """The chance that one who left scores above one who stayed; a tie counts half."""
    ranks, at, ordered = {}, 0, sorted(score for score, _ in pairs)
    while at < len(ordered):
        end = at
        while end < len(ordered) and ordered[end] == ordered[at]:
            end += 1
        ranks[ordered[at]] = (at + 1 + end) / 2
        at = end
    left = [ranks[score] for score, churned in pairs if churned]
    stayed = len(pairs) - len(left)
    return (sum(left) - len(left) * (len(left) + 1) / 2) / (len(left) * stayed)


with open(asked["model"], "rb") as file:
    model = tomllib.load(file)

last = str(one("select max(time) from lines"))
final_rows, final_differences = differences(last, "9999-01-01", "final")
boundary_rows, boundary_differences = differences(
    "2011-09-10", "2011-09-10", "as_of = timestamptz '2011-09-10 00:00:00+00' and not final"
)

# Whoever ordered in the 90 days before; churned is who does not in the 90 days after. Returns are no orders.
people = database.execute(
    """with orders as (select * from lines where not starts_with(invoice, 'C')),
       before as (select user_id, count(distinct time::date) as active_days, max(time) as latest from orders
                  where time >= timestamp '2011-09-10' - interval 90 days and time < timestamp '2011-09-10' group by user_id),
       after as (select distinct user_id from orders
                 where time >= timestamp '2011-09-10' and time < timestamp '2011-09-10' + interval 90 days)
       select churn_risk, epoch(timestamp '2011-09-10' - latest), -active_days, after.user_id is null
       from before join profiles using (user_id) left join after using (user_id)
       where as_of = timestamptz '2011-09-10 00:00:00+00' and not final"""
).fetchall()

json.dump(
    {
        "records": one("select count(*) from raw"),
        "without_customer": one("select count(*) from raw where CustomerID is null"),
        "customers": one("select count(distinct user_id) from lines"),
        "final_rows": final_rows,
        "boundary_rows": boundary_rows,
        "differences": (final_differences + boundary_differences)[:20],
        "differing": len(final_differences) + len(boundary_differences),
        "people": len(people),
        "churned": sum(churned for *_, churned in people),
        "auc": auc([(score, churned) for score, _, _, churned in people]),
        "auc_recency": auc([(recency, churned) for _, recency, _, churned in people]),
        "auc_active_days": auc([(days, churned) for _, _, days, churned in people]),
    },
    sys.stdout,
)
