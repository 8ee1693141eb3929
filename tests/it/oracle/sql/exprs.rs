//! Random expressions over a scope.

use super::{COMPARED, Generator, Kind, Named, Scope};

const TEXTS: [&str; 6] = ["a", "ab", "b", "", "\u{e4}\u{2713}", "n7"];

impl Generator {
    /// An expression of this kind, at most `depth` levels deep.
    pub(super) fn expr(&mut self, kind: Kind, scope: &Scope, depth: usize) -> String {
        let columns: Vec<&Named> = scope.iter().filter(|(_, k)| *k == kind).collect();
        if !columns.is_empty() && (depth == 0 || self.chance(0.45)) {
            let n = self.below(columns.len());
            return columns[n].0.clone();
        }
        if depth == 0 {
            return self.literal(kind);
        }
        if self.chance(0.15) && kind != Kind::Words {
            return self.choice(kind, scope, depth - 1);
        }
        match kind {
            Kind::Int => self.int(scope, depth - 1),
            Kind::Eighths => self.eighths(scope, depth - 1),
            Kind::Double => self.double(scope, depth - 1),
            Kind::Decimal => self.decimal(scope, depth - 1),
            Kind::Text => self.text(scope, depth - 1),
            Kind::Bool => format!("({})", self.condition(scope, depth - 1)),
            Kind::Time => self.time(scope, depth - 1),
            Kind::Words => "make_array('p', 'q')".to_string(),
            Kind::Shown => self.literal(Kind::Double),
        }
    }

    /// Two expressions of one kind.
    fn pair(&mut self, kind: Kind, scope: &Scope, depth: usize) -> (String, String) {
        (self.expr(kind, scope, depth), self.expr(kind, scope, depth))
    }

    pub(super) fn literal(&mut self, kind: Kind) -> String {
        match kind {
            Kind::Int => self.rng_int(-5, 30).to_string(),
            Kind::Eighths | Kind::Double => format!("{:?}", self.rng_int(0, 800) as f64 / 8.0),
            Kind::Decimal => format!("CAST({}.25 AS DECIMAL(12,2))", self.rng_int(0, 900)),
            Kind::Text => format!("'{}'", self.pick(&TEXTS)),
            Kind::Bool => self.pick(&["TRUE", "FALSE"]).to_string(),
            Kind::Time => format!(
                "TIMESTAMP '2024-05-01 00:{:02}:{:02}'",
                self.rng_int(0, 10),
                self.rng_int(0, 59)
            ),
            Kind::Words => "make_array('p')".to_string(),
            Kind::Shown => "0.5".to_string(),
        }
    }

    /// CASE, COALESCE or NULLIF, of any kind.
    fn choice(&mut self, kind: Kind, scope: &Scope, depth: usize) -> String {
        let (a, b) = self.pair(kind, scope, depth);
        match self.below(4) {
            0 => format!("COALESCE({a}, {b})"),
            1 => format!("NULLIF({a}, {b})"),
            2 => {
                let when = self.condition(scope, depth);
                format!("CASE WHEN {when} THEN {a} ELSE {b} END")
            }
            _ => {
                let (of, is) = self.pair(Kind::Int, scope, depth);
                format!("CASE {of} WHEN {is} THEN {a} WHEN 3 THEN {b} END")
            }
        }
    }

    fn int(&mut self, scope: &Scope, depth: usize) -> String {
        let (a, b) = self.pair(Kind::Int, scope, depth);
        match self.below(16) {
            0 | 1 => format!("({a} + {b})"),
            2 => format!("({a} - {b})"),
            3 => format!("({a} * {})", self.rng_int(1, 4)),
            4 => format!("({a} % {})", self.rng_int(2, 7)),
            5 => format!("({a} / {})", self.rng_int(2, 5)),
            6 => format!("ABS({a})"),
            7 => format!("GREATEST({a}, {b})"),
            8 => format!("CHARACTER_LENGTH({})", self.expr(Kind::Text, scope, depth)),
            9 => format!("STRPOS({}, 'b')", self.expr(Kind::Text, scope, depth)),
            10 => format!("EXTRACT(MINUTE FROM {})", self.expr(Kind::Time, scope, depth)),
            11 => format!("CAST({} AS BIGINT)", self.expr(Kind::Bool, scope, depth)),
            12 => format!("CAST({} AS BIGINT)", self.expr(Kind::Eighths, scope, depth)),
            13 => format!("TRY_CAST({} AS BIGINT)", self.expr(Kind::Text, scope, depth)),
            14 => format!("json_get_int('{{\"a\": ' || CAST({a} AS VARCHAR) || '}}', 'a')"),
            _ => format!("CAST(FLOOR({}) AS INT)", self.expr(Kind::Eighths, scope, depth)),
        }
    }

    fn eighths(&mut self, scope: &Scope, depth: usize) -> String {
        let (a, b) = self.pair(Kind::Eighths, scope, depth);
        match self.below(5) {
            0 => format!("({a} + {b})"),
            1 => format!("({a} - {b})"),
            2 => format!("({a} * 2.0)"),
            3 => format!("ABS({a})"),
            _ => format!("CAST({} AS DOUBLE)", self.expr(Kind::Int, scope, depth)),
        }
    }

