//! Handles clauses of the standard that the parser does not read, on tokens: a clause without effect is
//! removed, any other is refused.
//!
//! ```text
//! frame EXCLUDE NO OTHERS           frame
//! GROUP BY {ALL | DISTINCT} a       GROUP BY a, but for DISTINCT of several grouping sets
//! ```

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::error::Refusal;
use super::windows::is_word;

/// Removes clauses without effect, and refuses those that have one.
pub(super) fn remove_needless(mut tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>, Refusal> {
    let mut at = 0;
    while at < tokens.len() {
        if ends_frame(&tokens, at) && is_word(&tokens, at + 1, "EXCLUDE") {
            exclusion(&tokens, at + 1)?;
            tokens.drain(at + 1..at + 4);
        }
        if is_word(&tokens, at, "GROUP") && is_word(&tokens, at + 1, "BY") && begins_group(&tokens, at + 3) {
            if is_word(&tokens, at + 2, "DISTINCT") {
                distinct_sets(&tokens, at + 2)?;
                tokens.remove(at + 2);
            } else if is_word(&tokens, at + 2, "ALL") {
                tokens.remove(at + 2);
            }
        }
        at += 1;
    }
    Ok(tokens)
}

fn word(tokens: &[TokenWithSpan], at: usize) -> Option<String> {
    match tokens.get(at).map(|token| &token.token) {
        Some(Token::Word(word)) if word.quote_style.is_none() => Some(word.value.to_uppercase()),
        _ => None,
    }
}

/// Whether the token may be the last of a frame's bound.
fn ends_frame(tokens: &[TokenWithSpan], at: usize) -> bool {
    let bound = ["PRECEDING", "FOLLOWING"].iter().any(|name| is_word(tokens, at, name));
    bound || at > 0 && is_word(tokens, at - 1, "CURRENT") && is_word(tokens, at, "ROW")
}

/// Refuses an EXCLUDE that leaves rows out; EXCLUDE NO OTHERS does not.
fn exclusion(tokens: &[TokenWithSpan], at: usize) -> Result<(), Refusal> {
    if is_word(tokens, at + 1, "NO") && is_word(tokens, at + 2, "OTHERS") {
        return Ok(());
    }
    let what = match word(tokens, at + 1).as_deref() {
        Some("CURRENT") => "EXCLUDE CURRENT ROW",
        Some("GROUP") => "EXCLUDE GROUP",
        Some("TIES") => "EXCLUDE TIES",
        _ => "EXCLUDE",
    };
    Err(Refusal::new(format!("could not plan a frame with {what}"))
        .help(
            "write two frames, of what is before the row and of what is behind it: sum(x) OVER (ORDER BY k ROWS BETWEEN UNBOUNDED \
             PRECEDING AND 1 PRECEDING) and ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING",
        )
        .at(Some(tokens[at].span)))
}

/// Whether the token may begin an element of GROUP BY.
fn begins_group(tokens: &[TokenWithSpan], at: usize) -> bool {
    const BEHIND: [&str; 14] = [
        "HAVING",
        "WINDOW",
        "QUALIFY",
        "ORDER",
        "LIMIT",
        "OFFSET",
        "FETCH",
        "UNION",
        "INTERSECT",
        "EXCEPT",
        "MINUS",
        "FOR",
        "WITH",
        "SETTINGS",
    ];
    match tokens.get(at).map(|token| &token.token) {
        Some(Token::Word(_)) => !BEHIND.iter().any(|name| is_word(tokens, at, name)),
        Some(Token::LParen | Token::Number(..) | Token::SingleQuotedString(_)) => true,
        _ => false,
    }
}

/// Refuses GROUP BY DISTINCT if there may be several grouping sets.
fn distinct_sets(tokens: &[TokenWithSpan], at: usize) -> Result<(), Refusal> {
    let mut depth = 0;
    for n in at + 1..tokens.len() {
        match tokens[n].token {
            Token::LParen => depth += 1,
            Token::RParen if depth == 0 => break,
            Token::RParen => depth -= 1,
            _ => {}
        }
        if depth == 0 && !begins_group(tokens, n) && matches!(tokens[n].token, Token::Word(_)) {
            break;
        }
        if ["ROLLUP", "CUBE", "GROUPING"]
            .iter()
            .any(|name| is_word(tokens, n, name))
        {
            return Err(
                Refusal::new("could not plan GROUP BY DISTINCT of several grouping sets")
                    .help("write each set once: GROUP BY GROUPING SETS ((a, b), (a), ())")
                    .at(Some(tokens[at].span)),
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::windows::tokenize;

    fn made(sql: &str) -> Result<String, String> {
        let tokens = remove_needless(tokenize(sql).unwrap()).map_err(|refusal| refusal.message)?;
        let words: Vec<String> = tokens.iter().map(|token| token.token.to_string()).collect();
        Ok(words.join(" "))
    }

    #[test]
    fn what_says_nothing_is_left_out() {
        for (sql, other) in [
            ("GROUP BY DISTINCT a HAVING b", "GROUP BY a HAVING b"),
            ("GROUP BY DISTINCT a ORDER BY grouping", "GROUP BY a ORDER BY grouping"),
            ("(GROUP BY ALL ROLLUP (a), b) x", "( GROUP BY ROLLUP ( a ) , b ) x"),
            ("GROUP BY ALL HAVING b", "GROUP BY ALL HAVING b"),
            ("GROUP BY ALL", "GROUP BY ALL"),
            (
                "ROWS BETWEEN 1 PRECEDING AND CURRENT ROW EXCLUDE NO OTHERS)",
                "ROWS BETWEEN 1 PRECEDING AND CURRENT ROW )",
            ),
            ("SELECT * EXCLUDE no FROM t", "SELECT * EXCLUDE no FROM t"),
        ] {
            assert_eq!(made(sql).as_deref(), Ok(other), "{sql}");
        }
        for sql in [
            "ROWS 1 PRECEDING EXCLUDE TIES",
            "GROUP BY DISTINCT a, ROLLUP (b)",
            "GROUP BY DISTINCT GROUPING SETS ((a), (a))",
        ] {
            assert!(made(sql).is_err(), "{sql}");
        }
    }
}
