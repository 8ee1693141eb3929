-- One row per site and hour; key (site, window_start).
SELECT
  site,
  window_start,
  COUNT(*) AS tickets,
  COUNT(DISTINCT truck) AS trucks,
  SUM(gross_kg) AS gross_kg
FROM TABLE(TUMBLE(TABLE tickets, DESCRIPTOR(weighed_at), INTERVAL '1' HOUR))
GROUP BY site, window_start