    fn double(&mut self, scope: &Scope, depth: usize) -> String {
        let (a, b) = self.pair(Kind::Eighths, scope, depth);
        match self.below(4) {
            0 => format!("({a} / NULLIF({b}, 0.0))"),
            1 => format!("SQRT(ABS({a}))"),
            2 => format!("CAST({} AS DOUBLE)", self.expr(Kind::Decimal, scope, depth)),
            _ => format!("ABS({} + {a})", self.expr(Kind::Double, scope, depth)),
        }
    }

    fn decimal(&mut self, scope: &Scope, depth: usize) -> String {
        let (a, b) = self.pair(Kind::Decimal, scope, depth);
        match self.below(4) {
            0 => format!("({a} + {b})"),
            1 => format!("({a} - {b})"),
            2 => format!("ABS({a})"),
            _ => format!("CAST({} AS DECIMAL(12,2))", self.expr(Kind::Int, scope, depth)),
        }
    }

    fn text(&mut self, scope: &Scope, depth: usize) -> String {
        let (a, b) = self.pair(Kind::Text, scope, depth);
        match self.below(12) {
            0 => format!("UPPER({a})"),
            1 => format!("REVERSE({a})"),
            2 => format!("SUBSTR({a}, 1, {})", self.rng_int(1, 3)),
            3 => format!("REPLACE({a}, 'a', 'c')"),
            4 => format!("({a} || {b})"),
            5 => format!("CONCAT({a}, '-', {b})"),
            6 => format!("LPAD({a}, 3, '*')"),
            7 => format!("TRIM({a})"),
            8 => format!("CAST({} AS VARCHAR)", self.expr(Kind::Int, scope, depth)),
            9 => format!("CAST({} AS VARCHAR)", self.expr(Kind::Bool, scope, depth)),
            10 => format!("REGEXP_REPLACE({a}, '[ab]+', 'x')"),
            _ => format!("INITCAP({a})"),
        }
    }

    fn time(&mut self, scope: &Scope, depth: usize) -> String {
        let (a, b) = self.pair(Kind::Time, scope, depth);
        match self.below(4) {
            0 => format!("DATE_TRUNC('minute', {a})"),
            1 => format!("({a} + INTERVAL '{} seconds')", self.rng_int(1, 100)),
            2 => format!("DATE_BIN(INTERVAL '2 minutes', {a}, TIMESTAMP '2024-05-01 00:00:00')"),
            _ => format!("GREATEST({a}, {b})"),
        }
    }

    /// A boolean expression.
    pub(super) fn condition(&mut self, scope: &Scope, depth: usize) -> String {
        let choice = if depth == 0 { self.below(6) } else { self.below(13) };
        let below = depth.saturating_sub(1);
        match choice {
            0..=4 => {
                let kind = self.present(scope);
                let (a, b) = self.pair(kind, scope, below);
                let op = self.pick(&["=", "<>", "<", "<=", ">", ">="]);
                format!("{a} {op} {b}")
            }
            5 => {
                let kind = self.present(scope);
                let not = self.pick(&["", " NOT"]);
                format!("{} IS{not} NULL", self.expr(kind, scope, below))
            }
            6 => format!(
                "({} AND {})",
                self.condition(scope, below),
                self.condition(scope, below)
            ),
            7 => format!("({} OR {})", self.condition(scope, below), self.condition(scope, below)),
            8 => format!("NOT ({})", self.condition(scope, below)),
            9 => {
                let like = self.pick(&["LIKE 'a%'", "LIKE '%b'", "NOT LIKE '%a%'", "ILIKE 'A_'"]);
                format!("{} {like}", self.expr(Kind::Text, scope, below))
            }
            10 => {
                let of = self.expr(Kind::Int, scope, below);
                let list: Vec<String> = (0..3).map(|_| self.literal(Kind::Int)).collect();
                let not = self.pick(&["", "NOT "]);
                format!("{of} {not}IN ({})", list.join(", "))
            }
            11 => {
                let of = self.expr(Kind::Int, scope, below);
                let from = self.rng_int(-5, 10);
                format!("{of} BETWEEN {from} AND {}", from + self.rng_int(0, 15))
            }
            _ => {
                let kind = self.present(scope);
                let (a, b) = self.pair(kind, scope, below);
                let not = self.pick(&["", "NOT "]);
                // The parser would take a following AND for a part of the right side.
                format!("({a} IS {not}DISTINCT FROM {b})")
            }
        }
    }

    /// A kind of column that the scope has and that can be compared.
    pub(super) fn present(&mut self, scope: &Scope) -> Kind {
        let kinds: Vec<Kind> = compared(scope).iter().map(|(_, kind)| *kind).collect();
        if kinds.is_empty() { Kind::Int } else { self.pick(&kinds) }
    }

    pub(super) fn rng_int(&mut self, from: i64, to: i64) -> i64 {
        use rand::RngExt;
        self.rng.random_range(from..=to)
    }
}

/// The columns of a scope that can be compared.
pub(super) fn compared(scope: &Scope) -> Vec<Named> {
    scope
        .iter()
        .filter(|(_, kind)| COMPARED.contains(kind))
        .cloned()
        .collect()
}
