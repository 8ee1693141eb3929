"""PostgreSQL under load -> Debezium -> Kafka -> Alluvium -> Delta, while each of them is killed and started again. And without
Debezium and Kafka (`--formats postgres`).

Checked at every snapshot that a run published: the transactions that Silver shows are the first ones in the order of commits;
every Silver table is what exactly these left in PostgreSQL; and at some, that every Gold table is what PostgreSQL makes of the
same SQL. At the end Silver and Gold are PostgreSQL's own tables, and `alluvium verify` agrees. Run by scripts/live_test.
"""
import argparse
import collections
import os
import pathlib
import random
import shutil
import sys
import tempfile
import threading
import time
import traceback

import psycopg

from oracle import SHOWN, Differs, Oracle, reading
from pipeline import DIRECT, Pipeline, live
from source import TABLES, Client, Source

SERVERS = ("kafka", "connect", "postgres")


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/live_test", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--minutes", type=float, default=1, help="how long the load lasts")
    parser.add_argument("--rate", type=float, default=40, help="transactions a second, of all clients")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--large", type=int, default=10_000, help="rows that a large transaction changes")
    parser.add_argument("--kills", type=float, default=6, help="faults a minute")
    parser.add_argument("--formats", default="json", help="of json, avro and postgres (feeds of that kind), by commas: a dataflow each")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--commit", default="100ms")
    parser.add_argument("--snapshots", type=int, default=2000, help="check at most so many, spread evenly; 0: all")
    parser.add_argument("--gold", type=int, default=12, help="snapshots at which Gold is checked")
    parser.add_argument("--keep", action="store_true", help="leave everything there")
    parser.add_argument("--control", action="store_true",
                        help="leave `transactions` out of the feeds: snapshots must be found that hold half a transaction")
    return parser.parse_args()


class Task(threading.Thread):
    """Something done beside the rest; `failure` is why it was not."""

    def __init__(self, function, *values):
        super().__init__(daemon=True)
        self.function, self.values, self.failure = function, values, None
        self.start()

    def run(self):
        try:
            self.function(*self.values)
        except Exception as error:
            self.failure = error


