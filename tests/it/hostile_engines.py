"""Looks for values in a table with engines that leave out files by their statistics.

`hostile_engines.py ENGINE,... CASES`: CASES is a JSON file of
`[{"table": folder, "column": name, "kind": type, "op": "=" | ">" | "<", "values": [text], "sql": condition, "ids": [...]}]`.
Each case asks for the rows whose column compares so with one of the values. Prints a line for each engine and case whose ids are
others, and `asked N` at the end.
"""

import datetime
import decimal
import functools
import json
import operator
import pathlib
import sys

MICROS = 1_000_000
EPOCH = datetime.datetime(1970, 1, 1)


def moment(text):
    return datetime.datetime.fromisoformat(text)


def with_deltalake(case):
    import pyarrow
    from deltalake import DeltaTable, QueryBuilder

    table = deltalake_table(case["table"])
    rows = QueryBuilder().register("t", table).execute(f"SELECT id FROM t WHERE {case['sql']}")
    return [row["id"] for row in pyarrow.table(rows).to_pylist()]


@functools.cache
def deltalake_table(path):
    from deltalake import DeltaTable

    return DeltaTable(path)


@functools.cache
def connection():
    import duckdb
    import duckdb_extension_delta

    package = pathlib.Path(duckdb_extension_delta.__file__).parent
    opened = duckdb.connect()
    opened.execute(f"LOAD '{package}/extensions/v{duckdb.__version__}/delta.duckdb_extension'")
    return opened


def with_duckdb(case):
    types = {
        "double": "DOUBLE",
        "long": "BIGINT",
        "decimal": "DECIMAL(38,10)",
        "text": "VARCHAR",
        "timestamp": "TIMESTAMP",
        "date": "DATE",
        "boolean": "BOOLEAN",
    }
    compared = " OR ".join(f"\"{case['column']}\" {case['op']} CAST(? AS {types[case['kind']]})" for _ in case["values"])
    sql = f"SELECT id FROM delta_scan('{case['table']}') WHERE {compared}"
    return [row[0] for row in connection().execute(sql, case["values"]).fetchall()]


def with_polars(case):
    import polars

    literals = {
        "double": lambda text: polars.lit(float(text)),
        "long": lambda text: polars.lit(int(text), polars.Int64),
        "decimal": lambda text: polars.lit(decimal.Decimal(text)).cast(polars.Decimal(38, 10)),
        "text": polars.lit,
        "timestamp": lambda text: polars.lit(moment(text), polars.Datetime("us")),
        "date": lambda text: polars.lit(datetime.date.fromisoformat(text)),
        "boolean": lambda text: polars.lit(text == "true"),
    }
    compare = {"=": operator.eq, ">": operator.gt, "<": operator.lt}[case["op"]]
    column = polars.col(case["column"])
    wanted = functools.reduce(operator.or_, (compare(column, literals[case["kind"]](v)) for v in case["values"]))
    return polars.scan_delta(case["table"]).filter(wanted).select("id").collect()["id"].to_list()


ENGINES = {"deltalake": with_deltalake, "duckdb": with_duckdb, "polars": with_polars}

asked = 0
for name in sys.argv[1].split(","):
    for case in json.loads(pathlib.Path(sys.argv[2]).read_text()):
        try:
            found = sorted(ENGINES[name](case))
        except Exception as error:  # An engine that fails has not found them.
            found = f"{type(error).__name__}: {str(error)[:300]}"
        asked += 1
        if found != case["ids"]:
            what = f"{case['column']} {case['op']} {case['values']!r}"[:400]
            print(f"{name} {pathlib.Path(case['table']).name} {what}: found {found}, not {case['ids']}")
print("asked", asked)
