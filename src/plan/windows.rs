//! Rewrites window table functions into plain SQL, on tokens, before it is parsed.
//!
//! `TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE))` becomes a subquery with two more columns,
//! `window_start` and `window_end` (TIMESTAMP; the end is exclusive); so do `HOP(TABLE t, DESCRIPTOR(ts),
//! slide, size)` and `SESSION(TABLE t [PARTITION BY k, ...], DESCRIPTOR(ts), gap)`. A row without a time is in
//! no window. Every new token carries the span of the function for which it stands, so diagnostics point at
//! what the user wrote.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan, Tokenizer};

use super::dialect::Standard;
use super::error::Refusal;
use crate::definition::nearest;

/// The tokens of `sql` without white space and comments.
pub(super) fn tokenize(sql: &str) -> Result<Vec<TokenWithSpan>, Refusal> {
    Tokenizer::new(&Standard, sql)
        .tokenize_with_location()
        .map_err(|error| {
            Refusal::new(format!("could not read the SQL: {}", error.message))
                .at(Some(Span::new(error.location, error.location)))
        })
        .map(|tokens| {
            tokens
                .into_iter()
                .filter(|t| !matches!(t.token, Token::Whitespace(_)))
                .collect()
        })
}

/// Replaces every window table function.
pub(super) fn rewrite(tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>, Refusal> {
    let mut rewritten = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        match Call::parse(&tokens, at)? {
            Some(call) => {
                at = call.end;
                call.write(&tokens, &mut rewritten)?;
            }
            None => {
                rewritten.push(tokens[at].clone());
                at += 1;
            }
        }
    }
    Ok(rewritten)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tumble,
    Hop,
    Session,
}

impl Kind {
    const ALL: [(&'static str, Kind); 3] = [("TUMBLE", Kind::Tumble), ("HOP", Kind::Hop), ("SESSION", Kind::Session)];

    /// The function that is called at `name`, if it is a window table function. `wrapped` says that TABLE( precedes it.
    fn called(tokens: &[TokenWithSpan], name: usize, wrapped: bool) -> Result<Option<Kind>, Refusal> {
        let kind = Kind::ALL.into_iter().find(|(word, _)| is_word(tokens, name, word));
        let is_call = tokens.get(name + 1).is_some_and(|t| t.token == Token::LParen);
        let is_over_table = is_call && is_word(tokens, name + 2, "TABLE");
        match kind {
            Some((_, kind)) if is_over_table || (wrapped && is_call) => Ok(Some(kind)),
            None if wrapped && is_over_table => {
                let word = tokens[name].token.to_string();
                let usage = usage_of(&word).unwrap_or("window functions are TUMBLE, HOP and SESSION");
                let refusal = Refusal::new(format!("could not find a window function {word}"));
                Err(refusal.help(usage).at(Some(tokens[name].span)))
            }
            _ => Ok(None),
        }
    }

    fn usage(self) -> &'static str {
        match self {
            Kind::Tumble => "write TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE))",
            Kind::Hop => {
                "write TABLE(HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '15' MINUTE, INTERVAL '60' MINUTE)): slide, then size"
            }
            Kind::Session => "write TABLE(SESSION(TABLE t PARTITION BY k, DESCRIPTOR(ts), INTERVAL '30' MINUTE))",
        }
    }
}

/// How the window table function is written that a name most likely stands for.
pub(super) fn usage_of(name: &str) -> Option<&'static str> {
    let near = nearest(name, Kind::ALL.map(|(word, _)| word))?;
    let (_, kind) = Kind::ALL.into_iter().find(|(word, _)| *word == near)?;
    Some(kind.usage())
}

/// A call of a window table function, with the tokens of its arguments.
struct Call {
    kind: Kind,
    span: Span,
    table: Vec<Token>,
    partition: Vec<Token>,
    time: Vec<Token>,
    lengths: Vec<Vec<Token>>,
    end: usize,
}

