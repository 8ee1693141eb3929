"""How long a change takes from its commit in PostgreSQL to a snapshot of the lake. Run by `scripts/live_test latency`.

Clients commit transactions of ten changes at a steady pace, in five tables; Gold joins and sums them. Told apart:

- from the commit in PostgreSQL (the time in its WAL, to the microsecond, as logical decoding tells it),
- from the Kafka record's timestamp (that of Connect's producer, milliseconds),
- from the arrival in Alluvium (its own histograms, `run --latency`),

until the epoch was closed in the graph (Alluvium's own), and until the snapshot was committed: the last of its tables' log entries,
by the time of its file, of the first snapshot whose `silver.journal` has the transaction. A latency counts for each transaction,
which all have ten changes; Alluvium's own count records.
"""
import argparse
import contextlib
import json
import os
import pathlib
import shutil
import statistics
import sys
import tempfile
import threading
import time
import traceback

import psycopg
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

from pipeline import DIRECT, live, of_postgres
from source import TABLES, Source

CHANGES = 10   # of a transaction of `WORK`
WORK = """
CREATE FUNCTION work(n bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    one bigint := 1 + n % 200;
    two bigint := 1 + (n + 77) % 200;
BEGIN
    INSERT INTO orders VALUES (1000000 + n, n % 40, 'new', n % 2 = 0, n * 0.5, NULL, clock_timestamp());
    INSERT INTO order_lines SELECT 1000000 + n, l, 'product ' || (n * l) % 50, l, n % 100 / 7.0 FROM generate_series(1, 3) l;
    UPDATE orders SET status = 'sent' WHERE id = CASE WHEN n < 1000 THEN 1 + n % 300 ELSE 1000000 + n - 500 END;
    UPDATE accounts SET balance = balance - n % 100 WHERE id = least(one, two);
    UPDATE accounts SET balance = balance + n % 100 WHERE id = greatest(one, two);
    UPDATE stock SET on_hand = on_hand - 1, moved_at = clock_timestamp() WHERE warehouse = 1 AND product = 'product ' || least(n % 50, (n + 17) % 50);
    UPDATE stock SET on_hand = on_hand - 1, moved_at = clock_timestamp() WHERE warehouse = 2 AND product = 'product ' || greatest(n % 50, (n + 17) % 50);
    INSERT INTO journal (kind) VALUES ('work');
END $$;
"""


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/live_test latency", description=__doc__.splitlines()[0])
    parser.add_argument("--rates", default="580,5800", help="changes a second, several by commas")
    parser.add_argument("--seconds", type=float, default=45, help="what is measured")
    parser.add_argument("--warm-up", type=float, default=15)
    parser.add_argument("--commit", default="25ms")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--durability", default="full", choices=("full", "none"), help="whether a commit is synced to the disk")
    parser.add_argument("--format", default="json", choices=("json", "avro", DIRECT), help=f"{DIRECT}: without Debezium and Kafka")
    parser.add_argument("--without-transactions", action="store_true", help="leave `transactions` out of the feeds")
    parser.add_argument("--keep", action="store_true")
    return parser.parse_args()


