-- one row per customer; what was ordered, and at which value
SELECT o.customer, COUNT(DISTINCT o.id) AS orders, COUNT(*) AS lines, SUM(l.quantity * l.price) AS revenue
FROM silver.orders o
JOIN silver.order_lines l ON l.order_id = o.id
GROUP BY o.customer
