-- one row for each of the source's; key id
SELECT id, owner, balance, note, opened_at
FROM accounts
