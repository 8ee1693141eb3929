-- one row for each of the source's; key id
SELECT id
FROM scratch
