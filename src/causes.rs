//! Formats errors with their causes, for places that cannot ask for the causes later: other processes and status
//! files.

/// An error and its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    list(error).join(": ")
}

/// The texts of an error and of its causes, outermost first. A cause that the texts so far already tell is left out:
/// errors of libraries often print their own cause as well.
pub fn list(error: &dyn std::error::Error) -> Vec<String> {
    let mut texts = vec![error.to_string()];
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !texts.iter().any(|earlier| earlier.contains(&text)) {
            texts.push(text);
        }
        source = cause.source();
    }
    texts
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Outer {
        text: &'static str,
        #[source]
        cause: io::Error,
    }

    #[test]
    fn a_cause_that_was_told_is_not_told_again() {
        let error = |text| Outer {
            text,
            cause: io::Error::other("the disk is gone"),
        };
        assert_eq!(chain(&error("could not write")), "could not write: the disk is gone");
        assert_eq!(
            chain(&error("could not write: the disk is gone")),
            "could not write: the disk is gone"
        );
    }
}
