//! Expands `${NAME}` and `${NAME:-default}` in the values of settings.
//!
//! Only what a user wrote is expanded: a value that came from the environment is taken as it is, so a
//! password may hold `${`. `$${` stands for `${` itself. SQL is never expanded.

use thiserror::Error;

/// Why a value could not be expanded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ExpandError {
    /// The variable is not set and has no default.
    #[error("environment variable {0} is not set")]
    NotSet(String),
    /// `${` without `}`.
    #[error("\"${{\" is not closed by \"}}\"")]
    NotClosed,
    /// The text between the braces is not a valid name.
    #[error("{0:?} is not a name of an environment variable")]
    BadName(String),
}

impl ExpandError {
    /// What to do.
    pub fn help(&self) -> String {
        match self {
            ExpandError::NotSet(name) => format!("set {name}, or give a default: ${{{name}:-default}}"),
            ExpandError::NotClosed => "write ${NAME} or ${NAME:-default}; $${ stands for ${ itself".to_string(),
            ExpandError::BadName(_) => {
                "a name has letters, digits and _, and no digit first; $${ stands for ${ itself".to_string()
            }
        }
    }
}

/// The text with every `${...}` replaced. An empty variable counts as set for `${NAME}`, and as not set for
/// `${NAME:-default}`, as in a shell.
///
/// # Errors
/// The first mistake in the text.
pub fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, ExpandError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if let Some(before) = rest[..at].strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let inside = &rest[at + 2..];
        let end = inside.find('}').ok_or(ExpandError::NotClosed)?;
        let (name, default) = match inside[..end].split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (&inside[..end], None),
        };
        if !is_name(name) {
            return Err(ExpandError::BadName(name.to_string()));
        }
        match (env(name), default) {
            (Some(value), None) => out.push_str(&value),
            (Some(value), Some(_)) if !value.is_empty() => out.push_str(&value),
            (_, Some(default)) => out.push_str(default),
            (None, None) => return Err(ExpandError::NotSet(name.to_string())),
        }
        rest = &inside[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOME_LAKE" => Some("s3://bucket".to_string()),
            "EMPTY" => Some(String::new()),
            "TRICKY" => Some("a${HOME_LAKE}b".to_string()),
            _ => None,
        }
    }

    #[test]
    fn variables_and_defaults_are_put_in_and_the_rest_is_kept() {
        for (text, want) in [
            ("plain $5 {x}", "plain $5 {x}"),
            ("${HOME_LAKE}/retail", "s3://bucket/retail"),
            ("${NOPE:-lake}", "lake"),
            ("${NOPE:-}", ""),
            ("${EMPTY}", ""),
            ("${EMPTY:-x}", "x"),
            ("a${HOME_LAKE:-x}b${NOPE:-c}", "as3://bucketbc"),
            ("$${HOME_LAKE}", "${HOME_LAKE}"),
            ("${TRICKY}", "a${HOME_LAKE}b"),
        ] {
            assert_eq!(expand(text, &env).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn unset_unclosed_and_misnamed_variables_are_refused() {
        assert_eq!(expand("x${NOPE}", &env), Err(ExpandError::NotSet("NOPE".into())));
        assert_eq!(expand("x${NOPE", &env), Err(ExpandError::NotClosed));
        assert_eq!(expand("${1A}", &env), Err(ExpandError::BadName("1A".into())));
        assert_eq!(expand("${}", &env), Err(ExpandError::BadName(String::new())));
    }
}
