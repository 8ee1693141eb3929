-- What was sold on each day? One row per day; key day.
SELECT
  day,
  count(*) AS orders,
  sum(amount) AS revenue
FROM silver.orders
GROUP BY day
