//! Random queries: their FROM clauses, and the operations on them.

use super::exprs::compared;
use super::{COMPARED, Column, Generator, Kind, Named, Relation, Scope};

/// The most rows of a join, and ten times the most of a cross join.
const MANY: usize = 5000;

/// A SELECT, and its result.
pub(super) struct Body {
    pub sql: String,
    pub columns: Vec<Column>,
    pub rows: usize,
}

/// A FROM clause: its text, the columns that it offers, and about how many rows.
struct From {
    sql: String,
    scope: Vec<Named>,
    rows: usize,
}

impl Generator {
    /// A statement, with or without WITH.
    pub(super) fn statement(&mut self, depth: usize) -> Body {
        if depth > 1 && self.chance(0.15) {
            return self.with(depth);
        }
        self.body(depth)
    }

    fn body(&mut self, depth: usize) -> Body {
        match self.below(20) {
            0..=4 => self.select(depth),
            5..=9 => self.group(depth),
            10 => self.distinct(depth),
            11 | 12 => self.set_operation(depth),
            13 | 14 => self.top(depth),
            15 | 16 => self.ranked(depth),
            17 => self.unnest(depth),
            18 => self.running(depth),
            _ => self.windowed(depth),
        }
    }

    /// A query over a CTE, which is used once or twice.
    fn with(&mut self, depth: usize) -> Body {
        let cte = self.body(depth - 1);
        let name = self.name("q");
        self.relations.push(Relation {
            name: name.clone(),
            columns: cte.columns.clone(),
            rows: cte.rows,
        });
        let mut from = self.aliased(&name, &cte.columns, cte.rows);
        if self.chance(0.5) {
            from = self.join(from, depth - 1);
        }
        let mut body = self.select_from(from, true);
        self.relations.retain(|r| r.name != name);
        body.sql = format!("WITH {name} AS ({}) {}", cte.sql, body.sql);
        body
    }

    fn select(&mut self, depth: usize) -> Body {
        let from = self.from(depth);
        self.select_from(from, true)
    }

    fn select_from(&mut self, from: From, filter: bool) -> Body {
        let (mut items, mut columns) = (vec![], vec![]);
        for _ in 0..self.rng_int(1, 4) {
            let (sql, kind) = self.item(&from.scope);
            let name = self.name("c");
            items.push(format!("{sql} AS {name}"));
            columns.push((name, kind));
        }
        let condition = if filter && self.chance(0.6) {
            self.filter(&from.scope)
        } else {
            String::new()
        };
        Body {
            sql: format!("SELECT {} FROM {}{condition}", items.join(", "), from.sql),
            columns,
            rows: from.rows,
        }
    }

    /// An expression of SELECT.
    fn item(&mut self, scope: &Scope) -> Named {
        if self.chance(0.3) {
            return self.pick(scope);
        }
        if self.chance(0.1)
            && let Some(scalar) = self.scalar_subquery(scope)
        {
            return (scalar, Kind::Int);
        }
        let kind = self.pick(&COMPARED);
        (self.expr(kind, scope, 3), kind)
    }

    /// A ` WHERE ...` clause, which may have subqueries among its conditions.
    fn filter(&mut self, scope: &Scope) -> String {
        let mut conditions = vec![];
        if self.chance(0.7) {
            conditions.push(self.condition(scope, 2));
        }
        if conditions.is_empty() || self.chance(0.25) {
            let subquery = self.subquery_condition(scope);
            conditions.push(subquery.unwrap_or_else(|| "TRUE".to_string()));
        }
        let glue = if self.chance(0.8) { " AND " } else { " OR " };
        let conditions: Vec<String> = conditions.iter().map(|c| format!("({c})")).collect();
        format!(" WHERE {}", conditions.join(glue))
    }

