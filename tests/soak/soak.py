"""Runs Alluvium for a long time under a steady load, samples what it takes, and says whether that is flat. See scripts/soak."""

import argparse
import csv
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from load import IN_FILES, IN_LOGS, TABLES, Load, write_dataflow

TICK = 0.05

# What is sampled: its unit, and by how much it may grow over the second half: a share of its mean, and an amount beside it.
MEASURES = {
    "rss": ("MiB", 0.05, 16),
    "threads": ("", 0.0, 2),
    "descriptors": ("", 0.05, 8),
    "processor": ("cores", 0.10, 0.05),
    "lake_files": ("", 0.10, 200),
    "ledger_files": ("", 0.10, 50),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=500, help="changes a second")
    parser.add_argument("--keys", type=int, default=20_000, help="orders that changes are of")
    parser.add_argument("--commit", default="25ms")
    parser.add_argument("--history", default="2 min", help="how long past snapshots stay")
    parser.add_argument("--keep", default="5 min", help="how long rows stay")
    parser.add_argument("--settle", type=float, default=8, help="minutes that do not count: until rows and files go as they come")
    parser.add_argument("--every", type=float, default=5, help="seconds from sample to sample")
    parser.add_argument("--poison", default="no_json,no_utf8,wrong_type,no_key,bad_rows,bad_gzip", help=f"of {', '.join(IN_LOGS + IN_FILES)}; or all, none")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="where samples, plot and log go; without it a folder of the cache")
    return parser.parse_args()