def steady(source, rate, seconds, clients=4):
    """Commits at a steady pace; answers how many transactions, and by how much the last one was late."""
    count, started, late = int(rate * seconds), time.time() + 0.5, [0.0] * clients

    def serve(client):
        with psycopg.connect(source.url, autocommit=True) as connection:
            for n in range(client, count, clients):
                due = started + n / rate
                late[client] = time.time() - due
                if late[client] < 0:
                    time.sleep(-late[client])
                connection.execute("SELECT work(%s)", (n,), prepare=True)

    threads = [threading.Thread(target=serve, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return count, max(late)


def commit_times(source):
    """By transaction, when it was committed, Unix seconds."""
    with psycopg.connect(source.url, autocommit=True) as connection:
        return dict(connection.execute(
            "SELECT xid::text::bigint, extract(epoch FROM substring(data FROM '\\(at (.*)\\)')::timestamptz)::float8 "
            "FROM pg_logical_slot_get_changes(%s, NULL, NULL, 'skip-empty-xacts', '1', 'include-timestamp', '1') "
            "WHERE data LIKE 'COMMIT%%'", (source.order_slot,)).fetchall())


def record_times(pipeline, wanted, decode):
    """By transaction, the timestamp of its journal row's record, Unix seconds."""
    topic, found = f"{pipeline.name}.public.journal", {}
    for record in live.read(topic, lambda records: len(records) >= wanted):
        if record.value() is not None:
            found[decode(record.value())["after"]["txid"]] = record.timestamp()[1] / 1000
    return found


def snapshot_times(pipeline):
    """By transaction, when all of the first snapshot that has it could be read, Unix seconds."""
    lake = pipeline.lake()

    def log(table, version):
        return lake.folder / table.replace(".", "/") / "_delta_log" / f"{version:020}.json"

    added = {}   # by version, the files that came with rows
    for path in (lake.folder / "silver" / "journal" / "_delta_log").glob("*.json"):
        actions = [json.loads(line) for line in path.read_text().splitlines()]
        added[int(path.stem)] = [str(lake.folder / "silver" / "journal" / a["add"]["path"])
                                 for a in actions if a.get("add", {}).get("dataChange")]
    files = [file for files in added.values() for file in files]
    rows = {}
    for at in range(0, len(files), 500):
        for file, txid in lake.connection.execute("SELECT filename, txid FROM read_parquet(?, filename = true)",
                                                  [files[at:at + 500]]).fetchall():
            rows.setdefault(file, []).append(txid)
    found, before = {}, {}
    for _, versions, _ in lake.snapshots():
        new = range(before.get("silver.journal", -1) + 1, versions["silver.journal"] + 1)
        txids = [txid for version in new for file in added.get(version, ()) for txid in rows.get(file, ())]
        if txids:
            written = max(log(table, version).stat().st_mtime for table, version in versions.items()
                          if before.get(table) != version and not table.startswith("state."))
            for txid in txids:
                found.setdefault(txid, written)
        before = versions
    return found


def own_times(pipeline, since):
    """Alluvium's histograms from a time on, over all inputs, by stage."""
    stages = {}
    reader = HistogramLogReader(str(pipeline.folder / "latency" / "latency.hlog"), HdrHistogram(1, 24 * 3600 * 1_000_000, 3))
    base = None
    for line in open(pipeline.folder / "latency" / "latency.hlog"):
        if line.startswith("#[StartTime:"):
            base = float(line.split()[1])
    while (interval := reader.get_next_interval_histogram()) is not None:
        begin = interval.get_start_time_stamp() / 1000
        begin = begin if begin > 1e9 else begin + base
        name, stage = interval.get_tag().rsplit(".", 1)
        if name in TABLES and begin >= since:
            stages.setdefault(stage, HdrHistogram(1, 24 * 3600 * 1_000_000, 3)).add(interval)
    return {stage: ([h.get_value_at_percentile(p) / 1000 for p in (50, 99, 99.9)] + [h.get_max_value() / 1000], h.get_total_count())
            for stage, h in stages.items()}


def figures(seconds):
    values = sorted(1000 * s for s in seconds)
    return [values[min(len(values) - 1, int(len(values) * p))] for p in (0.5, 0.99, 0.999)] + [values[-1]]


def processor_seconds():
    """Of each server with its children, and of this process."""
    def of(pid):
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    state = pathlib.Path(os.environ["ALLUVIUM_SERVICES_STATE"])
    used = {"writer": time.process_time()}
    for name in ("postgres", "kafka", "connect"):
        pid = (state / name / "pid").read_text().split()[0]
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        with contextlib.suppress(FileNotFoundError):
            used[name] = of(pid) + sum(of(child) for child in children)
    return used, of


def measure(options, rate):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="alluvium-live-"))
    source = Source(live.POSTGRES.geturl(), f"latency_{int(time.time())}")
    source.create()
    with psycopg.connect(source.url) as connection:
        connection.execute(WORK)
        for table in TABLES:
            connection.execute(f"DROP TRIGGER audit ON {table}")
    pipeline = of_postgres(source, options.format, folder, workers=options.workers, commit=options.commit,
                           whole=not options.without_transactions, latency=True, durability=options.durability)
    try:
        pipeline.start_connector()
        pipeline.start()
        pipeline.until_first_rows()
        began = time.time()
        before, of = processor_seconds()
        own = of(pipeline.run.pid)
        count, late = steady(source, rate / CHANGES, options.warm_up + options.seconds)
        took = time.time() - began
        used = {name: (seconds - before[name]) / took for name, seconds in processor_seconds()[0].items()}
        used["alluvium"] = (of(pipeline.run.pid) - own) / took
        last = source.end()
        pipeline.until_committed(last, 300)
        caught_up = time.time() - began - took
        pipeline.stop()
        report(options, rate, pipeline, source, began, count, late, used, caught_up)
    except BaseException:
        traceback.print_exc()
        print(f"everything is kept: {folder}, database {source.name}", file=sys.stderr)
        if pipeline.run and pipeline.run.poll() is None:
            pipeline.run.kill()
        sys.stderr.flush()
        os._exit(1)
    if not options.keep:
        pipeline.drop()
        source.drop()
        shutil.rmtree(folder)


