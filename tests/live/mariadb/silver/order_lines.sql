-- one row for each of the source's; key order_id, line_no
SELECT order_id, line_no, product, quantity, price
FROM order_lines
