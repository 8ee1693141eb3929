//! Families on dates, timestamps, zones, INTERVALs and patterns, in the years 1 to 9999.

use super::{Family, Generator, Of};

const FIELDS: [&str; 17] = [
    "MICROSECONDS",
    "MILLISECONDS",
    "SECOND",
    "MINUTE",
    "HOUR",
    "DAY",
    "WEEK",
    "MONTH",
    "QUARTER",
    "YEAR",
    "DECADE",
    "CENTURY",
    "MILLENNIUM",
    "ISODOW",
    "ISOYEAR",
    "DOY",
    "EPOCH",
];
const FIELDS_OF_DATES: [&str; 8] = [
    "DAY", "WEEK", "CENTURY", "ISODOW", "ISOYEAR", "JULIAN", "DECADE", "EPOCH",
];
const FIELDS_OF_LENGTHS: [&str; 10] = [
    "MICROSECONDS",
    "MILLISECONDS",
    "SECOND",
    "MINUTE",
    "HOUR",
    "DAY",
    "MONTH",
    "YEAR",
    "EPOCH",
    "CENTURY",
];
const INTERVALS: [&str; 9] = [
    "1 day",
    "-36 hours",
    "1 month",
    "-1 year 2 months",
    "0.5 seconds",
    "3 months -2 days 4 hours",
    "90 minutes",
    "1 week",
    "400 years",
];
const ZONES: [&str; 7] = [
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "UTC",
    "Pacific/Auckland",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
];
const PATTERNS: [&str; 20] = [
    "YYYY-MM-DD",
    "YYYY-MM-DD HH24:MI:SS.US",
    "DD Mon YYYY",
    "FMMonth FMDDth, YYYY",
    "Day, DD Month YYYY",
    "HH12:MI:SS AM",
    "yyyymmddhh24miss",
    "IYYY-IW-ID",
    "YYYY-DDD",
    "Q CC J",
    "FMHH24:FMMI a.m.",
    "DY dy Dy MON mon",
    "WW W D",
    "RM rm",
    "MS FF1 FF4",
    "SSSS",
    "Y,YYY YYY YY Y",
    "\"on\" DD \"at\" HH24",
    "IYY IY I IDDD",
    "TZH:TZM OF",
];
const READABLE: [&str; 12] = [
    "YYYY-MM-DD HH24:MI:SS.US",
    "YYYYMMDDHH24MISS",
    "DD Mon YYYY",
    "FMMonth FMDDth, YYYY",
    "Day, DD Month YYYY HH12:MI AM",
    "IYYY-IW-ID",
    "YYYY-DDD SSSS",
    "J",
    "RM/DD/YYYY",
    "YY-MM-DD",
    "YYYY-MM-DD\"T\"HH24:MI:SS.MS",
    "Y,YYY MM",
];