def of_process(pid: int) -> dict[str, float]:
    """Memory, threads, descriptors, and seconds of processor so far."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return {
        "rss": int(status["VmRSS"].split()[0]) / 1024,
        "threads": int(status["Threads"]),
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "seconds": (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
    }


def files_below(folder: Path) -> int:
    """Files; one that goes while it is counted may count."""
    found, folders = 0, [str(folder)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        found += 1
        except FileNotFoundError:
            pass
    return found


def soak(args: argparse.Namespace, folder: Path, out: Path, poison: set[str]) -> tuple[list[dict], Load, list[str]]:
    """The samples, the load, and what went wrong."""
    write_dataflow(folder, args.commit, args.history, args.keep)
    load = Load(folder, args.rate, args.keys, poison, args.seed)
    log = open(out / "run.log", "wb")
    command = [os.environ["ALLUVIUM_BIN"], "run", str(folder), "-w", str(args.workers)]
    run = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    started, samples, troubles = time.monotonic(), [], []
    end, due = started + 60 * args.minutes, started + args.every
    before = None
    with open(out / "samples.csv", "w", newline="") as file:
        rows = csv.DictWriter(file, ["time", *MEASURES, "records", "letters"])
        rows.writeheader()
        while (now := time.monotonic()) < end and run.poll() is None:
            load.tick()
            if now >= due:
                due += args.every
                taken = of_process(run.pid)
                seconds, at = taken.pop("seconds"), time.monotonic()
                if before is not None:
                    sample = {
                        "time": round(at - started, 1),
                        **taken,
                        "processor": (seconds - before[0]) / (at - before[1]),
                        "lake_files": files_below(folder / "lake"),
                        "ledger_files": files_below(folder / "lake/_alluvium/ledger"),
                        "records": load.records,
                        "letters": load.letters,
                    }
                    samples.append(sample)
                    rows.writerow(sample)
                    file.flush()
                before = (seconds, at)
            time.sleep(TICK)
    load.close()
    if run.poll() is None:
        time.sleep(3)  # what was written last is read
        run.send_signal(signal.SIGTERM)
    try:
        code = run.wait(timeout=120)
        if code != 0:
            troubles.append(f"the run ended with {code}: see {out / 'run.log'}")
    except subprocess.TimeoutExpired:
        run.kill()
        troubles.append("the run did not end within two minutes of SIGTERM")
    return samples, load, troubles


def growth(samples: list[dict], measure: str) -> tuple[float, float]:
    """By least squares: what the measure grows by over the samples, and its mean."""
    times = [sample["time"] for sample in samples]
    values = [sample[measure] for sample in samples]
    middle, mean = sum(times) / len(times), sum(values) / len(values)
    spread = sum((t - middle) ** 2 for t in times)
    slope = sum((t - middle) * (v - mean) for t, v in zip(times, values)) / spread
    return slope * (times[-1] - times[0]), mean


def judge(samples: list[dict], settle: float) -> tuple[list[str], list[str]]:
    """Lines to print, and what is not flat."""
    lines, troubles = [], []
    last = samples[-1]["time"] if samples else 0
    counted = [sample for sample in samples if sample["time"] >= max(60 * settle, last / 2)]
    if len(counted) < 10:
        return ["too short to say whether anything is flat"], []
    for measure, (unit, share, beside) in MEASURES.items():
        grown, mean = growth(counted, measure)
        bound = share * mean + beside
        flat = "flat" if grown <= bound else "GROWS"
        lines.append(f"{measure:13} mean {mean:9.2f} {unit:5} grew by {grown:+9.2f} in {(last - counted[0]['time']) / 60:.0f} min, {flat} (at most {bound:.2f})")
        if grown > bound:
            troubles.append(f"{measure} is not flat: it grew by {grown:.2f} {unit}")
    return lines, troubles


def draw(samples: list[dict], path: Path, title: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, 2, figsize=(12, 9), sharex=True)
    minutes = [sample["time"] / 60 for sample in samples]
    for axis, (measure, (unit, _, _)) in zip(axes.flat, MEASURES.items()):
        axis.plot(minutes, [sample[measure] for sample in samples], linewidth=0.8)
        axis.set_title(f"{measure} [{unit}]" if unit else measure)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    for axis in axes[-1]:
        axis.set_xlabel("minutes")
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def look(folder: Path, load: Load) -> tuple[list[str], list[str]]:
    """The lake at the end: opened by deltalake, audited, its dead letters counted."""
    from deltalake import DeltaTable

    lines, troubles = [], []
    program = os.environ["ALLUVIUM_BIN"]
    # What was written last and not read before the run was told to end. Rows have grown old meanwhile, so the audit corrects.
    caught_up = [program, "run", str(folder), "--until-caught-up", "--for", "10min"]
    ended = subprocess.run(caught_up, capture_output=True, text=True)
    if ended.returncode != 0:
        troubles.append(f"a restart did not go on as it should: {ended.stdout}{ended.stderr}")
    tables = ["bronze/orders", "bronze/events", "dead_letters", *(name.removesuffix(".sql") for name in TABLES)]
    for table in tables:
        took = []
        for _ in range(3):  # the best one: others use this machine, too
            started = time.monotonic()
            opened = DeltaTable(str(folder / "lake" / table))
            files = len(opened.file_uris())
            took.append(time.monotonic() - started)
        took = min(took)
        lines.append(f"deltalake opened {table} at version {opened.version()} ({files} files) in {1000 * took:.0f} ms")
        if took >= 1:
            troubles.append(f"deltalake took {took:.1f} s to open {table}")
    verified = subprocess.run([program, "verify", str(folder)], capture_output=True, text=True)
    lines.append(verified.stdout.strip())
    if verified.returncode != 0:
        troubles.append(f"verify: {verified.stdout}{verified.stderr}")
    count = "SELECT COUNT(*) AS n FROM dead_letters WHERE kind IN ('record', 'file') AND NOT starts_with(reason, 'late')"
    counted = subprocess.run([program, "query", str(folder), count, "--format", "csv"], capture_output=True, text=True)
    letters = counted.stdout.strip().splitlines()[-1] if counted.returncode == 0 else counted.stderr
    lines.append(f"{load.records} good records, {load.letters} bad ones, {letters} dead letters")
    if letters != str(load.letters):
        troubles.append(f"{load.letters} records and files were bad, and {letters} are dead letters")
    return lines, troubles


def main() -> int:
    args = arguments()
    known = set(IN_LOGS + IN_FILES)
    poison = {"all": known, "none": set()}.get(args.poison, set(args.poison.split(",")))
    if poison - known:
        print(f"unknown poison {', '.join(sorted(poison - known))}; known are {', '.join(sorted(known))}", file=sys.stderr)
        return 2
    cache = Path(os.environ.get("ALLUVIUM_CACHE", "."))
    out = args.out or cache / "soak-runs" / time.strftime("%Y%m%d-%H%M%S")
    out.mkdir(parents=True, exist_ok=True)
    print(f"samples, plot and log go to {out}", flush=True)
    with tempfile.TemporaryDirectory(prefix="soak-") as temporary:
        folder = Path(temporary)
        samples, load, troubles = soak(args, folder, out, poison)
        lines, more = judge(samples, args.settle)
        troubles += more
        title = f"{args.rate:.0f} changes/s, commit {args.commit}, history {args.history}, {args.workers} worker(s), {args.minutes:.0f} min"
        draw(samples, out / "soak.png", title)
        told, more = look(folder, load)
        troubles += more
    report = "\n".join(lines + told + [f"FAILED: {trouble}" for trouble in troubles])
    (out / "report.txt").write_text(report + "\n")
    print(report)
    return 1 if troubles else 0


if __name__ == "__main__":
    sys.exit(main())
