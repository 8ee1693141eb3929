//! The dialect in which SQL is read: DataFusion's generic dialect with the operators of PostgreSQL.
//!
//! Operators bind as PostgreSQL's do, from tight to loose:
//!
//! ```text
//! .   ::   [ ]   COLLATE   AT TIME ZONE   - (of one operand)   ^   * / %   + -
//! || -> ->> ~ & | # << >> and other operators
//! BETWEEN IN LIKE SIMILAR   < > = <= >= <>   IS   NOT   AND   OR
//! ```
//!
//! `#` is exclusive or, and not part of a name; `^` is power, see [`operators`](super::operators). BETWEEN
//! SYMMETRIC takes its bounds in either order, so it is read as two BETWEENs.

use std::any::TypeId;

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, TrimWhereField, UnaryOperator};
use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect, PostgreSqlDialect, Precedence};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::syntax::nested_binary;

/// The dialect in which every statement and expression is read.
#[derive(Clone, Copy, Debug)]
pub struct Standard;

/// The precedence of a minus with one operand: between AT TIME ZONE and `^`.
const SIGN: u8 = 105;

/// Methods that return what the generic dialect returns.
macro_rules! as_generic {
    ($($supports:ident,)*) => {
        $(fn $supports(&self) -> bool {
            GenericDialect.$supports()
        })*
    };
}

impl Dialect for Standard {
    /// In some places the parser asks whether the dialect is the generic one.
    fn dialect(&self) -> TypeId {
        TypeId::of::<GenericDialect>()
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        GenericDialect.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        ch != '#' && GenericDialect.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        ch != '#' && GenericDialect.is_identifier_part(ch)
    }

    fn prec_value(&self, precedence: Precedence) -> u8 {
        PostgreSqlDialect {}.prec_value(precedence)
    }

    fn get_next_precedence(&self, parser: &Parser) -> Option<Result<u8, ParserError>> {
        let other = self.prec_value(Precedence::PgOther);
        match &parser.peek_token_ref().token {
            Token::StringConcat
            | Token::Sharp
            | Token::ShiftLeft
            | Token::ShiftRight
            | Token::CaretAt
            | Token::Overlap
            | Token::Tilde
            | Token::TildeAsterisk
            | Token::ExclamationMarkTilde
            | Token::ExclamationMarkTildeAsterisk
            | Token::DoubleTilde
            | Token::DoubleTildeAsterisk
            | Token::ExclamationMarkDoubleTilde
            | Token::ExclamationMarkDoubleTildeAsterisk => Some(Ok(other)),
            _ => None,
        }
    }

    fn parse_prefix(&self, parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        if let Some(side) = trims_blanks(parser) {
            return Some(trimmed(parser, side));
        }
        let op = match parser.peek_token_ref().token {
            Token::Minus => UnaryOperator::Minus,
            Token::Plus => UnaryOperator::Plus,
            _ => return None,
        };
        parser.next_token();
        let operand = parser.parse_subexpr(SIGN);
        Some(operand.map(|expr| Expr::UnaryOp {
            op,
            expr: Box::new(expr),
        }))
    }

    fn parse_infix(&self, parser: &mut Parser, left: &Expr, precedence: u8) -> Option<Result<Expr, ParserError>> {
        const DISTINCT: [Keyword; 3] = [Keyword::IS, Keyword::DISTINCT, Keyword::FROM];
        const NOT_DISTINCT: [Keyword; 4] = [Keyword::IS, Keyword::NOT, Keyword::DISTINCT, Keyword::FROM];
        if let Some(negated) = is_symmetric(parser) {
            return Some(between(parser, left, negated));
        }
        let left = || Box::new(left.clone());
        if parser.parse_keywords(&DISTINCT) {
            let right = parser.parse_subexpr(precedence);
            return Some(right.map(|right| Expr::IsDistinctFrom(left(), Box::new(right))));
        }
        if parser.parse_keywords(&NOT_DISTINCT) {
            let right = parser.parse_subexpr(precedence);
            return Some(right.map(|right| Expr::IsNotDistinctFrom(left(), Box::new(right))));
        }
        let op = match parser.peek_token_ref().token {
            Token::Caret => BinaryOperator::PGExp,
            Token::Sharp => BinaryOperator::PGBitwiseXor,
            _ => return None,
        };
        parser.next_token();
        let right = parser.parse_subexpr(precedence);
        Some(right.map(|right| Expr::BinaryOp {
            left: left(),
            op,
            right: Box::new(right),
        }))
    }