    /// IN, EXISTS, and comparisons with a scalar subquery.
    fn subquery_condition(&mut self, scope: &Scope) -> Option<String> {
        let outer = compared(scope);
        if outer.is_empty() {
            return None;
        }
        let (column, kind) = self.pick(&outer);
        let relation = self.pick(&self.relations.clone());
        let inner = self.aliased(&relation.name, &relation.columns, relation.rows);
        let not = self.pick(&["", "NOT "]);
        match self.below(3) {
            0 => {
                let of = self.expr(kind, &inner.scope, 1);
                let condition = self.condition(&inner.scope, 1);
                Some(format!(
                    "{column} {not}IN (SELECT {of} FROM {} WHERE {condition})",
                    inner.sql
                ))
            }
            1 => {
                let (mine, theirs) = self.shared(scope, &inner.scope)?;
                let further = if self.chance(0.4) {
                    let kind = self.present(&inner.scope);
                    let (a, b) = (self.expr(kind, &inner.scope, 0), self.expr(kind, scope, 0));
                    format!(" AND {a} < {b}")
                } else {
                    String::new()
                };
                Some(format!(
                    "{not}EXISTS (SELECT 1 FROM {} WHERE {theirs} = {mine}{further})",
                    inner.sql
                ))
            }
            _ => {
                let scalar = self.scalar_subquery(scope)?;
                let op = self.pick(&["<", ">", ">=", "<>"]);
                Some(format!("{} {op} {scalar}", self.expr(Kind::Int, scope, 1)))
            }
        }
    }

    /// A subquery that yields one whole number, correlated or not.
    fn scalar_subquery(&mut self, scope: &Scope) -> Option<String> {
        let relation = self.pick(&self.relations.clone());
        let inner = self.aliased(&relation.name, &relation.columns, relation.rows);
        let of = self.expr(Kind::Int, &inner.scope, 1);
        let function = self.pick(&["SUM", "MIN", "MAX", "COUNT"]);
        let condition = if self.chance(0.5) {
            let (mine, theirs) = self.shared(scope, &inner.scope)?;
            format!("{theirs} = {mine}")
        } else {
            self.condition(&inner.scope, 1)
        };
        Some(format!(
            "(SELECT {function}({of}) FROM {} WHERE {condition})",
            inner.sql
        ))
    }

    /// A pair of columns that can be joined on.
    fn shared(&mut self, left: &Scope, right: &Scope) -> Option<(String, String)> {
        let mut pairs = vec![];
        for (a, kind) in compared(left) {
            let likely = matches!(kind, Kind::Int | Kind::Text | Kind::Time | Kind::Decimal);
            pairs.extend(
                right
                    .iter()
                    .filter(|(_, k)| likely && *k == kind)
                    .map(|(b, _)| (a.clone(), b.clone())),
            );
        }
        (!pairs.is_empty()).then(|| self.pick(&pairs))
    }

    fn from(&mut self, depth: usize) -> From {
        if self.chance(0.12)
            && let Some(from) = self.window_function()
        {
            return from;
        }
        let mut from = self.relation(depth);
        while self.chance(0.35) {
            from = self.join(from, depth);
        }
        from
    }

    /// A table, or a subquery in its place.
    fn relation(&mut self, depth: usize) -> From {
        if depth > 1 && self.chance(0.45) {
            let body = self.body(depth - 1);
            return self.aliased(&format!("({})", body.sql), &body.columns, body.rows);
        }
        let relation = self.pick(&self.relations.clone());
        self.aliased(&relation.name, &relation.columns, relation.rows)
    }

    fn aliased(&mut self, sql: &str, columns: &[Column], rows: usize) -> From {
        let alias = self.name("t");
        From {
            sql: format!("{sql} AS {alias}"),
            scope: columns
                .iter()
                .map(|(name, kind)| (format!("{alias}.{name}"), *kind))
                .collect(),
            rows,
        }
    }