pub const FAMILIES: &[Family] = &[
    ("time_fields", |g| {
        let one = match g.chance(0.7) {
            true => format!("EXTRACT({} FROM a.{})", g.pick(&FIELDS), g.pick(&["ts", "tf"])),
            false => format!("EXTRACT({} FROM a.{})", g.pick(&FIELDS_OF_DATES), g.pick(&["dt", "df"])),
        };
        g.shown(&one)
    }),
    ("interval_fields", |g| {
        let (field, length) = (g.pick(&FIELDS_OF_LENGTHS), g.length());
        g.shown(&format!("EXTRACT({field} FROM {length})"))
    }),
    ("interval_text", |g| {
        let length = g.length();
        g.shown(&format!("CAST({length} AS VARCHAR)"))
    }),
    ("interval_scaled", |g| {
        let (moment, length) = (g.moment(), g.length());
        let op = g.pick(&["+", "-"]);
        g.shown(&format!("{moment} {op} {length}"))
    }),
    ("interval_compared", |g| {
        let (left, right) = (g.length(), g.length());
        let one = format!("{left} {} {right}", g.comparison());
        g.placed(&one)
    }),
    ("difference_aggregate", |g| {
        let call = g.pick(&["min", "max"]);
        let (one, other) = (g.pick(&["a.ts", "a.tf"]), g.moment());
        format!(
            "SELECT a.k, EXTRACT(EPOCH FROM {call}({one} - {other})) AS c FROM {} GROUP BY a.k",
            g.from("a")
        )
    }),
    ("moments_compared", |g| {
        let (left, right) = (g.moment(), g.moment());
        let one = match g.number(0, 3) {
            0 => format!("{left} BETWEEN {right} AND {}", g.moment()),
            1 => format!("{left} IN ({right}, {})", g.moment()),
            2 => format!("{left} IS DISTINCT FROM {right}"),
            _ => format!("{left} {} {right}", g.comparison()),
        };
        g.placed(&one)
    }),
    ("moments_chosen", |g| {
        let (one, other, third) = (g.moment(), g.moment(), g.moment());
        let chosen = match g.number(0, 4) {
            0 => format!("COALESCE({one}, {other}, {third})"),
            1 => format!("CASE WHEN a.b THEN {one} WHEN a.k > 1 THEN {other} ELSE {third} END"),
            2 => format!("GREATEST({one}, {other}, {third})"),
            3 => format!("LEAST({one}, {other})"),
            _ => format!("COALESCE({one}, '2024-05-01 12:00:00')"),
        };
        g.shown(&chosen)
    }),
    ("moments_grouped", |g| {
        let (one, filter) = (g.moment(), g.moment());
        let (a, lower) = (g.from("a"), g.literal(Of::Time));
        let call = g.pick(&["count(*)", "min(a.tf)", "max(a.df)", "count(DISTINCT a.ts)"]);
        format!("SELECT {one} AS g, {call} FILTER (WHERE {filter} > {lower}) AS n FROM {a} GROUP BY 1")
    }),
    ("moments_in_subquery", |g| {
        let not = g.pick(&["", "NOT "]);
        let (column, other) = (g.pick(&["ts", "dt", "tf", "df"]), g.pick(&["ts", "dt", "tf", "df"]));
        let (a, b) = (g.from("a"), g.from("b"));
        format!("SELECT a.k, a.{column} FROM {a} WHERE a.{column} {not}IN (SELECT b.{other} FROM {b})")
    }),
    ("moments_union", |g| {
        let set = g.pick(&["UNION", "UNION ALL", "INTERSECT", "EXCEPT"]);
        let (column, other) = (g.pick(&["ts", "dt", "tf", "df"]), g.pick(&["ts", "dt", "tf", "df"]));
        format!(
            "SELECT a.{column} AS c FROM {} {set} SELECT b.{other} AS c FROM {}",
            g.from("a"),
            g.from("b")
        )
    }),
    ("moments_joined", |g| {
        let (column, other) = (g.pick(&["ts", "dt", "tf", "df"]), g.pick(&["ts", "dt", "tf", "df"]));
        let join = g.pick(&["JOIN", "LEFT JOIN", "FULL JOIN"]);
        format!(
            "SELECT a.k AS c, b.k AS e FROM {} {join} {} ON a.{column} = b.{other}",
            g.from("a"),
            g.from("b")
        )
    }),
    ("date_plus", |g| {
        let one = g.pick(&[
            "a.dt + CAST(a.v AS INT)",
            "a.df + 1",
            "a.dt - 30",
            "a.dt + CAST(a.ts AS TIME)",
            "a.dt - a.df",
            "EXTRACT(EPOCH FROM a.ts - a.df)",
            "a.df + 7 > a.dt",
            "INTERVAL '1 hour' + a.dt",
        ]);
        g.shown(one)
    }),
    ("zone_local", |g| {
        let (zone, field) = (g.pick(&ZONES), g.pick(&["HOUR", "DAY", "MINUTE", "DOW"]));
        let (column, a) = (g.pick(&["ts", "tf"]), g.from("a"));
        let inner = format!("SELECT a.k, (a.{column} AT TIME ZONE 'UTC') AT TIME ZONE '{zone}' AS l FROM {a}");
        match g.number(0, 2) {
            0 => format!("SELECT q.k, q.l, EXTRACT({field} FROM q.l) AS c FROM ({inner}) AS q"),
            1 => format!("SELECT date_trunc('day', q.l) AS d, count(*) AS n FROM ({inner}) AS q GROUP BY 1"),
            _ => format!("SELECT q.k, CAST(q.l AS VARCHAR) AS c FROM ({inner}) AS q"),
        }
    }),
    ("zone_instant", |g| {
        let zone = g.pick(&ZONES);
        let column = g.pick(&["ts", "tf"]);
        let shift = g.pick(&[
            "",
            " + INTERVAL '30 minutes'",
            " - INTERVAL '53 days'",
            " - INTERVAL '58 days 22 hours'",
        ]);
        g.shown(&format!("(a.{column}{shift}) AT TIME ZONE '{zone}'"))
    }),
    ("zone_of_interval", |g| {
        let hours = g.pick(&["5 hours 30 minutes", "-8 hours", "1 hour"]);
        g.shown(&format!("a.ts AT TIME ZONE INTERVAL '{hours}'"))
    }),
    ("zone_cast", |g| {
        let one = g.pick(&[
            "CAST(a.ts AS TIMESTAMP WITH TIME ZONE)",
            "CAST(CAST(a.tf AS TIMESTAMP WITH TIME ZONE) AS DATE)",
            "CAST(CAST(a.ts AS TIMESTAMP WITH TIME ZONE) AS VARCHAR)",
            "CAST('2024-05-01 12:00:00+02' AS TIMESTAMP WITH TIME ZONE) - a.ts > INTERVAL '1 day'",
            "CAST(a.ts AS TIMESTAMP(0))",
            "CAST(a.tf AS TIMESTAMP(3))",
        ]);
        g.shown(one)
    }),
    ("time_as_text", |g| {
        let one = g.pick(&[
            "CAST(a.tf AS VARCHAR)",
            "a.ts || '!'",
            "concat(a.tf, '|', a.df)",
            "CAST(a.df AS VARCHAR)",
            "CAST(CAST(a.ts AS TIME) AS VARCHAR)",
            "CAST(CAST(a.tf AS VARCHAR) AS TIMESTAMP)",
            "CAST(CAST(a.tf AS VARCHAR) AS DATE)",
        ]);
        g.shown(one)
    }),
    ("to_char_pattern", |g| {
        let (pattern, column) = (g.pick(&PATTERNS), g.pick(&["ts", "tf", "df", "dt"]));
        g.shown(&format!("to_char(a.{column}, '{pattern}')"))
    }),
    ("to_timestamp_pattern", |g| {
        let (written, column) = (g.pick(&READABLE), g.pick(&["ts", "tf"]));
        // If a day number is read as a year, it is outside our calendar, but inside PostgreSQL's.
        let read = if g.chance(0.8) || written == "J" {
            written
        } else {
            g.pick(&READABLE)
        };
        let function = g.pick(&["to_timestamp", "to_date"]);
        g.shown(&format!("{function}(to_char(a.{column}, '{written}'), '{read}')"))
    }),
    ("to_timestamp_text", |g| {
        let (text, pattern) = g.pick(&[
            ("2024-5-1", "YYYY-MM-DD"),
            (" 2024 / 05/01 ", "YYYY-MM-DD"),
            ("20240501 13", "YYYYMMDD HH24"),
            ("01may24", "DDMonYY"),
            ("2024-05-01 1:2:3.04", "YYYY-MM-DD HH24:MI:SS.MS"),
            ("2024-05", "YYYY-MM-DD"),
            ("2024-05-01xyz", "YYYY-MM-DD"),
            ("99-12-31", "YY-MM-DD"),
            ("2024-366", "YYYY-DDD"),
            ("12/31/1999 11:59 pm", "MM/DD/YYYY HH:MI AM"),
        ]);
        g.shown(&format!("to_timestamp('{text}', '{pattern}')"))
    }),
    ("to_timestamp_seconds_of", |g| {
        let one = g.pick(&[
            "to_timestamp(CAST(a.x AS DOUBLE) * 1000000)",
            "to_timestamp(EXTRACT(EPOCH FROM a.ts))",
            "to_timestamp(a.v)",
        ]);
        g.shown(one)
    }),
    ("make_moments", |g| {
        let one = g.pick(&[
            "make_date(2024, 2, 28 + CAST(a.k AS INT) - CAST(a.k AS INT))",
            "make_date(2000 + CAST(a.v AS INT), 12, 31)",
            "make_timestamp(2024, 5, 1, 12, 30, 15.25)",
            "make_date(2024, CAST(a.v AS INT), 5)",
        ]);
        g.shown(one)
    }),
    ("frame_of_moments", |g| {
        let (column, length) = (
            g.pick(&["ts", "dt", "tf", "df"]),
            g.pick(&["1 day", "36 hours", "1 month", "12 hours"]),
        );
        let frame = match g.chance(0.5) {
            true => format!("RANGE BETWEEN INTERVAL '{length}' PRECEDING AND CURRENT ROW"),
            false => format!("RANGE BETWEEN INTERVAL '{length}' PRECEDING AND INTERVAL '1 hour' FOLLOWING"),
        };
        format!(
            "SELECT a.{column}, a.v, sum(a.v) OVER (ORDER BY a.{column} {frame}) AS c FROM {} \
             WHERE a.{column} > TIMESTAMP '0002-01-01' AND a.{column} < TIMESTAMP '9999-01-01'",
            g.from("a")
        )
    }),
    ("lag_of_moments", |g| {
        let column = g.pick(&["ts", "tf"]);
        format!(
            "SELECT q.k, q.t, EXTRACT(EPOCH FROM q.t - q.p) AS c FROM (SELECT a.k, a.{column} AS t, \
             lag(a.{column}) OVER (PARTITION BY a.k ORDER BY a.{column}) AS p FROM {}) AS q",
            g.from("a")
        )
    }),
];