impl Call {
    /// The call that begins at `start`, if there is one.
    fn parse(tokens: &[TokenWithSpan], start: usize) -> Result<Option<Call>, Refusal> {
        let is = |at: usize, token: &Token| tokens.get(at).is_some_and(|t| &t.token == token);
        let wrapped = is_word(tokens, start, "TABLE") && is(start + 1, &Token::LParen);
        let name = if wrapped { start + 2 } else { start };
        let Some(kind) = Kind::called(tokens, name, wrapped)? else {
            return Ok(None);
        };
        let span = tokens[name].span;
        let refused = |what: &str| {
            Refusal::new(format!("could not read the window function: {what}"))
                .help(kind.usage())
                .at(Some(span))
        };
        let Some((arguments, mut end)) = arguments(tokens, name + 2) else {
            return Err(refused("a parenthesis is not closed"));
        };
        if wrapped {
            if !is(end, &Token::RParen) {
                return Err(refused("TABLE( is not closed"));
            }
            end += 1;
        }
        let wanted = if kind == Kind::Hop { 4 } else { 3 };
        if arguments.len() < wanted {
            return Err(refused(&format!(
                "it takes {wanted} arguments, {} are given",
                arguments.len()
            )));
        }
        let mut arguments = arguments.into_iter();
        let mut table = arguments.next().expect("there are at least three arguments");
        if !word_is(table.first(), "TABLE") || table.len() < 2 {
            return Err(refused("its first argument is not TABLE t"));
        }
        table.remove(0);
        let mut partition = Vec::new();
        if let Some(by) = table.iter().position(|t| word_is(Some(t), "PARTITION")) {
            partition = table.split_off(by);
            partition.drain(..2.min(partition.len()));
        }
        let mut rest: Vec<Vec<Token>> = arguments.collect();
        // In PARTITION BY a, b the comma between the columns has split them like arguments.
        while rest.first().is_some_and(|a| !word_is(a.first(), "DESCRIPTOR")) && !partition.is_empty() {
            partition.push(Token::Comma);
            partition.extend(rest.remove(0));
        }
        if !partition.is_empty() && kind != Kind::Session {
            return Err(refused("only SESSION has partitions"));
        }
        if rest.len() != wanted - 1 {
            return Err(refused(&format!(
                "it takes {wanted} arguments, {} are given",
                rest.len() + 1
            )));
        }
        let mut time = rest.remove(0);
        let well_formed = word_is(time.first(), "DESCRIPTOR")
            && time.get(1) == Some(&Token::LParen)
            && time.last() == Some(&Token::RParen)
            && time.len() > 3;
        if !well_formed {
            return Err(refused("its second argument is not DESCRIPTOR(column)"));
        }
        time.pop();
        time.drain(..2);
        for length in &rest {
            if !word_is(length.first(), "INTERVAL") {
                return Err(refused("a length is not an INTERVAL"));
            }
            let text = length[1..]
                .iter()
                .map(|t| t.to_string())
                .collect::<String>()
                .to_lowercase();
            let is_of_months = ["mon", "year", "quarter", "decade", "century"];
            if kind == Kind::Session && is_of_months.iter().any(|unit| text.contains(unit)) {
                return Err(refused("months and years have no fixed length; write it in days"));
            }
            if text.contains('-') || !text.contains(|c: char| ('1'..='9').contains(&c)) {
                return Err(refused("a length must be longer than nothing"));
            }
        }
        Ok(Some(Call {
            kind,
            span,
            table,
            partition,
            time,
            lengths: rest,
            end,
        }))
    }

    fn write(&self, tokens: &[TokenWithSpan], out: &mut Vec<TokenWithSpan>) -> Result<(), Refusal> {
        let text = |tokens: &[Token]| tokens.iter().map(|t| t.to_string()).collect::<Vec<_>>().join(" ");
        let table = self.table.iter().map(|t| t.to_string()).collect::<String>();
        let time = format!("window_time({})", text(&self.time));
        let lengths: Vec<String> = self.lengths.iter().map(|l| text(l)).collect();
        let rows = format!("FROM {table} WHERE {} IS NOT NULL", text(&self.time));
        let mut sql = match self.kind {
            Kind::Tumble => format!(
                "(SELECT *, window_start + {size} AS window_end \
                 FROM (SELECT *, date_bin({size}, {time}) AS window_start {rows}) AS windowed)",
                size = lengths[0],
            ),
            Kind::Hop => format!(
                "(SELECT *, window_start + {size} AS window_end \
                 FROM (SELECT *, unnest(hop_windows({time}, {slide}, {size})) AS window_start {rows}) AS windowed)",
                slide = lengths[0],
                size = lengths[1],
            ),
            Kind::Session => {
                let by = match self.partition.as_slice() {
                    [] => String::new(),
                    columns => format!("PARTITION BY {} ", text(columns)),
                };
                let bound = |side: &str| format!("session_{side}({time}, {}) OVER ({by}ORDER BY {time})", lengths[0]);
                format!(
                    "(SELECT *, {} AS window_start, {} AS window_end {rows})",
                    bound("start"),
                    bound("end"),
                )
            }
        };
        if !self.aliased(tokens)
            && let Some(name) = self.table.last()
        {
            sql.push_str(&format!(" AS {name}"));
        }
        out.extend(tokenize(&sql)?.into_iter().map(|token| TokenWithSpan {
            span: self.span,
            ..token
        }));
        Ok(())
    }

    /// Whether an alias follows the call.
    fn aliased(&self, tokens: &[TokenWithSpan]) -> bool {
        match tokens.get(self.end).map(|t| &t.token) {
            Some(Token::Word(word)) => {
                word.quote_style.is_some() || matches!(word.keyword, Keyword::AS | Keyword::NoKeyword)
            }
            _ => false,
        }
    }
}

/// The tokens of each argument, up to the parenthesis that closes the call, and the position after that parenthesis.
fn arguments(tokens: &[TokenWithSpan], start: usize) -> Option<(Vec<Vec<Token>>, usize)> {
    let mut arguments = vec![Vec::new()];
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(start) {
        match &token.token {
            Token::LParen => depth += 1,
            Token::RParen if depth == 0 => return Some((arguments, at + 1)),
            Token::RParen => depth -= 1,
            Token::Comma if depth == 0 => {
                arguments.push(Vec::new());
                continue;
            }
            _ => {}
        }
        arguments.last_mut()?.push(token.token.clone());
    }
    None
}

/// Whether the token is this word, in any case and without quotes.
pub(super) fn is_word(tokens: &[TokenWithSpan], at: usize, word: &str) -> bool {
    word_is(tokens.get(at).map(|t| &t.token), word)
}

fn word_is(token: Option<&Token>, expected: &str) -> bool {
    matches!(token, Some(Token::Word(word)) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(expected))
}
