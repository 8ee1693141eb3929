-- One row per country and hour; key (country, window_start).
SELECT
  country,
  window_start,
  window_end,
  COUNT(DISTINCT invoice_no) AS invoices,
  SUM(quantity) AS units,
  SUM(amount) AS revenue
FROM TABLE(TUMBLE(TABLE silver.order_lines, DESCRIPTOR(invoiced_at), INTERVAL '1' HOUR))
GROUP BY country, window_start, window_end
