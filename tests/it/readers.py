"""Prints what each engine sees of silver/rows at a version: `engine rows,sum-of-ids,sum-of-amounts`."""

import pathlib
import sys

lake, version = pathlib.Path(sys.argv[1]), int(sys.argv[2])
path = str(lake / "silver" / "rows")


def with_deltalake():
    import pyarrow
    from deltalake import DeltaTable, QueryBuilder

    table = DeltaTable(path, version=version)
    rows = QueryBuilder().register("t", table).execute("SELECT COUNT(*), SUM(id), SUM(amount) FROM t")
    return [column.to_pylist()[0] for column in pyarrow.table(rows).columns]


def with_polars():
    import polars

    frame = polars.scan_delta(path, version=version).select(
        polars.len(), polars.col("id").sum(), polars.col("amount").sum()
    )
    return frame.collect().row(0)


def with_duckdb():
    import duckdb
    import duckdb_extension_delta

    package = pathlib.Path(duckdb_extension_delta.__file__).parent
    connection = duckdb.connect()
    connection.execute(f"LOAD '{package}/extensions/v{duckdb.__version__}/delta.duckdb_extension'")
    sql = f"SELECT COUNT(*), SUM(id), SUM(amount) FROM delta_scan('{path}', version => {version})"
    return connection.execute(sql).fetchone()


for name, read in {"deltalake": with_deltalake, "polars": with_polars, "duckdb": with_duckdb}.items():
    print(name, ",".join(str(value) for value in read()))
