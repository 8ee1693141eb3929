-- One row per reading out of range; key event_id.
SELECT
  event_id,
  device_id,
  ts,
  temperature,
  CASE WHEN temperature > 85 THEN 'HIGH_TEMP' ELSE 'LOW_TEMP' END AS alert
FROM telemetry
WHERE temperature > 85 OR temperature < 32
