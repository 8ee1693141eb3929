"""From the source's database to a lake: a connector, its topics, and a run of Alluvium, or that alone. And the servers' faults."""
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts" / "servers"))
import live

from lake import Lake
from source import TABLES

HERE = pathlib.Path(__file__).parent
ALLUVIUM = os.environ["ALLUVIUM_BIN"]
MANY = "accounts|orders|order_lines"   # tables whose topics have several partitions
DIRECT = "postgres"   # the form without Debezium and Kafka: feeds of kind `postgres`


class Pipeline:
    """A run of the dataflow in `folder`, and the connector that feeds it (none: it reads the database itself, by the slot of its name)."""

    def __init__(self, name, form, folder, connector, *, workers=2, commit="100ms", latency=False, durability="full"):
        self.name, self.form, self.folder, self.connector, self.workers, self.latency = name, form, folder, connector, workers, latency
        self.dataflow, self.lake_folder = folder / "dataflow", folder / "lake"
        self.run = None
        self.starts = 0
        self.restarting = threading.Lock()
        self.environment = {**os.environ, "ALLUVIUM_LIVE_LAKE": str(self.lake_folder), "ALLUVIUM_LIVE_PREFIX": name,
                            "ALLUVIUM_LIVE_COMMIT": commit, "ALLUVIUM_LIVE_FORMAT": f"debezium-{form}",
                            "ALLUVIUM_LIVE_DURABILITY": durability}
        if connector and form == "avro":
            with open(self.dataflow / "dataflow.toml", "a") as file:
                file.write(f'\n[registry]\nurl = "{live.REGISTRY}"\n')

    def start_connector(self):
        if self.connector:
            live.start_connector(self.name, self.connector)

    def until_first_rows(self):
        """Until no fault makes the tables' first rows come again: they would lack what was deleted in between."""
        if self.connector:
            live.until_snapshot_kept(self.name)
        else:
            live.until("the first rows", 60, lambda: self.lake().newest())

    def until_running(self):
        if self.connector:
            live.until_running(self.name)

    def drop(self):
        if self.connector:
            live.drop_connector(self.name, self.connector)
        else:
            live.drop_slot(self.name)

    def start(self):
        self.starts += 1
        command = [ALLUVIUM, "run", str(self.dataflow), "-w", str(self.workers)]
        if self.latency:
            command += ["--latency", str(self.folder / "latency")]
        with open(self.folder / f"run-{self.starts}.log", "w") as log:
            self.run = subprocess.Popen(command, env=self.environment, stdout=log, stderr=subprocess.STDOUT)

    def check_running(self):
        with self.restarting:
            ended = self.run and self.run.poll() is not None
        if ended:
            log = (self.folder / f"run-{self.starts}.log").read_text().splitlines()
            raise live.Failed(f"the run of Alluvium ended by itself with {self.run.returncode}:\n" + "\n".join(log[-20:]))

    def restart(self, down):
        """Kills the run, and starts another so many seconds later."""
        with self.restarting:
            self.run.kill()
            self.run.wait()
            time.sleep(down)
            self.start()

    def stop(self):
        self.run.send_signal(signal.SIGTERM)
        try:
            ended = self.run.wait(60)
        except subprocess.TimeoutExpired:
            raise live.Failed("Alluvium did not end within 60 s of SIGTERM") from None
        if ended != 0:
            self.check_running()

    def lake(self):
        return Lake(self.lake_folder)

    def until_committed(self, txid, seconds, every=0.5):
        """Until the newest snapshot has the transaction."""
        lake = self.lake()
        limit = time.time() + seconds
        while time.time() < limit:
            self.check_running()
            if newest := lake.newest():
                if (txid,) in lake.ask("silver.journal", newest[1]["silver.journal"], "txid"):
                    return
            time.sleep(every)
        raise live.Failed(f"{self.name}: transaction {txid} was not in a snapshot within {seconds} s")

    def alluvium(self, *arguments, seconds=600):
        """What a command prints."""
        done = subprocess.run([ALLUVIUM, *arguments[:1], str(self.dataflow), *arguments[1:]], env=self.environment, text=True,
                              capture_output=True, timeout=seconds)
        if done.returncode:
            raise live.Failed(f"alluvium {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return done.stdout


def of_postgres(source, form, folder, *, whole=True, **options):
    """From a `Source`; without `whole` the feeds do not keep its transactions together."""
    dataflow, name = folder / "dataflow", f"{source.name}_{form}"
    shutil.copytree(HERE / "dataflow", dataflow)
    if form == DIRECT:
        for path in (dataflow / "inputs").glob("*.toml"):
            columns, _ = path.read_text().split("[[feeds]]")
            path.write_text(f'{columns}[[feeds]]\nname = "direct"\nkind = "postgres"\nurl = "{source.url}"\n'
                            f'tables = ["public.{path.stem}"]\nslot = "{name}"\npublication = "{name}"\n')
        return Pipeline(name, form, folder, None, **options)
    if not whole:
        for path in (dataflow / "inputs").glob("*.toml"):
            lines = path.read_text().splitlines(keepends=True)
            path.write_text("".join(line for line in lines if not line.startswith("transactions")))
    connector = live.postgres_connector(
        name, [f"public.{table}" for table in TABLES], **converters(form), **{
            "database.dbname": source.name, "provide.transaction.metadata": "true", "decimal.handling.mode": "string",
            "poll.interval.ms": "10", **partitions(f".*[.]public[.]({MANY})")})
    return Pipeline(name, form, folder, connector, **options)


def converters(form):
    return live.avro_converters() if form == "avro" else live.json_converters()


def partitions(topics):
    """Connect's settings for three partitions of each of these topics."""
    return {"topic.creation.groups": "many", "topic.creation.many.include": topics, "topic.creation.many.partitions": "3",
            "topic.creation.many.replication.factor": "1"}
