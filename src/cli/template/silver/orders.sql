-- One row per order that counts; key order_id.
SELECT
  order_id,
  ordered_at,
  CAST(ordered_at AS DATE) AS day,
  lower(customer) AS customer,
  amount
FROM orders
WHERE status <> 'cancelled'
