"""Reads a run's latency files with HdrHistogram's own reader: for each series `tag count p50 p99 p99.9 max`, in
microseconds, from `latency.hlog`; then `tag count max` from each `.hgrm`."""

import pathlib
import sys

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

folder = pathlib.Path(sys.argv[1])
highest = 24 * 3600 * 1_000_000
series = {}
reader = HistogramLogReader(str(folder / "latency.hlog"), HdrHistogram(1, highest, 3))
while (interval := reader.get_next_interval_histogram()) is not None:
    series.setdefault(interval.get_tag(), HdrHistogram(1, highest, 3)).add(interval)
for tag, histogram in sorted(series.items()):
    figures = [histogram.get_value_at_percentile(p) for p in (50, 99, 99.9)] + [histogram.get_max_value()]
    print(tag, histogram.get_total_count(), *figures)
for path in sorted(folder.glob("*.hgrm")):
    points = [line.split() for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")][1:]
    percentiles = [float(point[1]) for point in points]
    assert percentiles == sorted(percentiles) and percentiles[-1] == 1.0, path
    print("hgrm", path.stem, points[-1][2], round(float(points[-1][0]) * 1000))
