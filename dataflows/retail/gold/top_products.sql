-- The ten products with the greatest revenue of each country; key (country, place).
SELECT country, place, stock_code, units, revenue
FROM (
  SELECT
    country,
    stock_code,
    units,
    revenue,
    ROW_NUMBER() OVER (PARTITION BY country ORDER BY revenue DESC, stock_code) AS place
  FROM (
    SELECT country, stock_code, SUM(quantity) AS units, SUM(amount) AS revenue
    FROM silver.order_lines
    GROUP BY country, stock_code
  )
)
WHERE place <= 10
