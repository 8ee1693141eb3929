"""MariaDB under load -> Debezium -> Kafka -> Alluvium -> Delta, while each of them is killed and started again.

Transactions take turns, and each ends with a row of the journal that says what the other tables came to in it. Checked at every snapshot
that a run published: the journal has the first transactions without a gap, and Silver comes to what the last one's row says. At the end
Silver is MariaDB's own tables, row by row, Gold is what MariaDB makes of the same SQL, and `alluvium verify` agrees. Run by
`scripts/live_test mariadb`.
"""
import contextlib
import random
import shutil
import threading
import time

import pymysql

import harness
from oracle import SHOWN, Differs, plain
from pipeline import HERE, Pipeline, converters, live, partitions

TABLES = {   # the columns of each in order; DATETIME is read as DuckDB has it
    "accounts": ("id", "owner", "balance", "note", "moved", "seen"),
    "order_lines": ("order_id", "line_no", "product", "quantity", "price"),
    "journal": ("txid", "accounts", "lines"),
    "scratch": ("id",),
}
LARGE_ORDER = -1   # the order whose lines large transactions change

SCHEMA = """
CREATE TABLE turn (n bigint NOT NULL);
INSERT INTO turn VALUES (0);
CREATE TABLE accounts (id bigint PRIMARY KEY, owner text NOT NULL, balance decimal(14, 2) NOT NULL, note text,
    moved datetime(6) NOT NULL, seen timestamp(6) NULL DEFAULT NULL);
CREATE TABLE order_lines (order_id bigint, line_no int, product varchar(80) NOT NULL, quantity int NOT NULL, price decimal(10, 3),
    PRIMARY KEY (order_id, line_no));
CREATE TABLE journal (txid bigint PRIMARY KEY, accounts text NOT NULL, `lines` text NOT NULL);
CREATE TABLE scratch (id bigint PRIMARY KEY);
INSERT INTO accounts SELECT seq, CONCAT('owner ', seq), 100, IF(seq % 3 = 0, 'first', NULL), NOW(6), NULL FROM seq_1_to_200;
INSERT INTO order_lines SELECT o.seq, l.seq, CONCAT('product ', (o.seq * l.seq) % 50), l.seq, o.seq / 7 FROM seq_1_to_300 o, seq_1_to_3 l
"""

# What a table comes to, as one text. MICROS is what a time is in microseconds.
ACCOUNTS = ("CONCAT_WS(' ', COUNT(*), SUM(id), SUM(balance), SUM(MOD(id, 97) * balance), COUNT(note), COALESCE(SUM(CHAR_LENGTH(note)), 0), "
            "SUM(MOD(MICROS(moved), 1000003)), COUNT(seen), COALESCE(SUM(MOD(MICROS(seen), 1000003)), 0))")
LINES = ("CONCAT_WS(' ', COUNT(*), SUM(order_id), SUM(order_id * line_no), SUM(CHAR_LENGTH(product)), SUM(quantity * line_no), COUNT(price), "
         "SUM(price * quantity))")
MICROS = {"mariadb": "(UNIX_TIMESTAMP({}) * 1000000 DIV 1)", "duckdb": "epoch_us({})"}
GOLD = {path.stem: path.read_text() for path in sorted((HERE / "mariadb" / "gold").glob("*.sql"))}


def summing(sums, dialect):
    for column in ("moved", "seen"):
        sums = sums.replace(f"MICROS({column})", MICROS[dialect].format(column))
    return sums.replace("CHAR_LENGTH", "LENGTH") if dialect == "duckdb" else sums


class Source:
    """A database of its own."""

    def __init__(self, name):
        self.name = name

    def connect(self, database=None):
        return pymysql.connect(host=live.MARIADB.hostname, port=live.MARIADB.port, user=live.MARIADB.username,
                               password=live.MARIADB.password, database=database or self.name, connect_timeout=5, read_timeout=60,
                               init_command="SET time_zone = '+00:00', tx_isolation = 'READ-COMMITTED'")

    def create(self):
        live.mariadb(f"CREATE DATABASE {self.name} CHARACTER SET utf8mb4")
        with self.connect() as connection, connection.cursor() as cursor:
            for statement in SCHEMA.split(";"):
                cursor.execute(statement)
            connection.commit()
            self.transact(connection, lambda cursor, n: None)

    def drop(self):
        live.mariadb(f"DROP DATABASE {self.name}")

    def transact(self, connection, work):
        """A transaction in its turn; its number."""
        with connection.cursor() as cursor:
            cursor.execute("UPDATE turn SET n = n + 1")
            cursor.execute("SELECT n FROM turn")
            n, = cursor.fetchone()
            work(cursor, n)
            cursor.execute(f"INSERT INTO journal SELECT %s, (SELECT {summing(ACCOUNTS, 'mariadb')} FROM accounts), "
                           f"(SELECT {summing(LINES, 'mariadb')} FROM order_lines)", (n,))
        connection.commit()
        return n


