//! Finds the place in the SQL at which a message points, by the words of the message.

use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};

/// Where a word first stands in the SQL.
pub(super) fn find(tokens: &[TokenWithSpan], word: &str) -> Option<Location> {
    let kin: &[&str] = if word == "now" {
        &["now", "current_timestamp", "current_date", "today"]
    } else {
        &[word]
    };
    tokens
        .iter()
        .find(|t| matches!(&t.token, Token::Word(w) if kin.iter().any(|k| w.value.eq_ignore_ascii_case(k))))
        .map(|t| t.span.start)
}

/// The first quoted word, quoted text or operator of a message that also stands in the SQL.
pub(super) fn mentioned(tokens: &[TokenWithSpan], message: &str) -> Option<Location> {
    let quoted = message.split(['\'', '"', '`']).skip(1).step_by(2);
    let words = quoted
        .clone()
        .flat_map(|q| q.split(['(', '.', ' ']).filter(|w| !w.is_empty()));
    let text = |quoted: &str| {
        let same = |t: &&TokenWithSpan| matches!(&t.token, Token::SingleQuotedString(text) if text == quoted);
        tokens.iter().find(same).map(|t| t.span.start)
    };
    let place = words.filter_map(|word| find(tokens, word)).next();
    if let Some(place) = place.or_else(|| quoted.filter_map(text).next()) {
        return Some(place);
    }
    message.split_whitespace().find_map(|word| {
        let mut same = tokens.iter().filter(|t| {
            !matches!(
                t.token,
                Token::Word(_) | Token::Comma | Token::Period | Token::LParen | Token::RParen
            ) && t.token.to_string() == word
        });
        match (same.next(), same.next()) {
            (Some(only), None) => Some(only.span.start),
            _ => None,
        }
    })
}

/// Where the first word of a message stands that the SQL has exactly once.
pub(super) fn rare(tokens: &[TokenWithSpan], message: &str) -> Option<Location> {
    let words = message.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.filter(|word| word.len() > 1).find_map(|word| {
        let mut same = tokens
            .iter()
            .filter(|t| matches!(&t.token, Token::Word(w) if w.value.eq_ignore_ascii_case(word)));
        match (same.next(), same.next()) {
            (Some(only), None) => Some(only.span.start),
            _ => None,
        }
    })
}

/// Where the first clause or called function stands that a message names. AND, OR and NOT count only if the SQL
/// has them once.
pub(super) fn named(tokens: &[TokenWithSpan], message: &str) -> Option<Location> {
    const CLAUSES: [&str; 11] = [
        "WHERE",
        "HAVING",
        "GROUP",
        "ORDER",
        "LIMIT",
        "OFFSET",
        "UNION",
        "EXCEPT",
        "INTERSECT",
        "QUALIFY",
        "VALUES",
    ];
    message
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
        .find_map(|word| {
            let same = |t: &TokenWithSpan| matches!(&t.token, Token::Word(w) if w.value.eq_ignore_ascii_case(word));
            let mut places = (0..tokens.len()).filter(|n| same(&tokens[*n]));
            let called = |n: &usize| tokens.get(n + 1).is_some_and(|t| t.token == Token::LParen);
            let position = match word {
                "AND" | "OR" | "NOT" => places.next().filter(|_| places.next().is_none()),
                "array_element" | "subscript" => tokens.iter().position(|t| t.token == Token::LBracket),
                _ if CLAUSES.contains(&word) => places.next(),
                _ => places.find(called),
            };
            position.map(|n| tokens[n].span.start)
        })
}
