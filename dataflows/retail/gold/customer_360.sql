-- One row per customer who bought; key customer_id.
SELECT
  bought.customer_id,
  customer.name,
  customer.tier,
  COALESCE(customer.country, bought.country) AS country,
  bought.invoices,
  bought.units,
  bought.revenue,
  bought.cancelled_lines,
  bought.first_seen,
  bought.last_seen
FROM (
  SELECT
    customer_id,
    MIN(country) AS country,
    COUNT(DISTINCT invoice_no) AS invoices,
    SUM(quantity) AS units,
    SUM(amount) AS revenue,
    COUNT(*) FILTER (WHERE cancelled) AS cancelled_lines,
    MIN(invoiced_at) AS first_seen,
    MAX(invoiced_at) AS last_seen
  FROM silver.order_lines
  WHERE customer_id IS NOT NULL
  GROUP BY customer_id
) bought
LEFT JOIN silver.customers customer ON customer.customer_id = bought.customer_id