    fn join(&mut self, left: From, depth: usize) -> From {
        let right = self.relation(depth);
        let product = left.rows * right.rows;
        if product <= MANY / 10 && self.chance(0.15) {
            return From {
                sql: format!("{} CROSS JOIN {}", left.sql, right.sql),
                scope: [left.scope, right.scope].concat(),
                rows: product,
            };
        }
        let Some((a, b)) = self.shared(&left.scope, &right.scope) else {
            return left;
        };
        let rows = (product / 6).max(left.rows).max(right.rows);
        if product / 6 > MANY {
            return left;
        }
        let kind = self.pick(&[
            "JOIN",
            "JOIN",
            "LEFT JOIN",
            "RIGHT JOIN",
            "FULL JOIN",
            "LEFT SEMI JOIN",
            "LEFT ANTI JOIN",
        ]);
        let both = [left.scope.clone(), right.scope].concat();
        let mut on = format!("{a} = {b}");
        if self.chance(0.4) {
            on = format!("{on} AND {}", self.condition(&both, 1));
        }
        From {
            sql: format!("{} {kind} {} ON {on}", left.sql, right.sql),
            scope: if kind.ends_with("SEMI JOIN") || kind.ends_with("ANTI JOIN") {
                left.scope
            } else {
                both
            },
            rows,
        }
    }

    /// A call of TUMBLE, HOP or SESSION over a table with a time.
    fn window_function(&mut self) -> Option<From> {
        let timed = |r: &Relation| r.columns.iter().any(|(_, kind)| *kind == Kind::Time);
        let timed: Vec<Relation> = self.relations.iter().filter(|r| timed(r)).cloned().collect();
        if timed.is_empty() {
            return None;
        }
        self.plain = false;
        let relation = self.pick(&timed);
        let of = |kind: Kind| relation.columns.iter().filter(move |(_, k)| *k == kind).cloned();
        let (time, _) = self.pick(&of(Kind::Time).collect::<Vec<_>>());
        let size = self.rng_int(1, 6) * 20;
        let name = &relation.name;
        let call = match self.below(3) {
            0 => format!("TUMBLE(TABLE {name}, DESCRIPTOR({time}), INTERVAL '{size}' SECOND)"),
            1 => format!("HOP(TABLE {name}, DESCRIPTOR({time}), INTERVAL '30' SECOND, INTERVAL '{size}' SECOND)"),
            _ => {
                let keys: Vec<Column> = of(Kind::Int).chain(of(Kind::Text)).collect();
                let by = if keys.is_empty() {
                    String::new()
                } else {
                    format!(" PARTITION BY {}", self.pick(&keys).0)
                };
                format!(
                    "SESSION(TABLE {name}{by}, DESCRIPTOR({time}), INTERVAL '{}' SECOND)",
                    size / 4
                )
            }
        };
        let bounds = ["window_start", "window_end"].map(|bound| (bound.to_string(), Kind::Time));
        let columns: Vec<Column> = relation.columns.iter().cloned().chain(bounds).collect();
        Some(self.aliased(&format!("TABLE({call})"), &columns, relation.rows * 2))
    }

    fn group(&mut self, depth: usize) -> Body {
        let from = self.from(depth);
        self.group_from(from)
    }