    as_generic! {
        supports_unicode_string_literal,
        supports_partition_by_after_order_by,
        supports_array_join_syntax,
        supports_group_by_expr,
        supports_group_by_with_modifier,
        supports_left_associative_joins_without_parens,
        supports_connect_by,
        supports_match_recognize,
        supports_pipe_operator,
        supports_start_transaction_modifier,
        supports_window_function_null_treatment_arg,
        supports_dictionary_syntax,
        supports_window_clause_named_window_reference,
        supports_parenthesized_set_variables,
        supports_select_wildcard_except,
        support_map_literal_syntax,
        allow_extract_custom,
        allow_extract_single_quotes,
        supports_extract_comma_syntax,
        supports_create_view_comment_syntax,
        supports_parens_around_table_factor,
        supports_values_as_table_factor,
        supports_create_index_with_clause,
        supports_explain_with_utility_options,
        supports_limit_comma,
        supports_update_order_by,
        supports_from_first_select,
        supports_projection_trailing_commas,
        supports_asc_desc_in_column_definition,
        supports_try_convert,
        supports_bitwise_shift_operators,
        supports_comment_on,
        supports_load_extension,
        supports_named_fn_args_with_assignment_operator,
        supports_struct_literal,
        supports_empty_projections,
        supports_nested_comments,
        supports_multiline_comment_hints,
        supports_user_host_grantee,
        supports_string_escape_constant,
        supports_array_typedef_with_brackets,
        supports_match_against,
        supports_set_names,
        supports_comma_separated_set_assignments,
        supports_filter_during_aggregation,
        supports_select_wildcard_exclude,
        supports_data_type_signed_suffix,
        supports_interval_options,
        supports_quote_delimited_string,
        supports_select_wildcard_replace,
        supports_select_wildcard_ilike,
        supports_select_wildcard_rename,
        supports_optimize_table,
        supports_install,
        supports_detach,
        supports_prewhere,
        supports_with_fill,
        supports_limit_by,
        supports_interpolate,
        supports_settings,
        supports_select_format,
        supports_comment_optimizer_hint,
        supports_constraint_keyword_without_name,
        supports_key_column_option,
        supports_comma_separated_trim,
        supports_cte_without_as,
        supports_select_item_multi_column_alias,
        supports_xml_expressions,
    }
}

/// Whether `[NOT] BETWEEN {SYMMETRIC | ASYMMETRIC}` follows; if so, whether it begins with NOT.
fn is_symmetric(parser: &Parser) -> Option<bool> {
    let keyword = |n: usize| match &parser.peek_nth_token_ref(n).token {
        Token::Word(word) if word.quote_style.is_none() => word.keyword,
        _ => Keyword::NoKeyword,
    };
    let negated = keyword(0) == Keyword::NOT;
    let at = usize::from(negated);
    let says = keyword(at) == Keyword::BETWEEN && matches!(keyword(at + 1), Keyword::SYMMETRIC | Keyword::ASYMMETRIC);
    // SYMMETRIC may also be the name of a column.
    (says && keyword(at + 2) != Keyword::AND).then_some(negated)
}

/// Parses the BETWEEN that [`is_symmetric`] has found.
fn between(parser: &mut Parser, left: &Expr, negated: bool) -> Result<Expr, ParserError> {
    (0..1 + usize::from(negated)).for_each(|_| parser.advance_token());
    let symmetric = parser.parse_keyword(Keyword::SYMMETRIC);
    if !symmetric {
        parser.expect_keyword(Keyword::ASYMMETRIC)?;
    }
    let precedence = Standard.prec_value(Precedence::Between);
    let low = parser.parse_subexpr(precedence)?;
    parser.expect_keyword(Keyword::AND)?;
    let high = parser.parse_subexpr(precedence)?;
    let between = |low: Expr, high: Expr| Expr::Between {
        expr: Box::new(left.clone()),
        negated,
        low: Box::new(low),
        high: Box::new(high),
    };
    if !symmetric {
        return Ok(between(low, high));
    }
    let op = match negated {
        true => BinaryOperator::And,
        false => BinaryOperator::Or,
    };
    Ok(nested_binary(
        between(low.clone(), high.clone()),
        op,
        between(high, low),
    ))
}

