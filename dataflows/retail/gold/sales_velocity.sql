-- Units sold per product in the hour behind each quarter; key (stock_code, window_start).
SELECT
  stock_code,
  window_start,
  window_end,
  SUM(quantity) AS units,
  COUNT(*) AS lines
FROM TABLE(HOP(TABLE silver.order_lines, DESCRIPTOR(invoiced_at), INTERVAL '15' MINUTE, INTERVAL '60' MINUTE))
WHERE NOT cancelled
GROUP BY stock_code, window_start, window_end
