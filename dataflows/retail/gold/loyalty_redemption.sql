-- One row per tier: points earned (one for each whole pound spent) against points redeemed; key tier.
SELECT
  customer.tier,
  COUNT(*) AS customers,
  SUM(COALESCE(earned.points, 0)) AS earned,
  SUM(COALESCE(spent.points, 0)) AS redeemed,
  CAST(SUM(COALESCE(spent.points, 0)) AS DOUBLE) / NULLIF(SUM(COALESCE(earned.points, 0)), 0) AS redemption_rate
FROM silver.customers customer
LEFT JOIN (
  SELECT customer_id, CAST(FLOOR(SUM(amount)) AS BIGINT) AS points
  FROM silver.order_lines
  WHERE customer_id IS NOT NULL
  GROUP BY customer_id
) earned ON earned.customer_id = customer.customer_id
LEFT JOIN (
  SELECT CAST(customer_id AS BIGINT) AS customer_id, SUM(points) AS points
  FROM redemptions
  GROUP BY CAST(customer_id AS BIGINT)
) spent ON spent.customer_id = customer.customer_id
GROUP BY customer.tier