/// Whether `TRIM([BOTH | LEADING | TRAILING] FROM` follows, without characters to trim; if so, which side it names.
fn trims_blanks(parser: &Parser) -> Option<Option<TrimWhereField>> {
    let keyword = |n: usize| match &parser.peek_nth_token_ref(n).token {
        Token::Word(word) if word.quote_style.is_none() => word.keyword,
        _ => Keyword::NoKeyword,
    };
    if keyword(0) != Keyword::TRIM || parser.peek_nth_token_ref(1).token != Token::LParen {
        return None;
    }
    let side = match keyword(2) {
        Keyword::FROM => return Some(None),
        Keyword::BOTH => TrimWhereField::Both,
        Keyword::LEADING => TrimWhereField::Leading,
        Keyword::TRAILING => TrimWhereField::Trailing,
        _ => return None,
    };
    (keyword(3) == Keyword::FROM).then_some(Some(side))
}

fn trimmed(parser: &mut Parser, side: Option<TrimWhereField>) -> Result<Expr, ParserError> {
    let words = if side.is_some() { 4 } else { 3 };
    (0..words).for_each(|_| parser.advance_token());
    let expr = Box::new(parser.parse_expr()?);
    parser.expect_token(&Token::RParen)?;
    Ok(Expr::Trim {
        expr,
        trim_where: side,
        trim_what: None,
        trim_characters: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::sql::sqlparser::ast::{SelectItem, SetExpr, Statement};

    /// The expression as text, with parentheses around each operation.
    fn read(sql: &str) -> String {
        let expr = Parser::new(&Standard).try_with_sql(sql).unwrap().parse_expr().unwrap();
        shown(&expr)
    }

    fn shown(expr: &Expr) -> String {
        match expr {
            Expr::BinaryOp { left, op, right } => format!("({} {op} {})", shown(left), shown(right)),
            Expr::UnaryOp { op, expr } => format!("({op} {})", shown(expr)),
            Expr::IsDistinctFrom(left, right) => format!("({} is distinct from {})", shown(left), shown(right)),
            Expr::IsNotDistinctFrom(left, right) => format!("({} is not distinct from {})", shown(left), shown(right)),
            Expr::IsNull(expr) => format!("({} is null)", shown(expr)),
            Expr::IsNotNull(expr) => format!("({} is not null)", shown(expr)),
            Expr::IsTrue(expr) => format!("({} is true)", shown(expr)),
            Expr::Like { expr, pattern, .. } => format!("({} like {})", shown(expr), shown(pattern)),
            Expr::InList { expr, list, .. } => {
                let list: Vec<String> = list.iter().map(shown).collect();
                format!("({} in [{}])", shown(expr), list.join(", "))
            }
            Expr::Between { expr, low, high, .. } => {
                format!("({} between {} and {})", shown(expr), shown(low), shown(high))
            }
            Expr::Cast { expr, data_type, .. } => format!("({}::{data_type})", shown(expr)),
            Expr::AtTimeZone { timestamp, time_zone } => format!("({} at {})", shown(timestamp), shown(time_zone)),
            Expr::Collate { expr, collation } => format!("({} collate {collation})", shown(expr)),
            Expr::Nested(expr) => shown(expr),
            other => other.to_string(),
        }
    }

    #[test]
    fn operators_bind_as_in_postgresql() {
        for (sql, meant) in [
            ("a IS DISTINCT FROM b AND c", "((a is distinct from b) AND c)"),
            ("a IS NOT DISTINCT FROM b OR c", "((a is not distinct from b) OR c)"),
            ("a IS DISTINCT FROM b + 1 = c", "(a is distinct from ((b + 1) = c))"),
            ("a = b IS DISTINCT FROM c", "((a = b) is distinct from c)"),
            ("NOT a IS DISTINCT FROM b", "(NOT (a is distinct from b))"),
            ("s ->> 'a' || 'y'", "((s ->> 'a') || 'y')"),
            ("'y' || s ->> 'a'", "(('y' || s) ->> 'a')"),
            ("s ->> 'n' IS NULL", "((s ->> 'n') is null)"),
            ("s ->> 'n' = 'x'", "((s ->> 'n') = 'x')"),
            (
                "s -> 'a' ->> 'n' LIKE 'x' || '%'",
                "(((s -> 'a') ->> 'n') like ('x' || '%'))",
            ),
            ("s ->> 'n' IN ('x')", "((s ->> 'n') in ['x'])"),
            ("a + 1 || b * 2", "((a + 1) || (b * 2))"),
            ("a || b = c || d", "((a || b) = (c || d))"),
            ("a ^ 2 * 3", "((a ^ 2) * 3)"),
            ("a * b ^ 2", "(a * (b ^ 2))"),
            ("a ^ b ^ c", "((a ^ b) ^ c)"),
            ("- a ^ 2", "((- a) ^ 2)"),
            ("- a * b", "((- a) * b)"),
            ("- a::BIGINT", "(- (a::BIGINT))"),
            ("a - - b", "(a - (- b))"),
            ("a # b + 1", "(a # (b + 1))"),
            ("a#b", "(a # b)"),
            ("a & b = c", "((a & b) = c)"),
            ("a << 1 + b", "(a << (1 + b))"),
            ("a | b & c", "((a | b) & c)"),
            ("a BETWEEN b AND c AND d", "((a between b and c) AND d)"),
            (
                "a BETWEEN b || 'x' AND c + 1 OR d",
                "((a between (b || 'x') and (c + 1)) OR d)",
            ),
            ("a BETWEEN b AND c IS TRUE", "((a between b and c) is true)"),
            ("NOT a BETWEEN b AND c", "(NOT (a between b and c))"),
            (
                "a BETWEEN SYMMETRIC b + 1 AND c AND d",
                "(((a between (b + 1) and c) OR (a between c and (b + 1))) AND d)",
            ),
            (
                "a NOT BETWEEN SYMMETRIC (b) AND c OR d",
                "(((a between b and c) AND (a between c and b)) OR d)",
            ),
            ("a BETWEEN ASYMMETRIC b AND c", "(a between b and c)"),
            ("NOT a IS NULL", "(NOT (a is null))"),
            ("NOT a = b", "(NOT (a = b))"),
            ("NOT a AND b", "((NOT a) AND b)"),
            ("a = b IS NOT NULL", "((a = b) is not null)"),
            ("a < b IS NULL AND c", "(((a < b) is null) AND c)"),
            ("a = b IN (c)", "(a = (b in [c]))"),
            ("a LIKE b || '%' AND c", "((a like (b || '%')) AND c)"),
            ("a ~ b || c", "((a ~ b) || c)"),
            ("a ^@ b || c = d", "(((a ^@ b) || c) = d)"),
            ("a && b || c AND d", "(((a && b) || c) AND d)"),
            ("a = b ~ c", "(a = (b ~ c))"),
            ("a LIKE b = c", "((a like b) = c)"),
            ("a + b::INT", "(a + (b::INT))"),
            ("a + b AT TIME ZONE 'UTC'", "(a + (b at 'UTC'))"),
            ("a::TIMESTAMP AT TIME ZONE 'UTC'", "((a::TIMESTAMP) at 'UTC')"),
            ("a || b COLLATE c", "(a || (b collate c))"),
            ("a OR b AND c", "(a OR (b AND c))"),
            ("trim(BOTH FROM a) || trim(from a)", "(TRIM(BOTH a) || TRIM(a))"),
            ("trim(LEADING 'x' FROM a)", "TRIM(LEADING 'x' FROM a)"),
        ] {
            assert_eq!(read(sql), meant, "{sql}");
        }
    }

    /// SQL without operators is read as the generic dialect reads it.
    #[test]
    fn other_sql_is_read_as_by_the_generic_dialect() {
        for sql in [
            "SELECT * EXCLUDE (a) FROM t",
            "SELECT a, FROM t",
            "SELECT `a`, \"b\", [1, 2][1] FROM t QUALIFY row_number() OVER (ORDER BY a) = 1",
            "SELECT EXTRACT(EPOCH FROM a), INTERVAL '1' DAY, {'a': 1}, MAP {'a': 1} FROM t",
            "SELECT count(*) FILTER (WHERE a), sum(b) OVER w FROM t WINDOW w AS (PARTITION BY c) LIMIT 1, 2",
            "SELECT a FROM t GROUP BY ALL",
            "FROM t",
        ] {
            let ours = Parser::parse_sql(&Standard, sql).map_err(|e| e.to_string());
            assert_eq!(
                ours,
                Parser::parse_sql(&GenericDialect, sql).map_err(|e| e.to_string()),
                "{sql}"
            );
        }
        let statements = Parser::parse_sql(&Standard, "SELECT a -> 'b' AS c FROM t").unwrap();
        let Statement::Query(query) = &statements[0] else {
            panic!("{statements:?}")
        };
        let SetExpr::Select(select) = query.body.as_ref() else {
            panic!("{query}")
        };
        assert!(matches!(select.projection[0], SelectItem::ExprWithAlias { .. }));
    }
}