    fn group_from(&mut self, from: From) -> Body {
        let mut keys: Vec<Named> = vec![];
        for _ in 0..self.pick(&[0, 1, 1, 1, 2, 2]) {
            let kind = self.present(&from.scope);
            let deep = usize::from(self.chance(0.3));
            let key = self.expr(kind, &from.scope, deep);
            // GROUP BY may take a key without columns for a position. DataFusion cannot distinguish keys that differ
            // only in a cast.
            let named = from.scope.iter().any(|(name, _)| key.contains(name.as_str()));
            let apart = keys.is_empty() || !(key.contains("CAST(") || keys.iter().any(|(k, _)| k.contains("CAST(")));
            if named && apart && !keys.iter().any(|(k, _)| *k == key) {
                keys.push((key, kind));
            }
        }
        let mut scope = keys.clone();
        for _ in 0..self.rng_int(1, 4) {
            let call = self.aggregate(&from.scope);
            // DataFusion has no plan for two with different orders, so `verify` could not recompute the table.
            let second = |sql: &str| {
                sql.starts_with("STRING_AGG") && scope.iter().any(|(other, _)| other.starts_with("STRING_AGG"))
            };
            if !second(&call.0) {
                scope.push(call);
            }
        }
        let by: Vec<&str> = keys.iter().map(|(key, _)| key.as_str()).collect();
        let list = by.join(", ");
        let by = match self.below(6) {
            _ if keys.is_empty() => String::new(),
            0 => format!(" GROUP BY ROLLUP ({list})"),
            1 => format!(" GROUP BY CUBE ({list})"),
            2 => {
                scope.push((format!("GROUPING({})", keys[0].0), Kind::Int));
                format!(" GROUP BY GROUPING SETS (({list}), ({}), ())", keys[0].0)
            }
            _ => format!(" GROUP BY {list}"),
        };
        if scope.is_empty() {
            scope.push(("COUNT(*)".to_string(), Kind::Int));
        }
        let (mut items, mut columns) = (vec![], vec![]);
        for (sql, kind) in scope.clone() {
            let (sql, kind) = if self.chance(0.2) && !compared(&scope).is_empty() {
                let kind = self.present(&scope);
                (self.expr(kind, &scope, 1), kind)
            } else {
                (sql, kind)
            };
            let name = self.name("c");
            items.push(format!("{sql} AS {name}"));
            columns.push((name, kind));
        }
        let filter = if self.chance(0.4) {
            self.filter(&from.scope)
        } else {
            String::new()
        };
        let having = if self.chance(0.25) {
            format!(" HAVING {}", self.condition(&scope, 1))
        } else {
            String::new()
        };
        Body {
            sql: format!("SELECT {} FROM {}{filter}{by}{having}", items.join(", "), from.sql),
            columns,
            rows: if keys.is_empty() { 1 } else { from.rows / 3 + 1 },
        }
    }

    /// A call of an aggregate, and the kind of its result.
    fn aggregate(&mut self, scope: &Scope) -> Named {
        let int = self.expr(Kind::Int, scope, 1);
        let any = self.present(scope);
        let (call, kind) = match self.below(21) {
            0 => ("COUNT(*)".to_string(), Kind::Int),
            1 => (format!("COUNT({})", self.expr(any, scope, 1)), Kind::Int),
            2 | 3 => (format!("SUM({int})"), Kind::Int),
            4 => (format!("SUM({})", self.expr(Kind::Eighths, scope, 1)), Kind::Eighths),
            5 => (format!("SUM({})", self.expr(Kind::Decimal, scope, 1)), Kind::Decimal),
            6 => (format!("AVG({int})"), Kind::Double),
            7 => (format!("AVG({})", self.expr(Kind::Eighths, scope, 1)), Kind::Double),
            8 => (format!("AVG({})", self.expr(Kind::Decimal, scope, 0)), Kind::Decimal),
            9 => (format!("MIN({})", self.expr(any, scope, 1)), any),
            10 => (format!("MAX({})", self.expr(any, scope, 1)), any),
            11 => (format!("COUNT(DISTINCT {})", self.expr(any, scope, 1)), Kind::Int),
            12 => (format!("SUM(DISTINCT {int})"), Kind::Int),
            13 => (format!("BOOL_AND({})", self.condition(scope, 1)), Kind::Bool),
            14 => (format!("BOOL_OR({})", self.condition(scope, 1)), Kind::Bool),
            15 => {
                let function = self.pick(&["STDDEV", "STDDEV_POP", "VAR_SAMP", "VAR_POP"]);
                (
                    format!("{function}({})", self.expr(Kind::Eighths, scope, 1)),
                    Kind::Shown,
                )
            }
            16 => (format!("MEDIAN({int})"), Kind::Int),
            17 => {
                let of = self.expr(Kind::Eighths, scope, 1);
                (
                    format!("PERCENTILE_CONT(0.25) WITHIN GROUP (ORDER BY {of})"),
                    Kind::Double,
                )
            }
            18 => {
                self.plain = false;
                let of = self.expr(Kind::Eighths, scope, 1);
                (
                    format!("APPROX_PERCENTILE_CONT(0.75) WITHIN GROUP (ORDER BY {of})"),
                    Kind::Double,
                )
            }
            19 => (format!("ARRAY_AGG({int} ORDER BY {int})"), Kind::Shown),
            _ => {
                let text = self.expr(Kind::Text, scope, 1);
                (format!("STRING_AGG({text}, '|' ORDER BY {text})"), Kind::Text)
            }
        };
        if self.chance(0.2) {
            (format!("{call} FILTER (WHERE {})", self.condition(scope, 1)), kind)
        } else {
            (call, kind)
        }
    }

