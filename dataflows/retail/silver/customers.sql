-- One row per customer; key customer_id.
SELECT
  CAST(customer_id AS BIGINT) AS customer_id,
  name,
  LOWER(email) AS email,
  country,
  COALESCE(tier, 'basic') AS tier
FROM customers
