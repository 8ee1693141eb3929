-- one row per product that is ordered
SELECT product, COUNT(*) AS order_lines, SUM(quantity) AS pieces, SUM(quantity * price) AS revenue
FROM silver.order_lines
GROUP BY product
