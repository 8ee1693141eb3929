"""Reads a lake's tables with DuckDB, at the versions that `_alluvium/snapshots` names."""
import pathlib

import duckdb
import duckdb_extension_delta


class Lake:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        package = pathlib.Path(duckdb_extension_delta.__file__).parent
        self.connection = duckdb.connect()
        self.connection.execute(f"LOAD '{package}/extensions/v{duckdb.__version__}/delta.duckdb_extension'")
        self.connection.execute("SET threads = 2; SET TimeZone = 'UTC'")

    def ask(self, table, version, select):
        """Rows of a table (`silver.orders`), as it was at a version; `select` is what is between SELECT and FROM."""
        path = self.folder / table.replace(".", "/", 1)
        at = "" if version is None else f", version => {version}"
        return self.connection.execute(f"SELECT {select} FROM delta_scan('{path}'{at})").fetchall()

    def snapshots(self):
        """By epoch, oldest first: every table's version, and when it was committed, in Unix microseconds."""
        found = {}
        for epoch, table, version, at in self.ask("_alluvium.snapshots", None, "epoch, table_name, version, epoch_us(committed_at)"):
            versions, _ = found.setdefault(epoch, ({}, at))
            versions[table] = version
        return sorted((epoch, versions, at) for epoch, (versions, at) in found.items())

    def newest(self):
        found = self.snapshots() if (self.folder / "_alluvium" / "snapshots" / "_delta_log").exists() else []
        return found[-1] if found else None
