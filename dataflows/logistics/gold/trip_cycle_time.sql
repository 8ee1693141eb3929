-- How long trips take; one row per origin and destination; key (origin, destination).
SELECT
  origin,
  destination,
  COUNT(*) AS trips,
  AVG(minutes) AS minutes_avg,
  percentile_cont(0.5) WITHIN GROUP (ORDER BY minutes) AS minutes_p50,
  percentile_cont(0.9) WITHIN GROUP (ORDER BY minutes) AS minutes_p90,
  percentile_cont(0.99) WITHIN GROUP (ORDER BY minutes) AS minutes_p99
FROM (
  SELECT origin, destination, (date_part('epoch', ended_at) - date_part('epoch', started_at)) / 60.0 AS minutes
  FROM trips
  WHERE ended_at IS NOT NULL
)
GROUP BY origin, destination
