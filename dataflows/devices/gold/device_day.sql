-- One row per device and day; key (device_id, day).
SELECT
  device_id,
  CAST(ts AS DATE) AS day,
  COUNT(*) AS readings,
  MIN(temperature) AS temperature_min,
  MAX(temperature) AS temperature_max,
  SUM(energy) AS energy,
  COUNT(DISTINCT user_id) AS users
FROM telemetry
GROUP BY device_id, CAST(ts AS DATE)
