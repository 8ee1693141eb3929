SELECT bidder, count(*) AS bid_count, window_start, window_start + INTERVAL '10 seconds' AS window_end
FROM (SELECT bidder, date_bin('10 seconds', date_time, TIMESTAMP '1970-01-01') AS window_start FROM bid) AS b
GROUP BY bidder, window_start