    fn distinct(&mut self, depth: usize) -> Body {
        let mut body = self.only_compared(depth);
        body.sql = body.sql.replacen("SELECT", "SELECT DISTINCT", 1);
        body
    }

    /// A SELECT of columns that can be compared.
    fn only_compared(&mut self, depth: usize) -> Body {
        let from = self.from(depth);
        let kinds: Vec<Kind> = (0..self.rng_int(1, 3)).map(|_| self.present(&from.scope)).collect();
        self.select_kinds(&from, &kinds)
    }

    /// A SELECT of columns of these kinds.
    fn select_kinds(&mut self, from: &From, kinds: &[Kind]) -> Body {
        let (mut items, mut columns) = (vec![], vec![]);
        for &kind in kinds {
            let name = self.name("c");
            let deep = usize::from(self.chance(0.3));
            items.push(format!("{} AS {name}", self.expr(kind, &from.scope, deep)));
            columns.push((name, kind));
        }
        let filter = if self.chance(0.4) {
            self.filter(&from.scope)
        } else {
            String::new()
        };
        Body {
            sql: format!("SELECT {} FROM {}{filter}", items.join(", "), from.sql),
            columns,
            rows: from.rows,
        }
    }

    fn set_operation(&mut self, depth: usize) -> Body {
        let (left, right) = (self.from(depth), self.from(depth));
        let kinds: Vec<Kind> = (0..self.rng_int(1, 2)).map(|_| self.present(&left.scope)).collect();
        let (a, b) = (self.select_kinds(&left, &kinds), self.select_kinds(&right, &kinds));
        let op = self.pick(&[
            "UNION",
            "UNION ALL",
            "INTERSECT",
            "INTERSECT ALL",
            "EXCEPT",
            "EXCEPT ALL",
        ]);
        Body {
            sql: format!("{} {op} {}", a.sql, b.sql),
            columns: a.columns,
            rows: a.rows + b.rows,
        }
    }

    /// An order by these columns, either total or left for the planner to complete.
    fn order(&mut self, columns: &[Named]) -> String {
        let mut rest = columns.to_vec();
        let mut order = vec![];
        while !rest.is_empty() {
            let at = self.below(rest.len());
            let (name, _) = rest.swap_remove(at);
            let direction = self.pick(&["", " DESC", " NULLS FIRST", " DESC NULLS LAST"]);
            order.push(format!("{name}{direction}"));
            if self.chance(0.15) && !rest.is_empty() {
                self.plain = false;
                break;
            }
        }
        order.join(", ")
    }

    fn top(&mut self, depth: usize) -> Body {
        let body = self.only_compared(depth);
        let order = self.order(&body.columns);
        let limit = self.rng_int(1, 8);
        let offset = if self.chance(0.3) { " OFFSET 2" } else { "" };
        let sql = format!(
            "SELECT * FROM ({}) AS {} ORDER BY {order} LIMIT {limit}{offset}",
            body.sql,
            self.name("t")
        );
        Body {
            sql,
            columns: body.columns,
            rows: limit as usize,
        }
    }

