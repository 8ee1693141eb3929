WITH marked AS (
  SELECT bidder, date_time,
         (date_time - lag(date_time) OVER (PARTITION BY bidder ORDER BY date_time) < INTERVAL '10 seconds') IS NOT TRUE AS begins
  FROM bid),
numbered AS (
  SELECT bidder, date_time, sum(begins::int) OVER (PARTITION BY bidder ORDER BY date_time RANGE UNBOUNDED PRECEDING) AS session
  FROM marked)
SELECT bidder, count(*) AS bid_count, min(date_time) AS window_start, max(date_time) + INTERVAL '10 seconds' AS window_end
FROM numbered
GROUP BY bidder, session
