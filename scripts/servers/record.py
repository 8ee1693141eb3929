"""Records what Debezium writes, to test decoders with. Run by scripts/record_payloads.

Each recording sets up fresh tables, starts one connector on them, changes rows once the snapshot is done, and keeps all
records of all of its topics, in the order of topic, partition and offset. Its name is the prefix of its topics:

  <database>_<form>                      every table, transaction metadata, heartbeats, messages, truncation, schema changes,
                                         and pairs_of once more by an incremental snapshot
  <database>_<form>_unwrapped            ExtractNewRecordState, deletes rewritten as rows with __deleted
  <database>_<form>_time_<mode>          the columns of times in each time.precision.mode but the default
  <database>_<form>_decimal_<mode>       the columns of numbers in each decimal.handling.mode but the default (precise)
  <database>_<form>_others               binary, hstore, interval and unsigned columns in another mode than the default
  <database>_json_schemas                JSON with the schema in each message

A line of <database>_<form>.ndjson.gz is one record: topic, partition, offset, timestamp (ms), key and value (base64, or null),
headers (pairs of a name and base64). schemas.json.gz has the Avro schemas by the ids that the Avro payloads name, tables.json
what the tables hold at the end, as the databases print it: what a reader of the changes must come to."""
import base64
import contextlib
import csv
import functools
import gzip
import io
import itertools
import json
import os
import sys
import time

import confluent_kafka

import live
from live import http, mariadb, postgres

out, only = sys.argv[1], sys.argv[2:]
run = str(int(time.time()))

# The tables, then what happens to them once they are snapshot. `ends` tells that all has been seen.

