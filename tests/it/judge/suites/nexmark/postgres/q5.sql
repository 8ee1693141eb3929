WITH hopped AS (
  SELECT bid.auction, w AS window_start
  FROM bid, generate_series(
    date_bin('2 seconds', date_time, TIMESTAMP '1970-01-01') - INTERVAL '8 seconds',
    date_bin('2 seconds', date_time, TIMESTAMP '1970-01-01'), INTERVAL '2 seconds') AS w),
counted AS (SELECT auction, window_start, count(*) AS num FROM hopped GROUP BY auction, window_start)
SELECT auction, num
FROM (SELECT auction, num, max(num) OVER (PARTITION BY window_start) AS maxn FROM counted) AS c
WHERE num >= maxn
