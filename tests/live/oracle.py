"""What the tables must be, by the source's audit, once any first transactions were committed."""
import collections
import datetime
import decimal
import pathlib

import psycopg

from source import TABLES, TIMES

GOLD = {path.stem: path.read_text() for path in sorted((pathlib.Path(__file__).parent / "dataflow" / "gold").glob("*.sql"))}
SHOWN = 5   # rows of a difference


class Differs(Exception):
    pass


def reading(table):
    """What DuckDB selects of a silver table so that each row is one text, as `Oracle` has them."""
    columns = (f'epoch_us("{c}")' if c in TIMES else f'"{c}"' for c in TABLES[table][0])
    return f"concat_ws(chr(31), {', '.join(f'coalesce(CAST({c} AS VARCHAR), chr(1))' for c in columns)})"


def written(table):
    """The same of PostgreSQL, of the audit's column `row`."""
    def text(column):
        return f"(extract(epoch FROM (row->>'{column}')::timestamptz) * 1000000)::bigint::text" if column in TIMES else f"row->>'{column}'"
    return f"concat_ws(chr(31), {', '.join(f'coalesce({text(c)}, chr(1))' for c in TABLES[table][0])})"


class Oracle:
    """Moves forward over the source's transactions."""

    def __init__(self, source):
        self.source = source
        self.restart()
        with psycopg.connect(source.url) as connection:
            noted = {txid for txid, in connection.execute("SELECT txid FROM audit WHERE tbl = 'journal'")}
            self.order = [txid for txid in source.commits if txid in noted]
            self.position = {txid: n for n, txid in enumerate(self.order)}
            audited = {txid for txid, in connection.execute("SELECT DISTINCT txid FROM audit")}
            if audited != set(self.order):
                raise Differs(f"the slot and the audit disagree: {sorted(audited ^ set(self.order))[:9]}")
            connection.execute("TRUNCATE commits")
            with connection.cursor().copy("COPY commits FROM STDIN") as copy:
                for position, txid in enumerate(self.order):
                    copy.write_row((position, txid))
            connection.execute("CREATE INDEX IF NOT EXISTS audit_by_key ON audit (tbl, key, seq)")
            connection.execute("ANALYZE audit")
            connection.execute("ANALYZE commits")
            cases = " ".join(f"WHEN '{table}' THEN {written(table)}" for table in TABLES)
            self.changes = [[] for _ in self.order]
            for position, *change in connection.execute(
                    f"SELECT position, tbl, key::text, CASE WHEN row IS NOT NULL THEN CASE tbl {cases} END END "
                    "FROM audit JOIN commits USING (txid) ORDER BY position, seq"):
                self.changes[position].append(change)

    def restart(self):
        self.at = 0                                    # how many transactions are applied
        self.rows = {table: {} for table in TABLES}    # by key
        self.writer = {table: {} for table in TABLES}  # the transaction that wrote a key last

    def forward(self, to):
        for position in range(self.at, to):
            for table, key, row in self.changes[position]:
                if row is None:
                    self.rows[table].pop(key, None)
                else:
                    self.rows[table][key] = row
                self.writer[table][key] = self.order[position]
        self.at = to

    def check_set(self, journal):
        """How many transactions these are; they must be the first ones of the order of commits."""
        first = set(self.order[:len(journal)])
        if first == journal:
            return len(journal)
        if unknown := journal - set(self.order):
            raise Differs(f"transactions that were never committed: {sorted(unknown)[:9]}")
        last = max(self.position[txid] for txid in journal)
        missing = [txid for txid in self.order[:last] if txid not in journal]
        raise Differs(f"the transactions are no prefix of the commits: there is {self.tell(self.order[last])}, and of those "
                      f"committed before it {len(missing)} are missing, first {', '.join(map(self.tell, missing[:3]))}")

    def check_table(self, table, rows):
        """Rows as `reading` makes them, against what the applied transactions left."""
        expected = self.rows[table]
        found = {row for row, in rows}
        if len(rows) == len(expected) == len(found) and found == set(expected.values()):
            return
        missing = {key: row for key, row in expected.items() if row not in found}
        more = found - set(expected.values())
        lines = [f"silver.{table}: {len(rows)} rows where PostgreSQL had {len(expected)}; {len(missing)} missing, {len(more)} too many"]
        for key, row in list(missing.items())[:SHOWN]:
            lines.append(f"  missing {show(row)}, written by {self.tell(self.writer[table][key])}")
        for row in sorted(more)[:SHOWN]:
            by = [self.order[p] for p, changes in enumerate(self.changes) for t, _, r in changes if t == table and r == row]
            lines.append(f"  too many {show(row)}, written by {', '.join(map(self.tell, by[-3:])) or 'nobody'}")
        if len(rows) != len(found):
            lines.append(f"  {len(rows) - len(found)} rows are there twice")
        raise Differs("\n".join(lines))

    def tell(self, txid):
        changes = self.changes[self.position[txid]]
        tables = collections.Counter(table for table, _, _ in changes)
        counts = ", ".join(f"{table} {n}" for table, n in tables.items())
        return f"transaction {txid} (commit {self.position[txid]}; changes: {counts})"

    def check_gold(self, read):
        """Every gold table, `read(name)`, against its SQL in PostgreSQL over the tables as the applied transactions left them."""
        with psycopg.connect(self.source.url) as connection:
            for table in TABLES:
                connection.execute(f"TRUNCATE silver.{table}")
                connection.execute(
                    f"INSERT INTO silver.{table} SELECT r.* FROM (SELECT DISTINCT ON (key) row FROM audit JOIN commits USING (txid) "
                    f"WHERE tbl = '{table}' AND position < %s ORDER BY key, seq DESC) last, "
                    f"LATERAL jsonb_populate_record(NULL::silver.{table}, row) r WHERE row IS NOT NULL", (self.at,))
            for name, sql in GOLD.items():
                expected, found = plain(connection.execute(sql).fetchall()), plain(read(name))
                if expected != found:
                    missing, more = [r for r in expected if r not in found], [r for r in found if r not in expected]
                    raise Differs(f"gold.{name}: PostgreSQL has {missing[:SHOWN]}\n  the lake has {more[:SHOWN]}; "
                                  f"{len(missing)} and {len(more)} rows differ")

    def check_itself(self):
        """After all transactions the audit must say what the tables are."""
        self.forward(len(self.order))
        with psycopg.connect(self.source.url) as connection:
            for table in TABLES:
                self.check_table(table, connection.execute(
                    f"SELECT {written(table)} FROM (SELECT to_jsonb(t) AS row FROM {table} t) t").fetchall())


def show(row):
    return "(" + ", ".join("NULL" if value == "\1" else value for value in row.split("\37")) + ")"


def plain(rows):
    """Rows that compare equal whatever types a reader has for numbers and times."""
    def value(of):
        if isinstance(of, datetime.datetime):
            return of if of.tzinfo is None else of.astimezone(datetime.timezone.utc).replace(tzinfo=None)
        return decimal.Decimal(of) if isinstance(of, (int, decimal.Decimal)) and not isinstance(of, bool) else of
    return sorted((tuple(map(value, row)) for row in rows), key=repr_of_row)


def repr_of_row(row):
    return [str(value.normalize()) if isinstance(value, decimal.Decimal) else str(value) for value in row]
