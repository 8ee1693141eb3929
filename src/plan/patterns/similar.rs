//! The patterns of SIMILAR TO: `%` and `_` as in LIKE, and of regular expressions `|`, `*`, `+`, `?`, `{m,n}`, parentheses and
//! brackets. The whole text must match.

/// The pattern as a regular expression. `escape`: the character in front of one that stands for itself; none: there is none.
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
