-- one row each of the seven products of which most is ordered
SELECT product, SUM(quantity) AS pieces
FROM silver.order_lines
GROUP BY product
ORDER BY pieces DESC, product
LIMIT 7
