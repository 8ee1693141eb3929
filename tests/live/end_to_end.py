"""PostgreSQL under load -> Debezium -> Kafka -> Alluvium -> Delta, while each of them is killed and started again. And without
Debezium and Kafka (`--formats postgres`).

Checked at every snapshot that a run published: the transactions that Silver shows are the first ones in the order of commits;
every Silver table is what exactly these left in PostgreSQL; and at some, that every Gold table is what PostgreSQL makes of the
same SQL. At the end Silver and Gold are PostgreSQL's own tables, and `alluvium verify` agrees. Run by scripts/live_test.
"""
import time

import psycopg

import harness
from oracle import SHOWN, Differs, Oracle, reading
from pipeline import DIRECT, live, of_postgres
from source import TABLES, Client, Source

SERVERS = ("kafka", "connect", "postgres")


def arguments():
    parser = harness.parser("scripts/live_test", __doc__)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--large", type=int, default=10_000, help="rows that a large transaction changes")
    parser.add_argument("--formats", default="json", help="of json, avro and postgres (feeds of that kind), by commas: a dataflow each")
    parser.add_argument("--gold", type=int, default=12, help="snapshots at which Gold is checked")
    parser.add_argument("--control", action="store_true",
                        help="leave `transactions` out of the feeds: snapshots must be found that hold half a transaction")
    return parser.parse_args()


class Test(harness.Test):
    def __init__(self, options):
        super().__init__(options, Source(live.POSTGRES.geturl(), f"live_{int(time.time())}"),
                         ("postgres",) if options.formats == DIRECT else SERVERS)

    def test(self):
        self.say(f"seed {self.options.seed}; everything is in {self.folder} and database {self.source.name}")
        self.source.create()
        self.load()
        self.serve(of_postgres, whole=not self.options.control)
        self.finish()

    def load(self):
        each = self.options.rate / self.options.clients
        for n in range(self.options.clients):
            self.clients.append(Client(self.source, f"{self.options.seed}-{n}", each, self.stop))
        if self.options.large:
            self.clients.append(Client(self.source, f"{self.options.seed}-large", 0.15, self.stop, self.options.large))
        for client in self.clients:
            client.start()

    def look(self):
        super().look()
        try:
            self.source.note_commits()
        except psycopg.OperationalError:
            pass   # it is on its way up

    def finish(self):
        self.end_load()
        self.catch_up(self.source.end())
        self.source.note_commits()
        oracle = Oracle(self.source)
        oracle.check_itself()
        self.say(f"{len(oracle.order)} transactions committed, {sum(map(len, oracle.changes))} changes of rows; the audit equals the tables")
        for pipeline in self.pipelines:
            oracle.restart()
            self.check(pipeline, oracle)

    def check(self, pipeline, oracle):
        lake = pipeline.lake()
        snapshots = lake.snapshots()
        chosen = self.chosen(snapshots)
        gold_at = {chosen[int(n * (len(chosen) - 1) / max(1, self.options.gold - 1))] for n in range(self.options.gold)}
        silver = [f"silver.{table}" for table in TABLES]
        before, exact, sets, first, gold, failed = {}, 0, 0, 0, 0, []
        seen = -1
        for index in chosen:
            epoch, versions, _ = snapshots[index]
            try:
                if any(versions[table] != before.get(table) for table in silver):
                    journal = {t for t, in lake.ask("silver.journal", versions["silver.journal"], "txid")}
                    count = oracle.check_set(journal)
                    if count < seen:
                        raise Differs(f"it shows {count} transactions, one before showed {seen}")
                    moved = count != oracle.at
                    oracle.forward(count)
                    for table in TABLES:
                        if moved or versions[f"silver.{table}"] != before.get(f"silver.{table}") or failed:
                            oracle.check_table(table, lake.ask(f"silver.{table}", versions[f"silver.{table}"], reading(table)))
                    sets += count != seen
                    seen = count
                if seen <= 0:   # nothing is there yet
                    first += 1
                    continue
                if index in gold_at or index == chosen[-1]:
                    oracle.check_gold(lambda name: lake.ask(f"gold.{name}", versions[f"gold.{name}"], "*"))
                    gold += 1
                exact += 1
                before = versions
            except Differs as differs:
                # The tables' first rows come without a transaction: they are whole once all are there.
                if seen <= 0:
                    first += 1
                    before = {}
                    continue
                failed.append(f"snapshot {epoch} ({versions['silver.journal']=}): {differs}")
                before = {}
                if not self.options.control:
                    break
        self.say(f"{pipeline.form}: {exact} of {len(chosen)} checked snapshots ({len(snapshots)} published) are exact, at {sets} sets of "
                 f"transactions; Gold at {gold}; {first} while the first rows were read; started {pipeline.starts} times")
        if self.options.control:
            if before != snapshots[-1][1]:
                raise Differs(f"the newest snapshot differs: {(failed or ['the first rows were never whole; load for longer'])[-1]}")
            if not failed:
                raise Differs("without `transactions` every snapshot was whole: the check shows nothing")
            self.say(f"as it must be, {len(failed)} snapshots hold half a transaction; the first: {failed[0]}")
            return
        if failed:
            given_up = [line for line in self.told(pipeline) if "lack events after the wait" in line]
            raise Differs("\n".join([failed[0], *(f"given up: {line}" for line in given_up[:SHOWN])]))
        if seen != len(oracle.order):
            raise Differs(f"the newest snapshot shows {seen} of {len(oracle.order)} transactions")
        self.check_end(pipeline, lake)


harness.run(Test(arguments()), "scripts/live_test")