class Test:
    def __init__(self, options):
        self.options = options
        self.random = random.Random(options.seed)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="alluvium-live-"))
        self.source = Source(live.POSTGRES.geturl(), f"live_{int(time.time())}")
        self.pipelines = []
        self.stop = threading.Event()
        self.clients = []
        self.faults = collections.Counter()
        self.started = time.time()
        self.servers = ("postgres",) if options.formats == DIRECT else SERVERS

    def say(self, text):
        print(f"{time.time() - self.started:6.1f} s  {text}", flush=True)

    def run(self):
        self.say(f"seed {self.options.seed}; everything is in {self.folder} and database {self.source.name}")
        self.source.create()
        self.load()
        for form in self.options.formats.split(","):
            folder = self.folder / form
            folder.mkdir()
            pipeline = Pipeline(self.source, form, folder, workers=self.options.workers, commit=self.options.commit,
                                whole=not self.options.control)
            self.pipelines.append(pipeline)
            pipeline.start_connector()
            pipeline.start()
        for pipeline in self.pipelines:
            pipeline.until_first_rows()
        self.say("the tables' first rows are read, and their load goes on")
        self.disturb(time.time() + 60 * self.options.minutes)
        self.finish()

    def load(self):
        each = self.options.rate / self.options.clients
        for n in range(self.options.clients):
            self.clients.append(Client(self.source, f"{self.options.seed}-{n}", each, self.stop))
        if self.options.large:
            self.clients.append(Client(self.source, f"{self.options.seed}-large", 0.15, self.stop, self.options.large))
        for client in self.clients:
            client.start()

    def disturb(self, until):
        """Kills something now and then, and starts it again; each kind once before any comes twice, and each at least once."""
        pause = 60 / self.options.kills if self.options.kills else float("inf")
        fault_at = time.time() + pause * self.random.uniform(0.3, 0.7)
        turn, fault = [], None
        while time.time() < until or (fault and fault.is_alive()) or (self.options.kills and len(self.faults) < 1 + len(self.servers)):
            for pipeline in self.pipelines:
                pipeline.check_running()
            for client in self.clients:
                if client.failure:
                    raise live.Failed(f"a client failed: {client.failure!r}")
            self.note_commits()
            if fault and not fault.is_alive():
                if fault.failure:
                    raise fault.failure
                fault, fault_at = None, time.time() + pause * self.random.uniform(0.3, 1)
            if not fault and time.time() > fault_at:
                if not turn:
                    turn = ["alluvium", *self.servers]
                    self.random.shuffle(turn)
                fault = Task(self.fault, turn.pop())
            time.sleep(0.2)

    def note_commits(self):
        try:
            self.source.note_commits()
        except psycopg.OperationalError:
            pass   # it is on its way up

    def fault(self, what):
        self.faults[what] += 1
        down = self.random.choice((0, 0, 1, 3))
        if what == "alluvium":
            self.say("killing Alluvium")
            for pipeline in self.pipelines:
                pipeline.restart(down)
            return
        softly = what == "postgres" and self.random.random() < 0.5
        self.say(f"{'restarting' if softly else 'killing'} {what}" + (f", gone for {down} s" if down else ""))
        live.services(*(("stop",) if softly else ("kill",)), what)
        time.sleep(down)
        live.services("start", what)
        if what == "connect" and self.random.random() < 0.3:
            self.fault("alluvium")   # while Debezium tells again what it told

    def finish(self):
        self.stop.set()
        for client in self.clients:
            client.join(60)
        last = self.source.end()
        done = sum((collections.Counter(client.done) for client in self.clients), collections.Counter())
        self.say(f"load ended: {dict(done)}; connections lost: {sum(client.lost for client in self.clients)}")
        for pipeline in self.pipelines:
            pipeline.until_running()
            pipeline.until_committed(last, 180)
            self.say(f"{pipeline.form}: caught up")
            pipeline.stop()
            self.say(f"{pipeline.form}: stopped")
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
        chosen = range(len(snapshots))
        if 0 < self.options.snapshots < len(snapshots):
            step = len(snapshots) / self.options.snapshots
            chosen = sorted({int(n * step) for n in range(self.options.snapshots)} | {len(snapshots) - 1})
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
                raise Differs(f"the newest snapshot differs: {failed[-1]}")
            if not failed:
                raise Differs("without `transactions` every snapshot was whole: the check shows nothing")
            self.say(f"as it must be, {len(failed)} snapshots hold half a transaction; the first: {failed[0]}")
            return
        told = [line for n in range(1, pipeline.starts + 1)
                for line in (pipeline.folder / f"run-{n}.log").read_text(errors="replace").splitlines()]
        if failed:
            given_up = [line for line in told if "lack events after the wait" in line]
            raise Differs("\n".join([failed[0], *(f"given up: {line}" for line in given_up[:SHOWN])]))
        if corrected := [line for line in told if "rows corrected" in line]:
            raise Differs(f"a restart found tables other than they must be: {corrected[0]}")
        if seen != len(oracle.order):
            raise Differs(f"the newest snapshot shows {seen} of {len(oracle.order)} transactions")
        if letters := lake.ask("dead_letters", None, "*"):
            raise Differs(f"there are {len(letters)} dead letters, such as {letters[0]}")
        verified = pipeline.alluvium("verify").strip().splitlines()
        self.say(f"{pipeline.form}: verify finds {sum('equal' in line for line in verified)} tables equal; no restart corrected a row; "
                 "no dead letters")


def main():
    options = arguments()
    test = Test(options)
    try:
        test.run()
    except BaseException as error:
        if isinstance(error, (live.Failed, Differs)):
            print(f"FAILED: {error}", file=sys.stderr)
        else:
            traceback.print_exc()
        print(f"everything is kept: {test.folder}, database {test.source.name}, connectors and topics "
              f"{', '.join(pipeline.name for pipeline in test.pipelines)}; again: scripts/live_test --seed {options.seed}", file=sys.stderr)
        for pipeline in test.pipelines:
            if pipeline.run and pipeline.run.poll() is None:
                pipeline.run.kill()
        sys.stderr.flush()
        os._exit(1)
    if options.keep:
        return
    for pipeline in test.pipelines:
        pipeline.drop()
    test.source.drop()
    shutil.rmtree(test.folder)


main()