POSTGRES_TABLES = r"""
CREATE EXTENSION IF NOT EXISTS hstore;
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TABLE kinds (
  id int PRIMARY KEY, truth boolean, i2 smallint, i4 integer, i8 bigint, scaled numeric(12, 4), whole numeric(20, 0),
  unscaled numeric, f4 real, f8 double precision, words text, short varchar(20), fixed char(5), bytes bytea, day date,
  clock time, clock_zone timetz, local timestamp, local_ms timestamp(3), instant timestamptz, span interval, uid uuid,
  doc json, docb jsonb, ints int[], texts text[], feeling mood, pairs hstore, host inet, flag bit(1), mask bit varying(9),
  price money, spot point, range int4range);
INSERT INTO kinds VALUES
  (1, true, 12, 34567, 8901234567, 1234.5, 42, 1.50, 1.5, 2.25, 'grün and "quoted"', 'short', 'abc', '\x00ff10', '2024-02-29',
   '13:14:15.123456', '13:14:15.5+02', '2024-02-29 13:14:15.123456', '2024-02-29 13:14:15.123', '2024-02-29 13:14:15.123456+02',
   '1 year 2 months 3 days 04:05:06.7', '123e4567-e89b-12d3-a456-426614174000', '{"a": [1, 2.50, null]}', '{"b": {"c": "d"}}',
   '{1,NULL,3}', '{"x","y, z",NULL}', 'happy', 'k=>v, n=>NULL', '192.168.0.1/24', '1', '101', '12.34', '(1.5,-2)', '[1,10)');
"""
NULLS = "INSERT INTO kinds (id) VALUES (2);\n"
POSTGRES_EXTREMES = r"""
INSERT INTO kinds VALUES
  (3, false, -32768, -2147483648, -9223372036854775808, -99999999.9999, 99999999999999999999,
   -123456789012345678901234567890.123456789, 'NaN', 'Infinity', '', '', '', '', '0001-01-01', '00:00:00', '23:59:59.999999-11',
   '1969-12-31 23:59:59.999999', '0001-01-01 00:00:00', '9999-12-31 23:59:59.999999+00', '-1 days -00:00:00.000001',
   '00000000-0000-0000-0000-000000000000', 'null', '[]', '{}', '{}', 'sad', '', '::1', '0', '', '-0.01', '(0,0)', 'empty');
"""
POSTGRES_KINDS_CHANGES = r"""
INSERT INTO kinds SELECT 4, truth, i2, i4, i8, scaled, whole, unscaled, f4, f8, words, short, fixed, bytes, day, clock,
  clock_zone, local, local_ms, instant, span, uid, doc, docb, ints, texts, feeling, pairs, host, flag, mask, price, spot, range
  FROM kinds WHERE id = 1;
"""
ORDERS_TABLES = r"""
CREATE TABLE orders (id int PRIMARY KEY, customer varchar(20), amount numeric(10, 2), placed timestamp);
INSERT INTO orders VALUES (1, 'ann', 10.50, '2024-01-01 10:00:00'), (2, 'bob', 20, '2024-01-02 11:30:00.5'), (3, NULL, NULL, NULL);
CREATE TABLE keyless (a int, b varchar(20));
INSERT INTO keyless VALUES (1, 'one');
CREATE TABLE pairs_of (a int, b varchar(20), c int, PRIMARY KEY (a, b));
INSERT INTO pairs_of VALUES (1, 'x', 10);
CREATE TABLE gone (id int PRIMARY KEY, t varchar(20));
INSERT INTO gone VALUES (1, 'one'), (2, 'two');
CREATE TABLE ends (id int PRIMARY KEY);
CREATE TABLE signals (id varchar(42) PRIMARY KEY, type varchar(32), data varchar(2048));
"""
ORDERS_CHANGES = r"""
BEGIN;
INSERT INTO orders VALUES (4, 'eve', 0.01, '1999-12-31 23:59:59');
UPDATE orders SET amount = 11 WHERE id = 1;
COMMIT;
UPDATE orders SET id = 20 WHERE id = 2;
DELETE FROM orders WHERE id = 3;
INSERT INTO keyless VALUES (1, 'one');
UPDATE keyless SET b = 'two' WHERE a = 1;
DELETE FROM keyless WHERE a = 1;
INSERT INTO keyless VALUES (2, 'last');
UPDATE pairs_of SET c = 11 WHERE a = 1;
UPDATE pairs_of SET b = 'y' WHERE a = 1;
ALTER TABLE orders ADD COLUMN note varchar(20) DEFAULT 'none';
INSERT INTO orders VALUES (5, 'joe', 5, '2024-05-05 05:05:05', 'noted');
UPDATE orders SET amount = 12 WHERE id = 1;
DELETE FROM orders WHERE id = 4;
INSERT INTO orders VALUES (4, 'eve again', 4, NULL, NULL);
"""
POSTGRES_DOCUMENTS = r"""
CREATE TABLE documents (id int PRIMARY KEY, version int, body text);
ALTER TABLE documents ALTER body SET STORAGE EXTERNAL;
INSERT INTO documents VALUES (1, 1, repeat('0123456789', 1000));
"""
POSTGRES_DOCUMENTS_CHANGES = "UPDATE documents SET version = 2 WHERE id = 1;\n"
# Values that are beyond what many others can hold; Debezium garbles some of them.
POSTGRES_LIMITS = r"""
CREATE TABLE limits (id int PRIMARY KEY, amount numeric, scaled numeric(10, 2), day date, local timestamp, instant timestamptz, ratio real);
INSERT INTO limits VALUES (1, 'NaN', 'NaN', 'infinity', 'infinity', 'infinity', '-Infinity');
"""
POSTGRES_LIMITS_CHANGES = r"""
INSERT INTO limits VALUES (2, '-Infinity', 0, '-infinity', '-infinity', '-infinity', 'NaN'),
  (3, 1e-3, 1, '0044-03-15 BC', '294276-12-31 23:59:59', '294276-12-31 23:59:59Z', 1e-40);
"""
POSTGRES_ORDERS_CHANGES = r"""
TRUNCATE gone;
SELECT pg_logical_emit_message(true, 'in-transaction', 'a message');
SELECT pg_logical_emit_message(false, 'outside', '\x00ff'::bytea);
"""
POSTGRES_IDENTITY = "ALTER TABLE orders REPLICA IDENTITY FULL;\nALTER TABLE keyless REPLICA IDENTITY FULL;\n"
ENDS = "INSERT INTO ends VALUES (1);\n"
SNAPSHOT_AGAIN = "INSERT INTO signals VALUES ('again', 'execute-snapshot'," \
    " '{{\"type\": \"incremental\", \"data-collections\": [\"{}.pairs_of\"]}}');\n"

