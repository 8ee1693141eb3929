"""The load of a soak: changes of orders in a log, events in dropped files, and poison among both.

All of it is made by a seed, and counted: how many good records went out, and how many bad ones of each kind.
"""

import gzip
import json
import os
import random
import time
from pathlib import Path

ORDERS = """\
key = ["id"]
order_by = ["version"]
retention = {{ column = "updated_at", keep = "{keep}" }}
[columns]
id = {{ type = "BIGINT", nullable = false }}
version = "BIGINT"
customer = "VARCHAR"
amount = "DECIMAL(12,2)"
updated_at = "TIMESTAMP"
[[feeds]]
name = "live"
kind = "log"
path = "live/orders"
format = "json"
"""

EVENTS = """\
retention = {{ column = "at", keep = "{keep}" }}
[columns]
id = {{ type = "BIGINT", nullable = false }}
kind = "VARCHAR"
at = "TIMESTAMP"
[[feeds]]
name = "drops"
kind = "files"
path = "drops/*"
format = "csv"
"""

TABLES = {
    "silver/orders.sql": "SELECT id, version, customer, amount, updated_at FROM orders",
    "silver/events.sql": "SELECT id, kind, at FROM events",
    "gold/customers.sql": "SELECT customer, COUNT(*) AS orders, SUM(amount) AS amount FROM silver.orders GROUP BY customer",
    "gold/kinds.sql": "SELECT kind, COUNT(*) AS n, MAX(id) AS newest FROM silver.events GROUP BY kind",
}

# Kinds of poison: what goes out with each, by where it goes.
IN_LOGS = ["no_json", "no_utf8", "wrong_type", "no_key"]
IN_FILES = ["bad_rows", "bad_gzip", "bad_parquet", "odd_name", "fifo", "link_loop"]


def write_dataflow(folder: Path, commit: str, history: str, keep: str) -> None:
    files = {
        "dataflow.toml": f'name = "soak"\nepoch = "10ms"\ncommit = "{commit}"\nhistory = "{history}"\n',
        "inputs/orders.toml": ORDERS.format(keep=keep),
        "inputs/events.toml": EVENTS.format(keep=keep),
        **TABLES,
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for made in ["live/orders", "drops", "staging"]:
        (folder / made).mkdir(parents=True, exist_ok=True)


class Load:
    """Writes what is due; `tick` is called often."""

    def __init__(self, folder: Path, rate: float, keys: int, poison: set[str], seed: int):
        self.folder, self.rate, self.keys, self.poison = folder, rate, keys, poison
        self.random = random.Random(seed)
        self.logs = [open(folder / f"live/orders/{n}.ndjson", "ab", buffering=0) for n in range(2)]
        self.started = time.monotonic()
        self.version, self.event, self.file = 0, 0, 0
        self.next_file = self.next_poison = 0.0
        self.records, self.letters, self.files_refused = 0, 0, 0

    def tick(self) -> None:
        now = time.monotonic() - self.started
        due = int(now * self.rate) - self.version
        lines = ([], [])
        for _ in range(due):
            self.version += 1
            lines[self.version % 2].append(self.change())
        if now >= self.next_poison:
            self.next_poison = now + 1
            kinds = sorted(self.poison.intersection(IN_LOGS))
            if kinds:
                lines[self.file % 2].append(self.bad_line(self.random.choice(kinds)))
                self.letters += 1
        for log, text in zip(self.logs, lines):
            if text:
                log.write(b"".join(text))
        if now >= self.next_file:
            self.next_file = now + 10
            self.drop()

    def change(self) -> bytes:
        key = self.random.randrange(self.keys)
        self.records += 1
        if self.random.random() < 0.1:
            return b'{"key": {"id": %d, "version": %d}, "value": null}\n' % (key, self.version)
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
        value = {
            "id": key,
            "version": self.version,
            "customer": f"c{key % 997}",
            "amount": f"{self.random.randrange(100_000) / 100:.2f}",
            "updated_at": at,
        }
        return json.dumps({"value": value}).encode() + b"\n"

    def bad_line(self, kind: str) -> bytes:
        n = self.version
        return {
            "no_json": b'{"value": {"id": %d, "version"\n' % n,
            "no_utf8": b'{"value": {"id": %d, "version": 1, "customer": "M\xfcller"}}\n' % n,
            "wrong_type": b'{"value": {"id": "number %d", "version": 1}}\n' % n,
            "no_key": b'{"value": {"version": %d}}\n' % n,
        }[kind]

    def drop(self) -> None:
        """A file of events; and at times one that is none."""
        self.file += 1
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
        rows = []
        for _ in range(200):
            self.event += 1
            self.records += 1
            rows.append(f"{self.event},k{self.event % 13},{at}\n")
        if "bad_rows" in self.poison:
            rows.insert(100, f"none,k{self.file},{at}\n")
            self.letters += 1
        self.put(f"{self.file:06}.csv", ("id,kind,at\n" + "".join(rows)).encode())
        kinds = sorted(self.poison.intersection(IN_FILES) - {"bad_rows"})
        if kinds and self.file % 3 == 0:
            self.bad_file(self.random.choice(kinds))

    def bad_file(self, kind: str) -> None:
        drops = self.folder / "drops"
        name = f"{self.file:06}"
        if kind == "bad_gzip":
            packed = gzip.compress(f"id,kind,at\n{self.file},x,\n".encode() * 50)
            self.put(f"{name}.csv.gz", packed[:-12] + b"\0" * 12)
            self.letters += 1
        elif kind == "bad_parquet":
            self.put(f"{name}.parquet", b"PAR1" + bytes(range(256)) + b"PAR1")
            self.letters += 1
        elif kind == "odd_name":
            os.rename(self.staged(b"id,kind,at\n"), os.path.join(os.fsencode(drops), b"%06d-\xff\x1b[2J.csv" % self.file))
        elif kind == "fifo":
            os.mkfifo(drops / f"{name}.fifo")
        elif kind == "link_loop":
            (drops / f"{name}.loop").symlink_to(f"{name}.loop")

    def put(self, name: str, content: bytes) -> None:
        os.rename(self.staged(content), self.folder / "drops" / name)

    def staged(self, content: bytes) -> Path:
        path = self.folder / "staging" / "next"
        path.write_bytes(content)
        return path

    def close(self) -> None:
        for log in self.logs:
            log.close()