def report(options, rate, pipeline, source, began, count, late, used, caught_up):
    commits = commit_times(source)
    snapshots = snapshot_times(pipeline)
    if options.format == DIRECT:
        told, way, who = snapshots, "PostgreSQL to the lake", "Alluvium"
    else:
        told = record_times(pipeline, count, live.decode_avro if options.format == "avro" else json.loads)
        way, who = "PostgreSQL to Kafka", "Debezium and Kafka"
    measured = sorted((at, txid) for txid, at in commits.items() if at >= began + options.warm_up and txid in told)
    lost = [txid for _, txid in measured if txid not in snapshots]
    if lost:
        raise live.Failed(f"{len(lost)} transactions are in no snapshot, such as {lost[:3]}")
    lasted = measured[-1][0] - measured[0][0]
    print(f"\n{rate:,.0f} changes/s in transactions of {CHANGES}, {options.format}, commit every {options.commit}"
          f"{'' if options.durability == 'full' else ', not synced'}, {options.workers} workers, "
          f"{'without' if options.without_transactions else 'with'} transactions kept whole; {len(measured):,} transactions "
          f"in {lasted:.0f} s, after {options.warm_up:.0f} s")
    print(f"written: {len(measured) * CHANGES / lasted:,.0f} changes/s (the writer was {max(0, late):.2f} s late at its end); "
          f"caught up {caught_up:.1f} s after it")
    print("cores used: " + ", ".join(f"{name} {value:.2f}" for name, value in sorted(used.items())))
    quarter = len(measured) // 4
    first, final = (statistics.median(told[txid] - at for at, txid in part) for part in (measured[:quarter], measured[-quarter:]))
    keeps_up = final < first + 0.25
    print(f"{way}: median {1000 * first:.0f} ms in the first quarter, {1000 * final:.0f} ms in the last: "
          f"{who} {'kept up' if keeps_up else 'did NOT keep up on this machine, and what is from the commit tells of them'}")
    rows = [("commit to committed", [snapshots[txid] - at for at, txid in measured])]
    if told is not snapshots:
        rows += [("commit to Kafka's timestamp", [told[txid] - at for at, txid in measured]),
                 ("Kafka's timestamp to committed", [snapshots[txid] - told[txid] for _, txid in measured])]
    print(f"{'ms':34}{'p50':>9}{'p99':>9}{'p99.9':>9}{'max':>9}{'of':>10}")
    for name, seconds in rows:
        print(f"{name:34}" + "".join(f"{f:9.1f}" for f in figures(seconds)) + f"{len(seconds):10}")
    for stage, (values, of) in sorted(own_times(pipeline, began + options.warm_up).items()):
        print(f"{'Alluvium: ' + stage:34}" + "".join(f"{f:9.1f}" for f in values) + f"{of:10}")


for rate in arguments().rates.split(","):
    measure(arguments(), float(rate))