impl Generator {
    /// A date or timestamp of `a`.
    fn moment(&mut self) -> String {
        match self.number(0, 9) {
            0 => "CAST(a.dt AS TIMESTAMP)".to_string(),
            1 => "a.ts AT TIME ZONE 'UTC'".to_string(),
            2 => "CAST(a.tf AS TIMESTAMP WITH TIME ZONE)".to_string(),
            3 => self.literal(Of::FarTime),
            4 => self.literal(Of::FarDay),
            5 => "date_trunc('hour', a.ts)".to_string(),
            _ => self.pick(&["a.ts", "a.dt", "a.tf", "a.df"]).to_string(),
        }
    }

    /// An interval, computed from columns of `a`.
    fn length(&mut self) -> String {
        let interval = format!("INTERVAL '{}'", self.pick(&INTERVALS));
        match self.number(0, 7) {
            0 => format!("({interval} * a.v)"),
            1 => format!("(a.x * {interval})"),
            2 => format!("({interval} / 7)"),
            3 => format!("({interval} + INTERVAL '{}')", self.pick(&INTERVALS)),
            4 => "(a.tf - a.ts)".to_string(),
            5 => "(a.ts - TIMESTAMP '2024-05-01 06:00:00')".to_string(),
            6 => format!("(- {interval})"),
            _ => interval,
        }
    }

    /// Places a condition in one of the clauses that allow one.
    fn placed(&mut self, condition: &str) -> String {
        let a = self.from("a");
        match self.number(0, 5) {
            0 => format!("SELECT a.k, ({condition}) AS c FROM {a}"),
            1 => format!("SELECT a.k, count(*) FILTER (WHERE {condition}) AS n FROM {a} GROUP BY a.k"),
            2 => format!(
                "SELECT a.k AS c, b.k AS e FROM {a} JOIN {} ON a.k = b.k AND {condition}",
                self.from("b")
            ),
            3 => format!("SELECT ({condition}) AS c, count(*) AS n FROM {a} GROUP BY 1"),
            4 => format!("SELECT a.k, CASE WHEN {condition} THEN 1 ELSE 0 END AS c FROM {a}"),
            _ => format!("SELECT a.k, a.v FROM {a} WHERE {condition}"),
        }
    }
}