MARIADB_TABLES = r"""
CREATE TABLE kinds (
  id int PRIMARY KEY, truth boolean, i1 tinyint, u1 tinyint unsigned, i2 smallint, u2 smallint unsigned, i3 mediumint, i4 int,
  u4 int unsigned, i8 bigint, u8 bigint unsigned, scaled decimal(12, 4), whole decimal(20, 0), f4 float, f8 double,
  words text, short varchar(20), fixed char(5), bytes blob, fixed_bytes binary(4), short_bytes varbinary(8), day date,
  clock time, clock_us time(6), local datetime, local_ms datetime(3), local_us datetime(6), instant timestamp(6) NULL, yr year,
  feeling enum('sad', 'ok', 'happy'), several set('a', 'b', 'c'), doc json, flag bit(1), mask bit(9), uid uuid);
INSERT INTO kinds VALUES
  (1, true, 12, 200, 3456, 50000, 1234567, 34567, 4000000000, 8901234567, 18000000000000000000, 1234.5, 42, 1.5, 2.25,
   'grün and "quoted"', 'short', 'abc', x'00ff10', x'01020304', x'0a', '2024-02-29', '13:14:15', '13:14:15.123456',
   '2024-02-29 13:14:15', '2024-02-29 13:14:15.123', '2024-02-29 13:14:15.123456', '2024-02-29 13:14:15.123456', 2024, 'happy',
   'a,c', '{"a": [1, 2.50, null]}', b'1', b'101', '123e4567-e89b-12d3-a456-426614174000');
"""
MARIADB_EXTREMES = r"""
INSERT INTO kinds VALUES
  (3, false, -128, 0, -32768, 0, -8388608, -2147483648, 0, -9223372036854775808, 0, -99999999.9999, 99999999999999999999,
   -3.4e38, 1.7e308, '', '', '', '', '', '', '1000-01-01', '-838:59:59', '-00:00:00.000001', '1000-01-01 00:00:00',
   '9999-12-31 23:59:59.999', '9999-12-31 23:59:59.999999', '1970-01-01 00:00:01', 1901, 'sad', '', 'null', b'0', b'111111111',
   '00000000-0000-0000-0000-000000000000');
"""
MARIADB_KINDS_CHANGES = "CREATE TEMPORARY TABLE copy SELECT * FROM kinds WHERE id = 1; UPDATE copy SET id = 4;\n" \
    "INSERT INTO kinds SELECT * FROM copy; DROP TEMPORARY TABLE copy;\n"
MARIADB_ORDERS_CHANGES = "TRUNCATE TABLE gone;\n"

POSTGRES_ONLY = ("documents", "limits")
ALL = ("kinds", "orders", "keyless", "pairs_of", "gone", "ends", "signals", *POSTGRES_ONLY)
KINDS = ("kinds", "ends", "limits")
TIMES = {"postgres": "day clock clock_zone local local_ms instant", "mariadb": "day clock clock_us local local_ms local_us instant yr"}
NUMBERS = {"postgres": "scaled whole unscaled price", "mariadb": "scaled whole"}
OTHERS = {"postgres": "bytes span pairs mask", "mariadb": "u8 bytes fixed_bytes short_bytes mask"}
WITH_SCHEMAS = {"postgres": "scaled unscaled day instant", "mariadb": "scaled u8 local instant"}
SCHEMA = {"postgres": "public", "mariadb": "alluvium"}

UNWRAP = {
    "transforms": "unwrap", "transforms.unwrap.type": "io.debezium.transforms.ExtractNewRecordState",
    "transforms.unwrap.delete.tombstone.handling.mode": "rewrite", "transforms.unwrap.add.fields": "op,table,source.ts_ms",
    "predicates": "rows", "predicates.rows.type": "org.apache.kafka.connect.transforms.predicates.TopicNameMatches",
    "predicates.rows.pattern": r".*\.(public|alluvium)\..*", "transforms.unwrap.predicate": "rows"}
EVERYTHING = {"provide.transaction.metadata": "true", "heartbeat.interval.ms": "500", "skipped.operations": "none"}
FORMS = {"json": live.json_converters(), "avro": live.avro_converters()}
NO_CONTEXT = {"extended.headers.enabled": "false"}   # the headers __debezium.context.*, which the first recordings have