class Client(threading.Thread):
    """Runs transactions one after the other until `stop`, over restarts of the server."""

    def __init__(self, source, seed, rate, stop, large):
        super().__init__(daemon=True)
        self.source, self.random, self.stop, self.pause, self.large = source, random.Random(seed), stop, 1 / rate, large
        self.done, self.lost, self.failure = {}, 0, None

    def run(self):
        kinds = [(self.transfer, 30), (self.order, 25), (self.change, 15), (self.drop, 8), (self.move, 8), (self.many, 1), (self.scratch, 3),
                 (self.empty, 1)]
        try:
            while not self.stop.is_set():
                with contextlib.suppress(pymysql.err.OperationalError, pymysql.err.InterfaceError), self.source.connect() as connection:
                    while not self.stop.is_set():
                        started = time.time()
                        kind, = self.random.choices(*zip(*kinds))
                        kind(connection) if kind == self.empty else self.source.transact(connection, kind)
                        self.done[kind.__name__] = self.done.get(kind.__name__, 0) + 1
                        self.stop.wait(max(0, started + self.pause * self.random.uniform(0.5, 1.5) - time.time()))
                self.lost += not self.stop.is_set()
                self.stop.wait(0.3)
        except BaseException as error:
            self.failure = error
            raise

    def any_order(self, cursor):
        cursor.execute("SELECT order_id FROM order_lines WHERE order_id >= %s ORDER BY order_id LIMIT 1", (self.random.randint(1, 2000),))
        return cursor.fetchone() or (1,)

    def transfer(self, cursor, n):
        one, other = self.random.randint(1, 200), self.random.randint(1, 200)
        note = self.random.choice((None, "", "größer als „sonst“", "a\nb,\"c\"\\", "😀"))
        cursor.execute("UPDATE accounts SET balance = balance - 1.25, moved = NOW(6), note = %s WHERE id = %s", (note, one))
        cursor.execute("UPDATE accounts SET balance = balance + 1.25, seen = NOW(6) WHERE id = %s", (other,))

    def order(self, cursor, n):
        for line in range(self.random.randint(1, 6)):
            price = self.random.choice((None, self.random.randint(1, 99_999) / 1000))
            cursor.execute("INSERT INTO order_lines VALUES (%s, %s, %s, %s, %s)", (1000 + n, line, f"product {n * line % 70}", line, price))

    def change(self, cursor, n):
        """Rows that change more than once, in several rows of one statement."""
        for _ in range(2):
            cursor.execute("UPDATE order_lines SET quantity = quantity + 1, price = price + 0.1 WHERE order_id = %s", self.any_order(cursor))

    def drop(self, cursor, n):
        cursor.execute("DELETE FROM order_lines WHERE order_id = %s", self.any_order(cursor))

    def move(self, cursor, n):
        """Changes keys, one over the other."""
        cursor.execute("UPDATE order_lines SET line_no = line_no + 1 WHERE order_id = %s ORDER BY line_no DESC", self.any_order(cursor))
        cursor.execute("UPDATE order_lines SET order_id = %s WHERE order_id = %s", (1_000_000 + n, *self.any_order(cursor)))

    def many(self, cursor, n):
        cursor.execute("DELETE FROM order_lines WHERE order_id = %s", (LARGE_ORDER,))
        cursor.execute(f"INSERT INTO order_lines SELECT %s, seq, CONCAT('product ', seq %% 70), 1, seq / 1000 FROM seq_1_to_{self.large}",
                       (LARGE_ORDER,))

    def scratch(self, cursor, n):
        cursor.execute("INSERT INTO scratch VALUES (%s)", (n,))

    def empty(self, connection):
        with connection.cursor() as cursor:
            cursor.execute("TRUNCATE scratch")


