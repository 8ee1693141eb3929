"""What other engines see of a lake's tables, all at one snapshot that they find out themselves.

`readers.py LAKE TABLE=SQL ...`: the SQL reads `t`. Takes the newest snapshot that `_alluvium/snapshots` records, and prints
`snapshot EPOCH`, then for each engine and table `engine table value,value,...`.
"""

import pathlib
import sys
import time

lake = pathlib.Path(sys.argv[1])
queries = dict(argument.split("=", 1) for argument in sys.argv[2:])


def newest():
    """Its epoch, and every table's version."""
    import pyarrow
    from deltalake import DeltaTable, QueryBuilder

    sql = "SELECT epoch, table_name, version FROM snapshots WHERE epoch = (SELECT max(epoch) FROM snapshots)"
    for _ in range(300):
        snapshots = QueryBuilder().register("snapshots", DeltaTable(str(lake / "_alluvium" / "snapshots")))
        rows = pyarrow.table(snapshots.execute(sql))
        if rows.num_rows:
            epochs, names, versions = (column.to_pylist() for column in rows.columns)
            return epochs[0], dict(zip(names, versions))
        time.sleep(0.1)  # recorded behind the commits
    sys.exit("no snapshot is recorded")


def with_deltalake(path, version, sql):
    import pyarrow
    from deltalake import DeltaTable, QueryBuilder

    rows = QueryBuilder().register("t", DeltaTable(path, version=version)).execute(sql)
    return [column.to_pylist()[0] for column in pyarrow.table(rows).columns]


def with_polars(path, version, sql):
    import polars

    context = polars.SQLContext(t=polars.scan_delta(path, version=version))
    return context.execute(sql, eager=True).row(0)


def with_duckdb(path, version, sql):
    import duckdb
    import duckdb_extension_delta

    package = pathlib.Path(duckdb_extension_delta.__file__).parent
    connection = duckdb.connect()
    connection.execute(f"LOAD '{package}/extensions/v{duckdb.__version__}/delta.duckdb_extension'")
    connection.execute(f"CREATE VIEW t AS SELECT * FROM delta_scan('{path}', version => {version})")
    return connection.execute(sql).fetchone()


epoch, versions = newest()
print("snapshot", epoch)
for name, read in {"deltalake": with_deltalake, "polars": with_polars, "duckdb": with_duckdb}.items():
    for table, sql in queries.items():
        values = read(str(lake / table.replace(".", "/", 1)), versions[table], sql)
        print(name, table, ",".join("" if value is None else str(value) for value in values))
