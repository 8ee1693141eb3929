"""The database that the tests change: its tables, and clients that change them as applications do.

1. Every transaction writes one row into `journal`, so that what a reader sees of `journal` is the set of transactions it sees.
2. Triggers write every change of a row into `audit`, which is not captured: the transaction, the key and the row it leaves. Its
   numbers are taken under the row's lock, so that they order the changes of a row as its transactions are committed.
3. A slot of its own tells in which order transactions were committed, independently of Debezium.
4. By (1) to (3), PostgreSQL says itself what the tables were once any first transactions were committed.
"""
import random
import threading
import time
import urllib.parse

import psycopg

TABLES = {   # the columns of each captured table in order, and those of its key
    "accounts": (("id", "owner", "balance", "note", "opened_at"), ("id",)),
    "orders": (("id", "customer", "status", "express", "total", "note", "placed_at"), ("id",)),
    "order_lines": (("order_id", "line_no", "product", "quantity", "price"), ("order_id", "line_no")),
    "stock": (("warehouse", "product", "on_hand", "moved_at"), ("warehouse", "product")),
    "journal": (("txid", "kind", "at"), ("txid",)),
}
TIMES = {"opened_at", "placed_at", "moved_at", "at"}
LARGE_ORDER = -1   # the order whose lines large transactions change

SCHEMA = """
CREATE TABLE accounts (id bigint PRIMARY KEY, owner text NOT NULL, balance numeric(14, 2) NOT NULL, note text,
    opened_at timestamptz NOT NULL);
CREATE TABLE orders (id bigint PRIMARY KEY, customer bigint NOT NULL, status text NOT NULL, express boolean,
    total numeric(12, 2), note text, placed_at timestamptz NOT NULL);
CREATE TABLE order_lines (order_id bigint, line_no int, product text NOT NULL, quantity int NOT NULL, price numeric(10, 3),
    PRIMARY KEY (order_id, line_no));
CREATE TABLE stock (warehouse int, product text, on_hand bigint NOT NULL, moved_at timestamptz, PRIMARY KEY (warehouse, product));
ALTER TABLE stock REPLICA IDENTITY FULL;
CREATE TABLE journal (txid bigint PRIMARY KEY DEFAULT pg_current_xact_id()::text::bigint, kind text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE SEQUENCE ids START 1000000;

CREATE TABLE audit (seq bigserial PRIMARY KEY, txid bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    tbl text NOT NULL, key jsonb NOT NULL, row jsonb);   -- no row: it is deleted
CREATE FUNCTION key_of(of jsonb, columns text[]) RETURNS jsonb IMMUTABLE LANGUAGE sql
    AS $$ SELECT jsonb_agg(of -> c ORDER BY n) FROM unnest(columns) WITH ORDINALITY AS u(c, n) $$;
CREATE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    before jsonb := CASE WHEN TG_OP <> 'INSERT' THEN key_of(to_jsonb(OLD), TG_ARGV) END;
    after jsonb := CASE WHEN TG_OP <> 'DELETE' THEN key_of(to_jsonb(NEW), TG_ARGV) END;
BEGIN
    IF before IS NOT NULL AND before IS DISTINCT FROM after THEN
        INSERT INTO audit (tbl, key) VALUES (TG_TABLE_NAME, before);
    END IF;
    IF after IS NOT NULL THEN
        INSERT INTO audit (tbl, key, row) VALUES (TG_TABLE_NAME, after, to_jsonb(NEW));
    END IF;
    RETURN NULL;
END $$;

-- What dataflow/gold runs over here: the tables as they were once some transactions were committed.
CREATE SCHEMA silver;
CREATE TABLE commits (position int PRIMARY KEY, txid bigint UNIQUE);
"""

FIRST = """
INSERT INTO accounts SELECT id, 'owner ' || id, 0, CASE WHEN id % 3 = 0 THEN 'first' END, now() FROM generate_series(1, 200) id;
INSERT INTO orders SELECT id, id % 40, 'new', id % 2 = 0, id * 1.5, NULL, now() FROM generate_series(1, 300) id;
INSERT INTO order_lines SELECT id, n, 'product ' || (id * n) % 50, n, id / 7.0 FROM generate_series(1, 300) id, generate_series(1, 3) n;
INSERT INTO stock SELECT w, 'product ' || p, 100, now() FROM generate_series(1, 3) w, generate_series(0, 49) p;
INSERT INTO journal (kind) VALUES ('first rows');
"""


