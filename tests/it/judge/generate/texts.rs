//! Families on functions over texts.

use super::{Family, Generator};

pub const FAMILIES: &[Family] = &[
    ("text_case", |g| {
        g.call(&["upper(a.s)", "lower(a.s)", "initcap(a.s)", "reverse(a.s)"])
    }),
    ("text_part", |g| {
        g.call(&[
            "substr(a.s, 2)",
            "substr(a.s, 1, 2)",
            "substring(a.s from 2 for 1)",
            "left(a.s, 1)",
            "right(a.s, 1)",
            "left(a.s, -1)",
            "substr(a.s, 0, 2)",
            "substr(a.s, -1, 3)",
        ])
    }),
    ("text_length", |g| {
        g.call(&["length(a.s)", "char_length(a.s)", "octet_length(a.s)", "ascii(a.s)"])
    }),
    ("text_pad", |g| {
        g.call(&[
            "lpad(a.s, 3, '*')",
            "rpad(a.s, 3, 'xy')",
            "lpad(a.s, 1)",
            "repeat(a.s, 2)",
            "repeat(a.s, -1)",
        ])
    }),
    ("text_position", |g| {
        g.call(&["strpos(a.s, 'b')", "position('a' in a.s)", "strpos(a.s, '')"])
    }),
    ("text_replace", |g| {
        g.call(&[
            "replace(a.s, 'a', 'c')",
            "translate(a.s, 'ab', 'x')",
            "replace(a.s, '', 'c')",
        ])
    }),
    ("text_trim", |g| {
        g.call(&[
            "trim(a.s)",
            "ltrim(a.s)",
            "rtrim(a.s)",
            "btrim(a.s, 'a')",
            "trim(leading 'a' from a.s)",
        ])
    }),
    ("text_concat", |g| {
        g.call(&["a.s || '-' || a.s", "concat(a.s, '-', a.k)", "a.s || a.k"])
    }),
    ("text_concat_ws", |g| {
        g.call(&[
            "concat_ws('-', a.s, a.k)",
            "concat_ws('-', a.s, NULL, 'z')",
            "concat_ws(a.s, 'y', 'z')",
        ])
    }),
    ("split_part", |g| {
        g.call(&[
            "split_part(a.s, 'a', 1)",
            "split_part(a.s, '%', 2)",
            "split_part(a.s, '%', -1)",
        ])
    }),
    ("regexp_replace", |g| {
        g.call(&[
            "regexp_replace(a.s, '[ab]+', 'x')",
            "regexp_replace(a.s, '[ab]', 'x', 'g')",
            "regexp_replace(a.s, '(a)', '<\\1>')",
            "regexp_replace(a.s, 'A', 'x', 'i')",
        ])
    }),
    ("text_compare", |g| {
        let one = format!("a.s {} '{}'", g.comparison(), g.pick(&["a", "B", "", "\u{e4}", "ab"]));
        g.shown_or_kept(&one)
    }),
    ("md5", |g| g.call(&["md5(a.s)", "starts_with(a.s, 'a')"])),
    ("to_hex", |g| g.call(&["to_hex(a.k)", "to_hex(a.v)"])),
];

impl Generator {
    fn call(&mut self, calls: &[&str]) -> String {
        format!("SELECT a.s, {} AS c FROM {}", self.pick(calls), self.from("a"))
    }
}
