//! Patterns of SIMILAR TO. They have `%` and `_` as in LIKE, and `|`, `*`, `+`, `?`, `{m,n}`, parentheses and
//! brackets as in regular expressions. The whole text must match.

/// The pattern as a regular expression. The character after `escape` stands for itself; with `None` there is no
/// such character.
pub(in crate::plan) fn of_similar_to(pattern: &str, escape: Option<char>) -> String {
    let mut made = String::from("^(?:");
    let (mut escaped, mut in_bracket) = (false, false);
    for c in pattern.chars() {
        if escaped {
            made.extend(['\\', c]);
            escaped = false;
        } else if Some(c) == escape {
            escaped = true;
        } else if in_bracket {
            if c == '\\' {
                made.push('\\');
            }
            made.push(c);
            in_bracket = c != ']';
        } else {
            match c {
                '[' => {
                    made.push(c);
                    in_bracket = true;
                }
                '%' => made.push_str(".*"),
                '_' => made.push('.'),
                '(' => made.push_str("(?:"),
                '\\' | '.' | '^' | '$' => made.extend(['\\', c]),
                c => made.push(c),
            }
        }
    }
    made.push_str(")$");
    made
}
