-- one row per product that is somewhere
SELECT product, COUNT(*) AS warehouses, SUM(on_hand) AS on_hand, MAX(moved_at) AS moved_at
FROM silver.stock
GROUP BY product
