"""What the tests from end to end share: a load, faults of the servers and of Alluvium beside it, and a message that tells how to run it again."""
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

from oracle import Differs
from pipeline import live


def parser(command, description):
    """The options of all these tests."""
    parser = argparse.ArgumentParser(prog=command, description=description.splitlines()[0])
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--minutes", type=float, default=1, help="how long the load lasts")
    parser.add_argument("--rate", type=float, default=40, help="transactions a second, of all clients")
    parser.add_argument("--kills", type=float, default=6, help="faults a minute")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--commit", default="100ms")
    parser.add_argument("--snapshots", type=int, default=2000, help="check at most so many, spread evenly; 0: all")
    parser.add_argument("--keep", action="store_true", help="leave everything there")
    return parser


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
    """A test has `self.source` (with a `name` and `drop()`), `self.pipelines`, `self.clients` (threads with a `failure`), and `test()`."""

    def __init__(self, options, source, servers):
        self.options, self.source, self.servers = options, source, servers
        self.random = random.Random(options.seed)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="alluvium-live-"))
        self.pipelines, self.clients = [], []
        self.stop = threading.Event()
        self.faults = collections.Counter()
        self.started = time.time()

    def say(self, text):
        print(f"{time.time() - self.started:6.1f} s  {text}", flush=True)

    def serve(self, of, **more):
        """Starts what `of` makes of the source for each form, and disturbs it while the load lasts."""
        for form in self.options.formats.split(","):
            folder = self.folder / form
            folder.mkdir()
            pipeline = of(self.source, form, folder, workers=self.options.workers, commit=self.options.commit, **more)
            self.pipelines.append(pipeline)
            pipeline.start_connector()
            pipeline.start()
        for pipeline in self.pipelines:
            pipeline.until_first_rows()
        self.say("the tables' first rows are read, and their load goes on")
        self.disturb(time.time() + 60 * self.options.minutes)

    def look(self):
        """What is done a few times a second while there is load."""
        for pipeline in self.pipelines:
            pipeline.check_running()
        for client in self.clients:
            if client.failure:
                raise live.Failed(f"a client failed: {client.failure!r}")

    def disturb(self, until):
        """Kills something now and then, and starts it again; each kind once before any comes twice, and each at least once."""
        pause = 60 / self.options.kills if self.options.kills else float("inf")
        fault_at = time.time() + pause * self.random.uniform(0.3, 0.7)
        turn, fault = [], None
        while time.time() < until or (fault and fault.is_alive()) or (self.options.kills and len(self.faults) < 1 + len(self.servers)):
            self.look()
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

    def fault(self, what):
        self.faults[what] += 1
        down = self.random.choice((0, 0, 1, 3))
        if what == "alluvium":
            self.say("killing Alluvium")
            for pipeline in self.pipelines:
                pipeline.restart(down)
            return
        softly = what in ("postgres", "mariadb") and self.random.random() < 0.5
        self.say(f"{'restarting' if softly else 'killing'} {what}" + (f", gone for {down} s" if down else ""))
        live.services(*(("stop",) if softly else ("kill",)), what)
        time.sleep(down)
        live.services("start", what)
        if what == "connect" and self.random.random() < 0.3:
            self.fault("alluvium")   # while Debezium tells again what it told

    def end_load(self):
        """What the clients did, by kind."""
        self.stop.set()
        for client in self.clients:
            client.join(60)
        done = sum((collections.Counter(client.done) for client in self.clients), collections.Counter())
        self.say(f"load ended: {dict(done)}; connections lost: {sum(client.lost for client in self.clients)}")

    def catch_up(self, last):
        """Every run has the last transaction, and has ended."""
        for pipeline in self.pipelines:
            pipeline.until_running()
            pipeline.until_committed(last, 180)
            self.say(f"{pipeline.form}: caught up")
            pipeline.stop()
            self.say(f"{pipeline.form}: stopped")

    def chosen(self, snapshots):
        """The indexes of the snapshots to check, the last among them."""
        if not 0 < self.options.snapshots < len(snapshots):
            return range(len(snapshots))
        step = len(snapshots) / self.options.snapshots
        return sorted({int(n * step) for n in range(self.options.snapshots)} | {len(snapshots) - 1})

    def told(self, pipeline):
        """All lines that the runs of a pipeline printed."""
        return [line for n in range(1, pipeline.starts + 1)
                for line in (pipeline.folder / f"run-{n}.log").read_text(errors="replace").splitlines()]

    def check_end(self, pipeline, lake):
        """No restart corrected a row, nothing was refused, and `verify` agrees."""
        if corrected := [line for line in self.told(pipeline) if "rows corrected" in line]:
            raise Differs(f"a restart found tables other than they must be: {corrected[0]}")
        if letters := lake.ask("dead_letters", None, "*"):
            raise Differs(f"there are {len(letters)} dead letters, such as {letters[0]}")
        verified = pipeline.alluvium("verify").strip().splitlines()
        self.say(f"{pipeline.form}: verify finds {sum('equal' in line for line in verified)} tables equal; no restart corrected a row; "
                 "no dead letters")


def run(test, command):
    """Runs it, and removes everything unless it failed or is to be kept."""
    try:
        test.test()
    except BaseException as error:
        if isinstance(error, (live.Failed, Differs)):
            print(f"FAILED: {error}", file=sys.stderr)
        else:
            traceback.print_exc()
        print(f"everything is kept: {test.folder}, database {test.source.name}, connectors and topics "
              f"{', '.join(pipeline.name for pipeline in test.pipelines)}; again: {command} --seed {test.options.seed}", file=sys.stderr)
        for pipeline in test.pipelines:
            if pipeline.run and pipeline.run.poll() is None:
                pipeline.run.kill()
        sys.stderr.flush()
        os._exit(1)
    if test.options.keep:
        return
    for pipeline in test.pipelines:
        pipeline.drop()
    test.source.drop()
    shutil.rmtree(test.folder)
