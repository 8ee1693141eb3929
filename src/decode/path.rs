//! The names by which columns take fields: `customer.address.city` is a path into nested records. A step with dots in
//! its name is quoted: `"order.id".total`; a quote inside the quotes is doubled.

use std::borrow::Cow;

/// The steps of a path. A name with an unclosed quote is split at its dots, with its quotes.
pub(super) fn steps(name: &str) -> Vec<Cow<'_, str>> {
    if !name.contains('"') {
        return name.split('.').map(Cow::Borrowed).collect();
    }
    quoted(name).unwrap_or_else(|| name.split('.').map(Cow::Borrowed).collect())
}

fn quoted(name: &str) -> Option<Vec<Cow<'_, str>>> {
    let mut steps = Vec::new();
    let mut rest = name;
    loop {
        let tail = match rest.strip_prefix('"') {
            Some(inner) => {
                let end = closing(inner)?;
                let step = &inner[..end];
                steps.push(match step.contains('"') {
                    true => Cow::Owned(step.replace("\"\"", "\"")),
                    false => Cow::Borrowed(step),
                });
                &inner[end + 1..]
            }
            None => {
                let end = rest.find('.').unwrap_or(rest.len());
                steps.push(Cow::Borrowed(&rest[..end]));
                &rest[end..]
            }
        };
        match tail.strip_prefix('.') {
            Some(next) => rest = next,
            None if tail.is_empty() => return Some(steps),
            None => return None,
        }
    }
}

/// The index of the quote that closes a step.
fn closing(inner: &str) -> Option<usize> {
    let mut at = 0;
    loop {
        at += inner[at..].find('"')?;
        match inner.as_bytes().get(at + 1) {
            Some(b'"') => at += 2,
            _ => return Some(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_s_steps_may_be_quoted() {
        for (name, expected) in [
            ("a", vec!["a"]),
            ("a.b.c", vec!["a", "b", "c"]),
            (r#""a.b".c"#, vec!["a.b", "c"]),
            (r#"x."a.b""#, vec!["x", "a.b"]),
            (r#""a.b""#, vec!["a.b"]),
            (r#""say ""no"".".b"#, vec![r#"say "no"."#, "b"]),
            (r#""""#, vec![""]),
            (r#""open.b"#, vec![r#""open"#, "b"]),
            (r#""a"b.c"#, vec![r#""a"b"#, "c"]),
            ("é.ü", vec!["é", "ü"]),
        ] {
            assert_eq!(steps(name), expected, "{name}");
        }
    }
}
