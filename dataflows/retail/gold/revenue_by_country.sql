-- One row per country; key country.
SELECT
  country,
  COUNT(*) AS lines,
  COUNT(DISTINCT invoice_no) AS invoices,
  COUNT(DISTINCT customer_id) AS customers,
  SUM(quantity) AS units,
  SUM(amount) AS revenue
FROM silver.order_lines
GROUP BY country