class Source:
    """A database of its own."""

    def __init__(self, server, name):
        self.server, self.name = server, name
        self.url = urllib.parse.urlparse(server)._replace(path=f"/{name}").geturl()
        self.order_slot = f"{name}_order"
        self.commits = []          # transactions in the order of their commits
        self.known = set()

    def create(self):
        with psycopg.connect(self.server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {self.name}")
        with psycopg.connect(self.url) as connection:
            connection.execute(SCHEMA)
            for table, (_, key) in TABLES.items():
                arguments = ", ".join(f"'{column}'" for column in key)
                connection.execute(f"CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW "
                                   f"EXECUTE FUNCTION note_change({arguments})")
                connection.execute(f"CREATE TABLE silver.{table} (LIKE public.{table})")
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("SELECT pg_create_logical_replication_slot(%s, 'test_decoding')", (self.order_slot,))
        with psycopg.connect(self.url) as connection:
            connection.execute(FIRST)

    def drop(self):
        with psycopg.connect(self.server, autocommit=True) as connection:
            connection.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s",
                               (self.order_slot,))
            connection.execute(f"DROP DATABASE {self.name} WITH (FORCE)")

    def note_commits(self):
        """Asks for the commits since the last time; a server that was killed may tell some again."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            found = connection.execute(
                "SELECT xid::text::bigint FROM pg_logical_slot_get_changes(%s, NULL, NULL, 'skip-empty-xacts', '1') "
                "WHERE data LIKE 'COMMIT%%'", (self.order_slot,)).fetchall()
        for (txid,) in found:
            if txid not in self.known:
                self.known.add(txid)
                self.commits.append(txid)

    def end(self):
        """Commits one last transaction, and returns it."""
        with psycopg.connect(self.url) as connection:
            return connection.execute("INSERT INTO journal (kind) VALUES ('end') RETURNING txid").fetchone()[0]


class Client(threading.Thread):
    """Runs transactions one after the other until `stop`, over restarts of the server."""

    def __init__(self, source, seed, rate, stop, large=0):
        super().__init__(daemon=True)
        self.source, self.random, self.stop, self.large = source, random.Random(seed), stop, large
        self.pause = 1 / rate
        self.done, self.lost, self.failure = {}, 0, None
        self.large_step = 0

    def run(self):
        try:
            while not self.stop.is_set():
                try:
                    with psycopg.connect(self.source.url, connect_timeout=5) as connection:
                        self.serve(connection)
                except psycopg.OperationalError:
                    self.lost += 1
                    self.stop.wait(0.3)
        except BaseException as error:
            self.failure = error
            raise

    def serve(self, connection):
        kinds = [(self.transfer, 30), (self.order, 25), (self.change, 14), (self.drop, 6), (self.move, 6), (self.account, 6),
                 (self.take_back, 5), (self.count, 6), (self.slow, 1 if self.pause < 1 else 0)]
        if self.large:
            kinds = [(self.many, 1)]
        while not self.stop.is_set():
            started = time.time()
            kind, = self.random.choices(*zip(*kinds))
            early = self.random.random() < 0.5
            with connection.cursor() as cursor:
                self.cursor = cursor
                try:
                    if early:
                        self.note(kind)
                    kind()
                    if not early:
                        self.note(kind)
                    if kind == self.take_back:
                        connection.rollback()
                    else:
                        connection.commit()
                    self.done[kind.__name__] = self.done.get(kind.__name__, 0) + 1
                except (psycopg.errors.DeadlockDetected, psycopg.errors.UniqueViolation, Changed):
                    connection.rollback()
                    self.done["refused"] = self.done.get("refused", 0) + 1
            self.stop.wait(max(0, started + self.pause * self.random.uniform(0.5, 1.5) - time.time()))

    def sql(self, text, *values):
        return self.cursor.execute(text, values)

    def note(self, kind):
        self.sql("INSERT INTO journal (kind) VALUES (%s)", kind.__name__)

    def any_of(self, table):
        """The id of some row, at random."""
        old = self.random.random() < (0.8 if table == "accounts" else 0.2)
        low, high = (1, 250) if old else (1_000_000, 1_000_000 + len(self.source.known))
        found = self.sql(f"SELECT id FROM {table} WHERE id >= %s ORDER BY id LIMIT 1", self.random.randint(low, high)).fetchone() \
            or self.sql(f"SELECT id FROM {table} ORDER BY id LIMIT 1").fetchone()
        if not found:
            raise Changed
        return found[0]

    def new_id(self):
        return self.sql("SELECT nextval('ids')").fetchone()[0]

    def changed(self, rows=1):
        if self.cursor.rowcount != rows:
            raise Changed   # another transaction was quicker

    def transfer(self):
        amount = self.random.randint(1, 100_000) / 100
        one, other = self.any_of("accounts"), self.any_of("accounts")
        if one == other:
            raise Changed
        for account, change in sorted(((one, amount), (other, -amount))):
            self.sql("UPDATE accounts SET balance = balance + %s::numeric(14, 2) WHERE id = %s", change, account)
            self.changed()

    def order(self):
        order, lines = self.new_id(), self.random.randint(1, 6)
        self.sql("INSERT INTO orders VALUES (%s, %s, 'new', %s, NULL, %s, clock_timestamp())", order, self.random.randint(0, 39),
                 self.random.choice((True, False, None)), self.random.choice((None, "", "größer als „sonst“", "a\nb,\"c\"\\")))
        products = sorted(self.random.sample(range(60), lines))
        for n, product in enumerate(products):
            price = self.random.choice((None, self.random.randint(1, 99_999) / 1000))
            self.sql("INSERT INTO order_lines VALUES (%s, %s, %s, %s, %s)", order, n, f"product {product}",
                     self.random.randint(1, 9), price)
            self.sql("INSERT INTO stock VALUES (%s, %s, -1, clock_timestamp()) ON CONFLICT (warehouse, product) "
                     "DO UPDATE SET on_hand = stock.on_hand - 1, moved_at = EXCLUDED.moved_at", 1 + order % 3, f"product {product}")
        self.sql("UPDATE orders SET total = (SELECT sum(quantity * price) FROM order_lines WHERE order_id = %s) WHERE id = %s",
                 order, order)

    def change(self):
        order = self.any_of("orders")
        self.sql("UPDATE orders SET status = %s, note = NULL WHERE id = %s",
                 self.random.choice(("paid", "sent", "returned")), order)
        self.changed()
        self.sql("UPDATE order_lines SET quantity = quantity + 1, price = price * 1.1 WHERE order_id = %s", order)
        if self.random.random() < 0.3:
            self.sql("DELETE FROM order_lines WHERE order_id = %s AND line_no = 0", order)
        if self.random.random() < 0.3:
            self.sql("INSERT INTO order_lines VALUES (%s, %s, 'one more', 1, 0.1)", order, self.random.randint(10, 99))

    def drop(self):
        order = self.any_of("orders")
        self.sql("DELETE FROM orders WHERE id = %s", order)
        self.changed()
        self.sql("DELETE FROM order_lines WHERE order_id = %s", order)

    def move(self):
        """Changes keys: of an order with its lines, of an account, or of lines."""
        if self.random.random() < 0.3:
            self.sql("UPDATE accounts SET id = %s WHERE id = %s", self.new_id(), self.any_of("accounts"))
            return self.changed()
        old = self.any_of("orders")
        if self.random.random() < 0.5:
            new = self.new_id()
            self.sql("UPDATE orders SET id = %s WHERE id = %s", new, old)
            self.changed()
            self.sql("UPDATE order_lines SET order_id = %s WHERE order_id = %s", new, old)
        else:
            self.sql("SELECT 1 FROM orders WHERE id = %s FOR UPDATE", old)
            self.sql("UPDATE order_lines SET line_no = line_no + 100 WHERE order_id = %s", old)

    def account(self):
        """Opens an account, or closes one in favour of another."""
        if self.random.random() < 0.5:
            account = self.new_id()
            return self.sql("INSERT INTO accounts VALUES (%s, %s, 0, NULL, clock_timestamp())", account, f"owner {account}")
        closed, other = self.any_of("accounts"), self.any_of("accounts")
        if closed == other:
            raise Changed
        rows = dict(self.sql("SELECT id, balance FROM accounts WHERE id IN (%s, %s) ORDER BY id FOR UPDATE", closed, other).fetchall())
        if len(rows) != 2:
            raise Changed
        self.sql("UPDATE accounts SET balance = balance + %s WHERE id = %s", rows[closed], other)
        self.sql("DELETE FROM accounts WHERE id = %s", closed)

    def take_back(self):
        """What is rolled back."""
        self.order()
        self.sql("DELETE FROM order_lines WHERE order_id = (SELECT max(id) FROM orders)")

    def count(self):
        """Rows that change more than once in a transaction, and one that comes and goes."""
        order = self.new_id()
        self.sql("INSERT INTO orders VALUES (%s, 99, 'counted', NULL, NULL, 'comes and goes', clock_timestamp())", order)
        for warehouse in (1, 2, 3):
            self.sql("UPDATE stock SET on_hand = 0 WHERE warehouse = %s AND product = 'product 7'", warehouse)
            self.sql("UPDATE stock SET on_hand = %s, moved_at = NULL WHERE warehouse = %s AND product = 'product 7'",
                     self.random.randint(1, 999), warehouse)
        self.sql("DELETE FROM orders WHERE id = %s", order)

    def slow(self):
        """A transaction that takes long, while others are committed."""
        self.order()
        self.stop.wait(self.random.uniform(0.5, 3))
        self.account()

    def many(self):
        """Changes many rows at once: they come, change, and go."""
        step, self.large_step = self.large_step % 3, self.large_step + 1
        if step == 0:
            self.sql("DELETE FROM order_lines WHERE order_id = %s", LARGE_ORDER)
            self.sql("INSERT INTO order_lines SELECT %s, n, 'product ' || n %% 70, 1, n / 1000.0 FROM generate_series(1, %s) n",
                     LARGE_ORDER, self.large)
            self.sql("INSERT INTO orders VALUES (%s, 0, 'large', NULL, NULL, NULL, clock_timestamp()) ON CONFLICT DO NOTHING",
                     LARGE_ORDER)
        elif step == 1:
            self.sql("UPDATE order_lines SET quantity = quantity + 1 WHERE order_id = %s", LARGE_ORDER)
        else:
            self.sql("DELETE FROM order_lines WHERE order_id = %s AND line_no %% 10 > 0", LARGE_ORDER)
            self.sql("UPDATE order_lines SET line_no = -line_no WHERE order_id = %s", LARGE_ORDER)


class Changed(Exception):
    """What a transaction wanted to change is gone."""
