-- one row for each of the source's; key id
SELECT id, customer, status, express, total, note, placed_at
FROM orders