def recordings():
    """Name, database, form, tables, settings."""
    for database in ("postgres", "mariadb"):
        def of_kinds(name, form, columns, **settings):
            listed = [f"{SCHEMA[database]}.kinds.{c}" for c in ("id", *columns[database].split())]
            listed += [f"{SCHEMA[database]}.ends.id", f"{SCHEMA[database]}.limits.*"]
            return f"{database}_{form}_{name}", database, form, KINDS, {"column.include.list": ",".join(listed)} | NO_CONTEXT | settings

        for form, converters in FORMS.items():
            everything = EVERYTHING | {"signal.data.collection": f"{SCHEMA[database]}.signals"} | ({} if form == "json" else NO_CONTEXT)
            yield f"{database}_{form}", database, form, ALL, converters | everything
            yield (f"{database}_{form}_unwrapped", database, form, ("orders", "documents", "keyless", "ends"),
                   converters | UNWRAP | NO_CONTEXT)
            times = ("connect", "isostring", "microseconds", "nanoseconds")
            for mode in (("adaptive_time_microseconds",) if database == "postgres" else ()) + times:
                yield of_kinds(f"time_{mode}", form, TIMES, **converters, **{"time.precision.mode": mode})
            for mode in ("double", "string"):
                yield of_kinds(f"decimal_{mode}", form, NUMBERS, **converters, **{"decimal.handling.mode": mode})
            others = {"hstore.handling.mode": "map", "interval.handling.mode": "string"} if database == "postgres" \
                else {"bigint.unsigned.handling.mode": "precise"}
            yield of_kinds("others", form, OTHERS, **converters, **others, **{"binary.handling.mode": "base64"})
        yield of_kinds("schemas", "json", WITH_SCHEMAS, **live.json_converters(schemas=True))


def drop():
    postgres("DROP TABLE IF EXISTS {}; DROP TYPE IF EXISTS mood".format(", ".join(ALL)))
    mariadb("DROP TABLE IF EXISTS {}".format(", ".join(ALL)))


def record(name, database, form, tables, settings):
    """The records of one recording; those of `kinds` alone are without its row of nulls and without other topics."""
    drop()
    of_kinds = tables == KINDS
    nulls = "" if of_kinds else NULLS
    if database == "postgres":
        sql, connect = postgres, live.postgres_connector
        before = POSTGRES_TABLES + nulls + POSTGRES_EXTREMES + ORDERS_TABLES + POSTGRES_DOCUMENTS + POSTGRES_LIMITS
        before += POSTGRES_IDENTITY
        after = POSTGRES_KINDS_CHANGES + ORDERS_CHANGES + POSTGRES_DOCUMENTS_CHANGES + POSTGRES_LIMITS_CHANGES
        after += POSTGRES_ORDERS_CHANGES
    else:
        sql, connect = mariadb, functools.partial(live.mariadb_connector, server_id=7000)
        before = MARIADB_TABLES + nulls + MARIADB_EXTREMES + ORDERS_TABLES
        after = MARIADB_KINDS_CHANGES + ORDERS_CHANGES + MARIADB_ORDERS_CHANGES
        tables = [table for table in tables if table not in POSTGRES_ONLY]
    sql(before)
    # Connect remembers connectors by name, so each is a new one.
    with live.connector(f"{name}_{run}", connect(name, [f"{SCHEMA[database]}.{t}" for t in tables], **settings)):
        live.until_snapshot_kept(f"{name}_{run}")
        sql(after)
        if tables[0] == "kinds" and not of_kinds:
            sql(SNAPSHOT_AGAIN.format(SCHEMA[database]))
            live.read(f"{name}.{SCHEMA[database]}.pairs_of", lambda records: len(records) > 5)
        sql(ENDS)
        live.read(f"{name}.{SCHEMA[database]}.ends", lambda records: records)
        time.sleep(1.5)   # what other topics still get, such as the end of the transaction
        records = [r for r in read_all(name) if not of_kinds or r.topic().endswith((".kinds", ".limits"))]
        if form == "avro":
            for payload in (payload for r in records for payload in (r.key(), r.value()) if payload is not None):
                live.schema_of(payload)
    print(f"{name}: {len(records)} records", flush=True)
    return records


