-- One row per device and minute; key (device_id, window_start).
SELECT
  device_id,
  window_start,
  window_end,
  COUNT(*) AS readings,
  AVG(temperature) AS temperature_avg,
  MIN(temperature) AS temperature_min,
  MAX(temperature) AS temperature_max,
  STDDEV(temperature) AS temperature_stddev,
  MEDIAN(temperature) AS temperature_median,
  SUM(energy) AS energy,
  COUNT(DISTINCT user_id) AS users
FROM TABLE(TUMBLE(TABLE telemetry, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
GROUP BY device_id, window_start, window_end
