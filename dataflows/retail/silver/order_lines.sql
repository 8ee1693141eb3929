-- One row per invoice line, as it came; no key (equal lines are equal purchases).
SELECT
  invoice_no,
  stock_code,
  NULLIF(TRIM(description), '') AS description,
  quantity,
  unit_price,
  CAST(quantity * unit_price AS DECIMAL(18, 3)) AS amount,
  invoiced_at,
  CAST(invoiced_at AS DATE) AS invoice_date,
  CAST(CAST(customer_id AS DOUBLE) AS BIGINT) AS customer_id,
  country,
  invoice_no LIKE 'C%' AS cancelled
FROM order_lines
