-- One row per product; key stock_code.
SELECT
  stock_code,
  TRIM(description) AS description,
  COALESCE(category, 'uncategorised') AS category,
  list_price
FROM products