def read_all(prefix):
    """Every record of the connector's topics but its private history of schemas; of heartbeats the first two."""
    records = []
    consumer = confluent_kafka.Consumer({"bootstrap.servers": live.KAFKA, "group.id": "record", "enable.auto.commit": False})
    topics = sorted(t for t in consumer.list_topics(timeout=30).topics
                    if t in (prefix, f"__debezium-heartbeat.{prefix}") or t.startswith(f"{prefix}.") and not t.endswith(".history"))
    consumer.close()
    for topic in topics:
        found = live.read(topic, lambda so_far, t=topic: complete(t, so_far))
        records += found[:2] if topic.startswith("__debezium-heartbeat") else found
    return records


def complete(topic, records):
    consumer = confluent_kafka.Consumer({"bootstrap.servers": live.KAFKA, "group.id": "record", "enable.auto.commit": False})
    end = consumer.get_watermark_offsets(confluent_kafka.TopicPartition(topic, 0), timeout=10)[1]
    consumer.close()
    return end == 0 or records and records[-1].offset() >= min(end - 1, 1 if "heartbeat" in topic else end)


def line_of(r):
    def text(payload):
        return None if payload is None else base64.b64encode(payload).decode()

    return {"topic": r.topic(), "partition": r.partition(), "offset": r.offset(), "timestamp": r.timestamp()[1],
            "key": text(r.key()), "value": text(r.value()), "headers": [[name, text(value)] for name, value in r.headers() or []]}


def content(database, table):
    """Columns and rows of a table, values as the database prints them."""
    if database == "postgres":
        printed = postgres(f"COPY (SELECT * FROM {table} ORDER BY 1) TO STDOUT WITH (FORMAT csv, HEADER, NULL '\\N', FORCE_QUOTE *)")
        rows = list(csv.reader(io.StringIO(printed)))
        return {"columns": rows[0], "rows": [[None if v == "\\N" else v for v in row] for row in rows[1:]]}
    columns = mariadb(f"SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = 'alluvium'"
                      f" AND table_name = '{table}' ORDER BY ordinal_position").split()
    columns = list(zip(columns[::2], columns[1::2]))

    def printed(name, kind):
        value = f"HEX({name})" if kind in ("blob", "binary", "varbinary") else f"BIN({name})" if kind == "bit" else f"CAST({name} AS char)"
        return f"'{name}', {value}"

    rows = mariadb(f"SELECT JSON_OBJECT({', '.join(printed(*c) for c in columns)}) FROM {table} ORDER BY 1").splitlines()
    rows = [json.loads(row) for row in rows]
    return {"columns": [name for name, _ in columns], "rows": [[row[name] for name, _ in columns] for row in rows]}


@contextlib.contextmanager
def compressed(name):
    """A file whose bytes depend on its content alone."""
    with open(os.path.join(out, f"{name}.gz"), "wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed, \
            io.TextIOWrapper(packed, "utf-8") as text:
        yield text


os.makedirs(out, exist_ok=True)
contents = {}
for database, form in itertools.product(("postgres", "mariadb"), FORMS):
    with compressed(f"{database}_{form}.ndjson") as file:
        for name, *recording in recordings():
            if recording[:2] == [database, form] and (not only or name in only):
                for r in record(name, *recording):
                    file.write(json.dumps(line_of(r), separators=(",", ":")) + "\n")
                if name == f"{database}_{form}":
                    contents[database] = {
                        t: content(database, t) for t in ALL if t != "signals" and (t not in POSTGRES_ONLY or database == "postgres")}
drop()
with compressed("schemas.json") as file:
    lines = [f'"{number}": {json.dumps(json.loads(text), separators=(",", ":"))}' for number, text in sorted(live.schemas.items())]
    file.write("{\n" + ",\n".join(lines) + "\n}\n")
with open(os.path.join(out, "tables.json"), "w") as file:
    json.dump(contents, file, separators=(",", ":"), ensure_ascii=False)
    file.write("\n")
