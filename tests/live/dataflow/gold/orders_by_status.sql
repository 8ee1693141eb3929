-- one row per status; orders without lines too
SELECT o.status, COUNT(DISTINCT o.id) AS orders, COUNT(l.line_no) AS lines, SUM(l.quantity) AS pieces, MAX(o.placed_at) AS latest
FROM silver.orders o
LEFT JOIN silver.order_lines l ON l.order_id = o.id
GROUP BY o.status
