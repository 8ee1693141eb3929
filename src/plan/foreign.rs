//! Functions of other databases, and what to write instead of them.

/// Names of functions, and what to write instead.
const INSTEAD: [(&[&str], &str); 41] = [
    (&["iff", "if"], "write CASE WHEN a THEN b ELSE c END"),
    (&["ifnull", "isnull", "zeroifnull"], "write coalesce(x, 0)"),
    (&["decode", "choose"], "write CASE x WHEN 1 THEN 'a' ELSE 'b' END"),
    (
        &[
            "dateadd",
            "date_add",
            "date_sub",
            "datesub",
            "adddate",
            "subdate",
            "timestamp_add",
            "timestamp_sub",
            "timestampadd",
            "datetime_add",
            "datetime_sub",
            "add_months",
            "addmonths",
        ],
        "write ts + INTERVAL '1 day' or ts - INTERVAL '1 month'",
    ),
    (
        &[
            "datediff",
            "date_diff",
            "timestamp_diff",
            "timestampdiff",
            "datetime_diff",
            "months_between",
            "age",
        ],
        "write a - b; days are CAST(a AS DATE) - CAST(b AS DATE), seconds EXTRACT(epoch FROM a - b)",
    ),
    (&["timestamp_trunc", "datetime_trunc"], "write date_trunc('day', ts)"),
    (
        &[
            "year",
            "month",
            "day",
            "hour",
            "minute",
            "second",
            "quarter",
            "week",
            "dayofweek",
            "dayofyear",
            "weekday",
        ],
        "write EXTRACT(year FROM ts)",
    ),
    (&["date", "to_date_safe"], "write CAST(ts AS DATE)"),
    (
        &[
            "strftime",
            "date_format",
            "format_date",
            "format_timestamp",
            "format_datetime",
        ],
        "write to_char(ts, 'YYYY-MM-DD HH24:MI:SS')",
    ),
    (
        &[
            "strptime",
            "parse_date",
            "parse_timestamp",
            "parse_datetime",
            "str_to_date",
            "try_strptime",
        ],
        "write to_timestamp(text, 'YYYY-MM-DD HH24:MI:SS')",
    ),
    (
        &["unix_timestamp", "unix_seconds", "epoch", "to_epoch"],
        "write EXTRACT(epoch FROM ts)",
    ),
    (
        &["from_unixtime", "timestamp_seconds", "timestamp_millis"],
        "write to_timestamp(seconds)",
    ),
    (
        &[
            "getdate",
            "sysdate",
            "sysdatetime",
            "systimestamp",
            "localtimestamp",
            "clock_timestamp",
            "statement_timestamp",
            "transaction_timestamp",
            "curdate",
            "today",
            "current_datetime",
            "proctime",
            "current_watermark",
            "utc_timestamp",
            "localtime",
        ],
        "compare with now() in WHERE: ts > now() - INTERVAL '1 hour'",
    ),
    (&["safe_divide", "div0", "try_divide"], "write a / nullif(b, 0)"),
    (
        &["safe_cast", "try_parse", "try_to_number", "try_to_date"],
        "write TRY_CAST(x AS BIGINT)",
    ),
    (
        &["to_number", "to_decimal", "to_numeric"],
        "write CAST(x AS DECIMAL(18,2))",
    ),
    (
        &[
            "json_extract",
            "json_value",
            "json_extract_scalar",
            "get_json_object",
            "json_extract_string",
            "json_query",
            "json_extract_path",
            "json_extract_path_text",
            "jsonb_extract_path_text",
            "json_unquote",
            "get_path",
        ],
        "write payload ->> 'a', or payload -> 'a' ->> 'b' for what lies deeper",
    ),
    (
        &["parse_json", "json_parse", "try_parse_json", "from_json"],
        "read the text as it is: payload ->> 'a'",
    ),
    (
        &[
            "object_construct",
            "json_object",
            "jsonb_build_object",
            "to_variant",
            "object_agg",
        ],
        "write json_build_object('a', x), or json_object_agg(k, x) of a group",
    ),
    (&["array_construct", "list_value"], "write [x, y]"),
    (
        &[
            "explode",
            "explode_outer",
            "posexplode",
            "flatten",
            "json_each",
            "json_array_elements",
            "jsonb_array_elements",
        ],
        "write FROM t CROSS JOIN unnest(t.list) AS u(item)",
    ),
    (
        &["array"],
        "write (SELECT array_agg(x ORDER BY x) AS list FROM u), or [x, y] for items that are written out",
    ),
    (
        &["listagg", "group_concat", "wm_concat", "xmlagg"],
        "write string_agg(x, ',' ORDER BY y)",
    ),
    (
        &[
            "list_transform",
            "transform",
            "array_transform",
            "list_filter",
            "filter",
            "array_filter",
            "list_reduce",
            "list_apply",
            "reduce",
        ],
        "write (SELECT array_agg(x * 2) AS list FROM unnest(list) AS u(x) WHERE x > 1)",
    ),
    (
        &["regexp_contains", "regexp_matches", "rlike", "regexp"],
        "write text ~ pattern",
    ),
    (&["contains", "contains_substr"], "write strpos(text, part) > 0"),
    (&["charindex", "locate", "instr"], "write strpos(text, part)"),
    (&["len"], "write length(text)"),
    (
        &["format", "printf", "sprintf"],
        "write format('%s: %s', a, b), with %s and %% alone, or join texts: 'a' || CAST(x AS VARCHAR)",
    ),
    (&["make_interval"], "write INTERVAL '3 days', or n * INTERVAL '1 day'"),
    (
        &["array_upper", "array_lower"],
        "write array_length(list, 1); lists begin at 1",
    ),
    (
        &["hash", "farm_fingerprint", "xxhash64", "murmur_hash", "checksum"],
        "write md5(text)",
    ),
    (
        &[
            "gen_random_uuid",
            "newid",
            "generate_uuid",
            "uuid_string",
            "nextval",
            "rand",
            "randn",
            "setseed",
        ],
        "take the value from an input's column: it must be the same whenever the table is recomputed",
    ),
    (
        &[
            "version",
            "current_user",
            "session_user",
            "user",
            "current_database",
            "current_schema",
            "pg_backend_pid",
        ],
        "take the value from an input's column",
    ),
    (
        &["pg_typeof", "typeof", "toTypeName"],
        "remove it: check shows the types of all columns",
    ),
    (
        &[
            "tumble",
            "hop",
            "session",
            "window",
            "tumble_start",
            "tumble_end",
            "hop_start",
            "hop_end",
            "cumulate",
            "time_bucket",
        ],
        "write FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) and group by window_start",
    ),
    (
        &["first", "any", "last", "anylast"],
        "write first_value(x ORDER BY y) or last_value(x ORDER BY y)",
    ),
    (
        &[
            "row_number",
            "rank",
            "dense_rank",
            "percent_rank",
            "cume_dist",
            "ntile",
            "lag",
            "lead",
        ],
        "write row_number() OVER (ORDER BY ...): it is a window function",
    ),
    (
        &["rowid", "ctid", "rownum", "_rowid_", "oid"],
        "number the rows by an order: row_number() OVER (ORDER BY id)",
    ),
    (
        &["histogram", "topk", "approx_top_k", "hll", "approx_count_distinct"],
        "write count(DISTINCT x), or SELECT x, count(*) AS n ... GROUP BY x",
    ),
    (
        &["to_tsvector", "to_tsquery", "plainto_tsquery", "websearch_to_tsquery"],
        "write text ILIKE '%word%' or text ~* pattern",
    ),
];

/// Whether a function takes lambda functions, which it calls for each item of a list.
pub(super) fn takes_functions(name: &str) -> bool {
    INSTEAD.iter().any(|(names, _)| {
        names.contains(&"list_transform") && names.iter().any(|known| known.eq_ignore_ascii_case(name))
    })
}

/// What to write instead of a function of another database.
pub(super) fn instead(name: &str) -> Option<&'static str> {
    let same = |names: &[&str]| names.iter().any(|known| known.eq_ignore_ascii_case(name));
    INSTEAD.iter().find(|(names, _)| same(names)).map(|(_, help)| *help)
}
