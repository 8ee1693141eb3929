-- One row per product that was ever moved or sold; key stock_code.
SELECT
  moved.stock_code,
  product.description,
  product.category,
  moved.received,
  COALESCE(sold.units, 0) AS sold,
  moved.received - COALESCE(sold.units, 0) AS on_hand,
  moved.received - COALESCE(sold.units, 0) < 0 AS oversold
FROM (
  SELECT stock_code, SUM(delta) AS received
  FROM stock_movements
  GROUP BY stock_code
) moved
LEFT JOIN (
  SELECT stock_code, SUM(quantity) AS units
  FROM silver.order_lines
  GROUP BY stock_code
) sold ON sold.stock_code = moved.stock_code
LEFT JOIN silver.products product ON product.stock_code = moved.stock_code
