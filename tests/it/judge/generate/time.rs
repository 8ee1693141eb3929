//! Families on dates, times and intervals, with separate ones for the columns of far years, so that mistakes on near
//! years are visible too.

use super::{Family, Of};

const TRUNCATED: [&str; 8] = ["year", "quarter", "month", "week", "day", "hour", "minute", "second"];
const PARTS: [&str; 10] = [
    "YEAR", "QUARTER", "MONTH", "WEEK", "DAY", "DOW", "DOY", "HOUR", "MINUTE", "EPOCH",
];
const INTERVALS: [&str; 6] = ["1 day", "36 hours", "7 days", "90 minutes", "1 second", "0.5 seconds"];

pub const FAMILIES: &[Family] = &[
    ("time_compare", |g| {
        let of = g.pick(&[Of::Time, Of::Day]);
        let one = g.simple(&["a"], &[of]);
        g.shown_or_kept(&one)
    }),
    ("time_compare_far", |g| {
        let of = g.pick(&[Of::FarTime, Of::FarDay]);
        let one = g.simple(&["a"], &[of]);
        g.shown_or_kept(&one)
    }),
    ("date_and_timestamp", |g| {
        let one = format!("a.ts {} a.dt", g.comparison());
        g.shown_or_kept(&one)
    }),
    ("date_and_timestamp_far", |g| {
        let one = format!("a.tf {} {}", g.comparison(), g.pick(&["a.df", "a.dt"]));
        g.shown_or_kept(&one)
    }),
    ("date_and_timestamp_mixed", |g| {
        let function = g.pick(&["COALESCE", "GREATEST", "NULLIF"]);
        format!("SELECT a.k, {function}(a.ts, a.dt) AS c FROM {}", g.from("a"))
    }),
    ("date_trunc", |g| {
        let part = g.pick(&TRUNCATED);
        format!(
            "SELECT a.k, date_trunc('{part}', a.ts) AS c, date_trunc('{part}', a.dt) AS e FROM {}",
            g.from("a")
        )
    }),
    ("date_trunc_far", |g| {
        let part = g.pick(&TRUNCATED);
        format!("SELECT a.k, date_trunc('{part}', a.tf) AS c FROM {}", g.from("a"))
    }),
    ("date_trunc_group", |g| {
        let part = g.pick(&TRUNCATED);
        format!(
            "SELECT date_trunc('{part}', a.ts) AS c, count(*) AS n FROM {} GROUP BY 1",
            g.from("a")
        )
    }),
    ("extract", |g| {
        let (part, column) = (g.pick(&PARTS), g.pick(&["ts", "dt"]));
        format!("SELECT a.k, EXTRACT({part} FROM a.{column}) AS c FROM {}", g.from("a"))
    }),
    ("extract_far", |g| {
        let (part, column) = (g.pick(&PARTS), g.pick(&["tf", "df"]));
        format!("SELECT a.k, EXTRACT({part} FROM a.{column}) AS c FROM {}", g.from("a"))
    }),
    ("extract_second", |g| {
        format!("SELECT a.k, EXTRACT(SECOND FROM a.ts) AS c FROM {}", g.from("a"))
    }),
    ("extract_compare_far", |g| {
        let one = format!(
            "EXTRACT(YEAR FROM a.{}) {} {}",
            g.pick(&["tf", "df"]),
            g.comparison(),
            g.pick(&["9999", "2262", "1677"])
        );
        g.shown_or_kept(&one)
    }),
    ("date_bin", |g| {
        let size = g.pick(&["15 minutes", "1 hour", "1 day", "2 days"]);
        format!(
            "SELECT a.k, date_bin(INTERVAL '{size}', a.ts, TIMESTAMP '2024-01-01 00:00:00') AS c FROM {}",
            g.from("a")
        )
    }),
    ("date_bin_far", |g| {
        let size = g.pick(&["15 minutes", "1 hour", "1 day"]);
        format!(
            "SELECT a.k, date_bin(INTERVAL '{size}', a.tf, TIMESTAMP '2024-01-01 00:00:00') AS c FROM {}",
            g.from("a")
        )
    }),
    ("interval_add", |g| {
        let (op, interval) = (g.pick(&["+", "-"]), g.pick(&INTERVALS));
        format!("SELECT a.k, a.ts {op} INTERVAL '{interval}' AS c FROM {}", g.from("a"))
    }),
    ("interval_add_far", |g| {
        let interval = g.pick(&INTERVALS);
        let op = g.pick(&["+", "-"]);
        let kept = "a.tf > TIMESTAMP '0002-01-01' AND a.tf < TIMESTAMP '9999-01-01'";
        format!(
            "SELECT a.k, a.tf {op} INTERVAL '{interval}' AS c FROM {} WHERE {kept}",
            g.from("a")
        )
    }),
    ("interval_add_date", |g| {
        let (op, interval) = (g.pick(&["+", "-"]), g.pick(&INTERVALS));
        format!("SELECT a.k, a.dt {op} INTERVAL '{interval}' AS c FROM {}", g.from("a"))
    }),
    ("interval_months", |g| {
        let (column, op) = (g.pick(&["ts", "dt"]), g.pick(&["+", "-"]));
        format!(
            "SELECT a.k, a.{column} {op} INTERVAL '{}' AS c FROM {}",
            g.pick(&["1 month", "1 year", "13 months"]),
            g.from("a")
        )
    }),
    ("difference_compare", |g| {
        let interval = g.pick(&["1 day", "36 hours", "1 week", "100 days", "1 hour"]);
        let one = format!(
            "a.ts - TIMESTAMP '2024-05-01 00:00:00' {} INTERVAL '{interval}'",
            g.comparison()
        );
        g.shown_or_kept(&one)
    }),
    ("difference_join", |g| {
        let interval = g.pick(&["1 day", "12 hours", "1 week"]);
        format!(
            "SELECT a.k AS c, b.k AS e FROM {} JOIN {} ON a.k = b.k AND a.ts - b.ts < INTERVAL '{interval}'",
            g.from("a"),
            g.from("b")
        )
    }),
    ("difference_epoch", |g| {
        format!(
            "SELECT a.k, EXTRACT(EPOCH FROM (a.ts - TIMESTAMP '2024-01-01 00:00:00')) AS c FROM {}",
            g.from("a")
        )
    }),
    ("difference_epoch_far", |g| {
        format!(
            "SELECT a.k, EXTRACT(EPOCH FROM (a.tf - TIMESTAMP '2024-01-01 00:00:00')) AS c FROM {}",
            g.from("a")
        )
    }),
    ("difference_dates", |g| {
        format!("SELECT a.k, a.dt - DATE '2024-01-01' AS c FROM {}", g.from("a"))
    }),
    ("cast_time", |g| {
        let cast = g.pick(&["CAST(a.ts AS DATE)", "CAST(a.dt AS TIMESTAMP)", "CAST(a.dt AS VARCHAR)"]);
        format!("SELECT a.k, {cast} AS c FROM {}", g.from("a"))
    }),
    ("cast_timestamp_to_text", |g| {
        format!("SELECT a.k, CAST(a.ts AS VARCHAR) AS c FROM {}", g.from("a"))
    }),
    ("cast_time_far", |g| {
        let cast = g.pick(&[
            "CAST(a.tf AS DATE)",
            "CAST(a.df AS TIMESTAMP)",
            "CAST(CAST(a.df AS VARCHAR) AS TIMESTAMP)",
        ]);
        format!("SELECT a.k, {cast} AS c FROM {}", g.from("a"))
    }),
    ("cast_time_in_filter", |g| {
        let (a, lower) = (g.from("a"), g.literal(Of::Time));
        format!(
            "SELECT a.k, count(*) FILTER (WHERE a.ts BETWEEN {lower} AND CAST(a.dt AS TIMESTAMP)) AS n FROM {a} GROUP BY a.k"
        )
    }),
    ("coalesce_far", |g| {
        let (column, of) = g.pick(&[("tf", Of::FarTime), ("df", Of::FarDay)]);
        let value = g.literal(of);
        match g.chance(0.5) {
            true => format!("SELECT a.k, COALESCE(a.{column}, {value}) AS c FROM {}", g.from("a")),
            false => format!(
                "SELECT a.k, CASE WHEN a.b THEN a.{column} ELSE {value} END AS c FROM {}",
                g.from("a")
            ),
        }
    }),
    ("join_far", |g| {
        format!(
            "SELECT a.k AS c, b.k AS e FROM {} JOIN {} ON a.dt >= b.df AND a.dt < b.tf",
            g.from("a"),
            g.from("b")
        )
    }),
    ("union_far", |g| {
        format!(
            "SELECT a.tf AS c FROM {} UNION SELECT b.df AS c FROM {}",
            g.from("a"),
            g.from("b")
        )
    }),
    ("to_char", |g| {
        let pattern = g.pick(&["YYYY-MM-DD", "HH24:MI", "Mon YYYY"]);
        format!("SELECT a.k, to_char(a.ts, '{pattern}') AS c FROM {}", g.from("a"))
    }),
];