    /// A query for the first rows of each group.
    fn ranked(&mut self, depth: usize) -> Body {
        let body = self.only_compared(depth);
        let (by, _) = self.pick(&body.columns);
        let function = self.pick(&["ROW_NUMBER", "RANK", "DENSE_RANK"]);
        let order = if function == "ROW_NUMBER" {
            self.order(&body.columns)
        } else {
            self.pick(&body.columns).0
        };
        let rank = self.name("r");
        let (inner, outer) = (self.name("t"), self.name("t"));
        let names: Vec<String> = body.columns.iter().map(|(name, _)| name.clone()).collect();
        let mut columns = body.columns;
        let mut shown = names.clone();
        if self.chance(0.5) {
            shown.push(rank.clone());
            columns.push((rank.clone(), Kind::Int));
        }
        let bound = self.rng_int(1, 3);
        let bound = if self.chance(0.3) {
            format!("= {bound}")
        } else {
            format!("<= {bound}")
        };
        let sql = format!(
            "SELECT {} FROM (SELECT {}, {function}() OVER (PARTITION BY {by} ORDER BY {order}) AS {rank} FROM ({}) AS {inner}) AS {outer} WHERE {rank} {bound}",
            shown.join(", "),
            names.join(", "),
            body.sql
        );
        Body {
            sql,
            columns,
            rows: body.rows / 2 + 1,
        }
    }

    fn unnest(&mut self, depth: usize) -> Body {
        let listed = |r: &Relation| r.columns.iter().any(|(_, kind)| *kind == Kind::Words);
        let listed: Vec<Relation> = self.relations.iter().filter(|r| listed(r)).cloned().collect();
        if listed.is_empty() {
            return self.select(depth);
        }
        let relation = self.pick(&listed);
        let from = self.aliased(&relation.name, &relation.columns, relation.rows);
        let (list, _) = from
            .scope
            .iter()
            .find(|(_, kind)| *kind == Kind::Words)
            .cloned()
            .expect("the relation was chosen for its list");
        let kind = self.present(&from.scope);
        let (beside, word) = (self.name("c"), self.name("c"));
        let of = self.expr(kind, &from.scope, 1);
        let columns = vec![(beside.clone(), kind), (word.clone(), Kind::Text)];
        let sql = format!("SELECT {of} AS {beside}, UNNEST({list}) AS {word} FROM {}", from.sql);
        if self.chance(0.5) {
            return Body {
                sql,
                columns,
                rows: relation.rows,
            };
        }
        let from = self.aliased(&format!("({sql})"), &columns, relation.rows);
        self.group_from(from)
    }

    /// A query with window functions over a total order.
    fn running(&mut self, depth: usize) -> Body {
        let body = self.only_compared(depth);
        let (by, _) = self.pick(&body.columns);
        let (of, kind) = self.pick(&body.columns);
        let order = self.order(&body.columns);
        let name = self.name("c");
        let (call, yields) = match self.below(4) {
            0 => (format!("LAG({of})"), kind),
            1 => (format!("LEAD({of}, 2)"), kind),
            2 => (format!("COUNT({of})"), Kind::Int),
            _ if kind == Kind::Int => (format!("SUM({of})"), Kind::Int),
            _ => ("ROW_NUMBER()".to_string(), Kind::Int),
        };
        let sql = format!(
            "SELECT *, {call} OVER (PARTITION BY {by} ORDER BY {order}) AS {name} FROM ({}) AS {}",
            body.sql,
            self.name("t")
        );
        let mut columns = body.columns;
        columns.push((name, yields));
        Body {
            sql,
            columns,
            rows: body.rows,
        }
    }

    /// A query that groups by windows in time.
    fn windowed(&mut self, depth: usize) -> Body {
        match self.window_function() {
            Some(from) => self.group_from(from),
            None => self.group(depth),
        }
    }
}
