//! Rewrites `format('%s of %2$s', a, b)` as `concat`, if the format is a literal and has only `%s`, `%n$s` and
//! `%%`. Identifiers, literals and widths are not supported.

use datafusion::sql::sqlparser::ast::{Expr, Function};

use super::ident;
use crate::plan::syntax::{self, text};

/// Rewrites a call; `None` if the format has anything else, or if a value is missing.
pub(super) fn written_out(function: &Function, format: &str, args: &[Expr]) -> Option<Expr> {
    let mut parts: Vec<Expr> = vec![];
    let mut plain = String::new();
    let mut rest = format;
    // The position, from 0, of the value for the next %s.
    let mut next = 0;
    while let Some((before, behind)) = rest.split_once('%') {
        plain.push_str(before);
        if let Some(behind) = behind.strip_prefix('%') {
            plain.push('%');
            rest = behind;
            continue;
        }
        let digits = behind.bytes().take_while(u8::is_ascii_digit).count();
        let behind = match digits {
            0 => behind,
            digits => {
                next = behind[..digits].parse::<usize>().ok()?.checked_sub(1)?;
                behind[digits..].strip_prefix('$')?
            }
        };
        rest = behind.strip_prefix('s')?;
        if !plain.is_empty() {
            parts.push(text(std::mem::take(&mut plain)));
        }
        parts.push(args.get(next)?.clone());
        next += 1;
    }
    plain.push_str(rest);
    if parts.is_empty() {
        return Some(text(plain));
    }
    if !plain.is_empty() {
        parts.push(text(plain));
    }
    let mut name = ident(function);
    name.value = "concat".to_string();
    Some(Expr::Function(syntax::call(name, parts)))
}
