-- one row for each of the source's; key txid
SELECT txid, kind, at
FROM journal
