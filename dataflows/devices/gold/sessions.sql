-- Activity of a device, cut where it was silent for more than five minutes; key (device_id, window_start).
SELECT
  device_id,
  window_start,
  window_end,
  COUNT(*) AS readings,
  SUM(energy) AS energy
FROM TABLE(SESSION(TABLE telemetry PARTITION BY device_id, DESCRIPTOR(ts), INTERVAL '5' MINUTE))
GROUP BY device_id, window_start, window_end
