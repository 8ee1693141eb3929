-- one row for each of the source's; key txid
SELECT txid, accounts, lines
FROM journal
