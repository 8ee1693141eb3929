SELECT auction, bidder, price, date_time, extra,
       TO_CHAR(date_time, 'YYYY-MM-DD') AS date, TO_CHAR(date_time, 'HH24:MI') AS minute
FROM bid
