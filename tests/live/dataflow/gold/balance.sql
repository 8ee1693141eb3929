-- one row: how many accounts there are, and that nothing is lost between them
SELECT COUNT(*) AS accounts, SUM(balance) AS total, MIN(balance) AS lowest, MAX(balance) AS highest
FROM silver.accounts