def of_mariadb(source, form, folder, **options):
    shutil.copytree(HERE / "mariadb", folder / "dataflow")
    name = f"{source.name}_{form}"
    for path in (folder / "dataflow" / "inputs").glob("*.toml"):
        path.write_text(path.read_text().replace(".alluvium.", f".{source.name}."))
    connector = live.mariadb_connector(
        name, [f"{source.name}.{table}" for table in TABLES], server_id=7000 + sum(name.encode()) % 1000, **converters(form), **{
            "database.include.list": source.name, "provide.transaction.metadata": "true", "decimal.handling.mode": "string",
            "skipped.operations": "none", "poll.interval.ms": "10", **partitions(".*[.](accounts|order_lines)")})
    return Pipeline(name, form, folder, connector, **options)


class Test(harness.Test):
    def __init__(self, options):
        super().__init__(options, Source(f"live_{int(time.time())}"), ("kafka", "connect", "mariadb"))

    def test(self):
        self.say(f"seed {self.options.seed}; everything is in {self.folder} and database {self.source.name}")
        self.source.create()
        for n in range(2):
            client = Client(self.source, f"{self.options.seed}-{n}", self.options.rate / 2, self.stop, self.options.large)
            self.clients.append(client)
            client.start()
        self.serve(of_mariadb)
        self.end_load()
        with self.source.connect() as connection:
            last = self.source.transact(connection, lambda cursor, n: None)
        self.catch_up(last)
        for pipeline in self.pipelines:
            self.check(pipeline, last)

    def check(self, pipeline, last):
        lake = pipeline.lake()
        snapshots = lake.snapshots()
        chosen = self.chosen(snapshots)
        exact, sets, seen, read = 0, 0, 0, 0
        for index in chosen:
            epoch, versions, _ = snapshots[index]
            (count, newest), = lake.ask("silver.journal", versions["silver.journal"], "COUNT(*), MAX(txid)")
            if not seen and count != newest:
                read += 1   # first rows come without a transaction: they are whole once all are there
                continue
            if count != newest or newest < seen:
                raise Differs(f"snapshot {epoch}: the journal has {count} transactions up to {newest}; the snapshot before had {seen}")
            sets, seen = sets + (newest != seen), newest
            told, = [row for row in lake.ask("silver.journal", versions["silver.journal"], "txid, accounts, lines") if row[0] == newest]
            found = [lake.ask(f"silver.{table}", versions[f"silver.{table}"], summing(sums, "duckdb"))[0][0]
                     for table, sums in (("accounts", ACCOUNTS), ("order_lines", LINES))]
            if found != list(told[1:]):
                if exact == 0:
                    read += 1
                    continue
                raise Differs(f"snapshot {epoch}, transaction {newest}:\n  MariaDB had {told[1:]}\n  the lake has {found}")
            exact += 1
        self.say(f"{pipeline.form}: {exact} of {len(chosen)} checked snapshots ({len(snapshots)} published) come to what MariaDB had, at {sets} "
                 f"transactions; {read} while the first rows were read; started {pipeline.starts} times")
        if seen != last:
            raise Differs(f"the newest snapshot shows transaction {seen} of {last}")
        with self.source.connect() as connection, connection.cursor() as cursor:
            for table, columns in TABLES.items():
                names = ", ".join(columns)
                cursor.execute(f"SELECT {names.replace('lines', '`lines`') if table == 'journal' else names} FROM {table}")
                self.compare(f"silver.{table}", cursor.fetchall(), lake.ask(f"silver.{table}", None, names))
            for name, sql in GOLD.items():
                cursor.execute(sql.replace("silver.", ""))
                self.compare(f"gold.{name}", cursor.fetchall(), lake.ask(f"gold.{name}", None, "*"))
        self.say(f"{pipeline.form}: at the end Silver and Gold are MariaDB's")
        self.check_end(pipeline, lake)

    def compare(self, table, expected, found):
        expected, found = plain(expected), plain(found)
        if expected != found:
            missing, more = (sorted(set(one) - set(other), key=str) for one, other in ((expected, found), (found, expected)))
            raise Differs(f"{table}: MariaDB has {missing[:SHOWN]}\n  the lake has {more[:SHOWN]}; {len(expected)} and {len(found)} rows")


def arguments():
    parser = harness.parser("scripts/live_test mariadb", __doc__)
    parser.add_argument("--large", type=int, default=3000, help="rows that a large transaction changes")
    parser.add_argument("--formats", default="json,avro", help="of json and avro, by commas: a dataflow each")
    return parser.parse_args()


if __name__ == "__main__":
    harness.run(Test(arguments()), "scripts/live_test mariadb")
