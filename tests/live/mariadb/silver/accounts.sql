-- one row for each of the source's; key id
SELECT id, owner, balance, note, moved, seen
FROM accounts
