-- one row for each of the source's; key warehouse, product
SELECT warehouse, product, on_hand, moved_at
FROM stock
