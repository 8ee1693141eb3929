#!/usr/bin/env python3
"""Reads every table of a lake with deltalake, DuckDB, Polars and Spark, and says whether they agree.

    source scripts/env.sh; source scripts/readers.sh      # installs them into the cache
    "$ALLUVIUM_PYTHON" scripts/read_with_others.py LAKE [--epoch EPOCH]

Spark is left out where `ALLUVIUM_SPARK_JARS` is not set: there is no Java.

For each table and engine it prints the version, the number of rows and a checksum of their content that
does not depend on their order. With --epoch, tables are read at the versions that `_alluvium/snapshots`
names for that epoch; else each at its newest version.
Exits 0 when all engines agree on every table, 1 when they differ or one fails, 2 on wrong usage.

DuckDB's delta extension comes from PyPI (`duckdb-extension-delta`, of DuckDB's own version): nothing is
downloaded when it is loaded.
"""

import argparse
import datetime
import decimal
import hashlib
import math
import os
import pathlib
import sys


def canonical(value):
    """One text for a value, whatever type an engine's binding gives it."""
    if value is None:
        return "~"
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else repr(value + 0.0)
    if isinstance(value, decimal.Decimal):
        return format(value.normalize() + 0, "f")
    if isinstance(value, datetime.datetime):
        if value.tzinfo is not None:
            value = value.astimezone(datetime.timezone.utc).replace(tzinfo=None)
        return value.isoformat(timespec="microseconds")
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    if hasattr(value, "asDict"):  # a struct of Spark
        value = value.asDict()
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(canonical(v) for v in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}:{canonical(v)}" for k, v in value.items()) + "}"
    return repr(value)


def checksum(names, rows):
    """Rows and a sum of hashes of rows, columns by name: independent of the order of both."""
    order = sorted(range(len(names)), key=lambda i: names[i])
    count, total = 0, 0
    for row in rows:
        text = "\x1f".join(canonical(row[i]) for i in order)
        total += int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
        count += 1
    return count, f"{total % (1 << 64):016x}"


def with_deltalake(path, version):
    from deltalake import DeltaTable, QueryBuilder

    table = DeltaTable(str(path), version=version)
    reader = QueryBuilder().register("t", table).execute("SELECT * FROM t")
    import pyarrow

    arrow = pyarrow.table(reader)
    return checksum(arrow.column_names, zip(*(c.to_pylist() for c in arrow.columns)))


def with_polars(path, version):
    import polars

    frame = polars.scan_delta(str(path), version=version).collect()
    return checksum(frame.columns, frame.iter_rows())


_duckdb = None


def with_duckdb(path, version):
    global _duckdb
    import duckdb

    if _duckdb is None:
        import duckdb_extension_delta

        package = pathlib.Path(duckdb_extension_delta.__file__).parent
        extension = package / "extensions" / f"v{duckdb.__version__}" / "delta.duckdb_extension"
        _duckdb = duckdb.connect()
        _duckdb.execute(f"LOAD '{extension}'")
    argument = f"'{path}'".replace("\\", "/")
    if version is not None:
        argument += f", version => {version}"
    result = _duckdb.execute(f"SELECT * FROM delta_scan({argument})")
    names = [d[0] for d in result.description]
    return checksum(names, result.fetchall())


_spark = None


def with_spark(path, version):
    global _spark
    if _spark is None:
        from pyspark.sql import SparkSession

        settings = {
            "spark.jars": os.environ["ALLUVIUM_SPARK_JARS"],
            "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
            "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
            "spark.sql.session.timeZone": "UTC",
            "spark.ui.enabled": "false",
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
        }
        builder = SparkSession.builder.master("local[*]").appName("read_with_others")
        for name, value in settings.items():
            builder = builder.config(name, value)
        _spark = builder.getOrCreate()
        _spark.sparkContext.setLogLevel("ERROR")
    reader = _spark.read.format("delta")
    if version is not None:
        reader = reader.option("versionAsOf", version)
    frame = reader.load(str(path))
    return checksum(frame.columns, frame.toLocalIterator())


ENGINES = {"deltalake": with_deltalake, "duckdb": with_duckdb, "polars": with_polars}
if "ALLUVIUM_SPARK_JARS" in os.environ:
    ENGINES["spark"] = with_spark


def tables_of(lake):
    for log in sorted(lake.glob("**/_delta_log")):
        path = log.parent
        if "_alluvium" not in path.relative_to(lake).parts:
            yield path


def versions_at(lake, epoch):
    import pyarrow
    from deltalake import DeltaTable, QueryBuilder

    snapshots = DeltaTable(str(lake / "_alluvium" / "snapshots"))
    sql = f"SELECT table_name, version FROM s WHERE epoch = {int(epoch)}"
    rows = pyarrow.table(QueryBuilder().register("s", snapshots).execute(sql)).to_pylist()
    return {row["table_name"].replace(".", "/", 1): row["version"] for row in rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("lake", type=pathlib.Path)
    parser.add_argument("--epoch", type=int)
    arguments = parser.parse_args()
    lake = arguments.lake.resolve()
    if not lake.is_dir():
        parser.error(f"{lake} is no folder")
    versions = None if arguments.epoch is None else versions_at(lake, arguments.epoch)
    if versions == {}:
        parser.error(f"_alluvium/snapshots does not know epoch {arguments.epoch}")
    agree = True
    found = False
    for path in tables_of(lake):
        name = path.relative_to(lake).as_posix()
        if versions is not None and name not in versions:
            continue
        found = True
        from deltalake import DeltaTable

        # One version for all engines, so that a running dataflow does not make them differ.
        version = versions[name] if versions else DeltaTable(str(path)).version()
        seen = set()
        for engine, read in ENGINES.items():
            try:
                count, digest = read(path, version)
                seen.add((count, digest))
                print(f"{name:32} v{version:<6} {engine:10} {count:>10} rows  {digest}")
            except Exception as error:  # An engine that cannot read is a result, not a crash.
                seen.add(("failed", engine))
                print(f"{name:32} v{version:<6} {engine:10} failed: {type(error).__name__}: {error}")
        if len(seen) != 1:
            agree = False
            print(f"{name:32} DIFFERS")
    if not found:
        parser.error(f"{lake} holds no tables")
    print("all engines agree" if agree else "engines differ")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
