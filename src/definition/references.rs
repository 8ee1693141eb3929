//! Finds the tables that a SELECT reads, on the level of tokens.
//!
//! Tokens are used rather than a syntax tree, because the parser does not know the window table functions, and
//! because a file with a syntax error still has dependencies. A reference is `silver.x` or `gold.x`, quoted or not,
//! that does not follow a dot. If a file also uses `silver` or `gold` as a name of its own (an alias, a CTE),
//! `gold.x` may be a column: then only names of existing tables count, and unknown names are left to the planner.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer, TokenizerError, Word};

use super::Layer;

/// `silver.x` or `gold.x` in SQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LayerReference {
    pub layer: Layer,
    pub table: String,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
    /// Whether it may be a column, because the file has an alias with the layer's name.
    pub doubtful: bool,
}

/// The result of scanning a file.
pub(super) struct Scanned {
    /// In the order of the text.
    pub references: Vec<LayerReference>,
    /// Whether the file has nothing but comments and semicolons.
    pub empty: bool,
}

/// Finds all references.
///
/// # Errors
/// The text cannot be split into tokens, because a quote or comment is not closed.
pub(super) fn scan(sql: &str) -> Result<Scanned, TokenizerError> {
    let tokens: Vec<TokenWithSpan> = Tokenizer::new(&GenericDialect {}, sql)
        .tokenize_with_location()?
        .into_iter()
        .filter(|token| !matches!(token.token, Token::Whitespace(_)))
        .collect();
    let mut references = Vec::new();
    for (n, token) in tokens.iter().enumerate() {
        let Some(layer) = word(&token.token).and_then(layer_of) else {
            continue;
        };
        let behind_dot = n > 0 && tokens[n - 1].token == Token::Period;
        let dot_follows = tokens.get(n + 1).is_some_and(|next| next.token == Token::Period);
        let table = tokens.get(n + 2).and_then(|next| word(&next.token));
        if let (false, true, Some(table)) = (behind_dot, dot_follows, table) {
            references.push(LayerReference {
                layer,
                table: normalised(table),
                line: token.span.start.line as usize,
                column: token.span.start.column as usize,
                doubtful: false,
            });
        }
    }
    for reference in &mut references {
        reference.doubtful = is_alias(&tokens, reference.layer);
    }
    Ok(Scanned {
        references,
        empty: tokens
            .iter()
            .all(|token| matches!(token.token, Token::SemiColon | Token::EOF)),
    })
}

/// Whether the layer's name is used as an alias (`AS gold`, `FROM t gold`, `FROM (...) gold`) or as a CTE (`gold AS
/// (`).
fn is_alias(tokens: &[TokenWithSpan], layer: Layer) -> bool {
    (0..tokens.len()).any(|n| {
        let is_layer = word(&tokens[n].token).and_then(layer_of) == Some(layer);
        let next = tokens.get(n + 1).map(|token| &token.token);
        if !is_layer || n == 0 || next == Some(&Token::Period) {
            return false;
        }
        let begins_cte = next.and_then(word).is_some_and(|w| is_unquoted(w, "AS"));
        let named = match &tokens[n - 1].token {
            Token::RParen => true,
            Token::Word(before) => is_unquoted(before, "AS") || before.keyword == Keyword::NoKeyword,
            _ => false,
        };
        begins_cte || named
    })
}

fn is_unquoted(word: &Word, text: &str) -> bool {
    word.quote_style.is_none() && word.value.eq_ignore_ascii_case(text)
}

fn word(token: &Token) -> Option<&Word> {
    match token {
        Token::Word(word) => Some(word),
        _ => None,
    }
}

fn layer_of(word: &Word) -> Option<Layer> {
    match normalised(word).as_str() {
        "silver" => Some(Layer::Silver),
        "gold" => Some(Layer::Gold),
        _ => None,
    }
}

/// A name as the planner sees it: unquoted names are lower case.
fn normalised(word: &Word) -> String {
    match word.quote_style {
        Some(_) => word.value.clone(),
        None => word.value.to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references_of(sql: &str) -> Vec<(String, usize, usize, bool)> {
        scan(sql)
            .expect("tokens")
            .references
            .into_iter()
            .map(|r| (format!("{}.{}", r.layer.name(), r.table), r.line, r.column, r.doubtful))
            .collect()
    }

    #[test]
    fn references_are_found_in_any_syntax_with_line_and_column() {
        let sql = "-- silver.no\nSELECT 'gold.no', t.silver.no\nFROM Silver . \"Orders\" JOIN \"gold\".x ON true\n\
                   FROM TABLE(TUMBLE(TABLE silver.events, DESCRIPTOR(ts), INTERVAL '1' MINUTE))";
        assert_eq!(
            references_of(sql),
            [
                ("silver.Orders".to_string(), 3, 6, false),
                ("gold.x".to_string(), 3, 29, false),
                ("silver.events".to_string(), 4, 25, false),
            ]
        );
    }

    #[test]
    fn a_layers_name_used_as_an_alias_makes_its_references_doubtful() {
        for sql in [
            "SELECT gold.x FROM t AS gold",
            "SELECT gold.x FROM t gold",
            "SELECT gold.x FROM (SELECT 1) gold",
            "WITH gold AS (SELECT 1 AS x) SELECT gold.x FROM gold",
        ] {
            assert!(references_of(sql)[0].3, "{sql}");
        }
        assert!(!references_of("SELECT gold, m.gold FROM gold.x ORDER BY gold")[0].3);
        assert!(!references_of("SELECT gold.x, silver.y FROM t AS gold")[1].3);
    }

    #[test]
    fn comments_and_semicolons_alone_are_an_empty_file() {
        assert!(scan("-- to come\n /* later */ ;\n").expect("tokens").empty);
        assert!(scan("").expect("tokens").empty);
        assert!(!scan("SELECT 1").expect("tokens").empty);
    }

    #[test]
    fn an_open_quote_is_an_error_with_its_place() {
        let error = scan("SELECT 1\nFROM 'x").err().expect("an open quote");
        assert_eq!((error.location.line, error.location.column), (2, 6));
    }
}
