//! Window functions: evaluates each row with the other rows of its partition, in their order.
//!
//! If rows tie in the order and the function distinguishes them, SQL leaves its result open.

use std::cmp::Ordering;
use std::collections::HashMap;

use datafusion::sql::sqlparser::ast::{self, Expr, WindowFrameBound, WindowFrameUnits, WindowType};

use super::aggregate::{self, AggregateEval, Arguments};
use super::arrow::ScalarRow;
use super::bind::{Binder, Windows};
use super::calls::arguments;
use super::convert::{converted, meet};
use super::expr::{RowEnv, Term};
use super::order::{self, SortDirection};
use super::query::Budget;
use super::scope::spelled;
use super::trust::Unjudged;
use super::value::{Scalar, ScalarType, key_of};

/// A bound call of a window function.
pub struct WindowCall {
    partition: Vec<Term>,
    order: Vec<(Term, SortDirection)>,
    frame: Frame,
    function: Function,
}

#[derive(Clone, Copy)]
struct Frame {
    /// Whether the frame counts rows (ROWS); otherwise it ends with all rows that tie (RANGE).
    rows: bool,
    start: Edge,
    end: Edge,
}

#[derive(Clone, Copy, PartialEq)]
enum Edge {
    First,
    /// So many rows after the current row; negative: before it.
    At(i64),
    Last,
}

enum Function {
    RowNumber,
    Rank,
    DenseRank,
    PercentRank,
    CumeDist,
    /// LAG or LEAD: the offset in rows, the value, and the default if there is no such row.
    Shifted(i64, Term, Term),
    First(Term),
    Last(Term),
    Aggregate(AggregateEval),
    /// The beginning of a session, or its end if true; with the gap in microseconds.
    Session(bool, Term, i64),
}

impl Frame {
    fn is_whole(self) -> bool {
        self.start == Edge::First && self.end == Edge::Last
    }
}

/// Binds a call; returns it with the type of its value.
pub fn bind(
    binder: &Binder<'_>,
    windows: &Windows,
    name: &str,
    call: &ast::Function,
) -> Result<(WindowCall, ScalarType), Unjudged> {
    let spec = spec(call.over.as_ref(), &windows.named)?;
    let partition = binder
        .all(&spec.partition_by)?
        .into_iter()
        .map(|bound| bound.ex)
        .collect();
    let mut order = Vec::new();
    for by in &spec.order_by {
        order.push((binder.bind(&by.expr)?.ex, SortDirection::new(&by.options)));
    }
    let frame = match &spec.window_frame {
        Some(frame) => written(frame)?,
        None => Frame {
            rows: false,
            start: Edge::First,
            end: if order.is_empty() { Edge::Last } else { Edge::At(0) },
        },
    };
    let made = |function, of| {
        let window = WindowCall {
            partition,
            order,
            frame,
            function,
        };
        Ok((window, of))
    };
    if aggregate::is_one(name) && !matches!(name, "first_value" | "last_value") {
        let plain = ast::Function {
            over: None,
            ..call.clone()
        };
        let (call, of) = aggregate::bind(binder, name, &plain)?;
        return made(Function::Aggregate(call), of);
    }
    let given = arguments(&ast::Function {
        over: None,
        ..call.clone()
    })?;
    let whole = |at: usize| match given.get(at) {
        None => Ok(1),
        Some(Expr::Value(value)) => match &value.value {
            ast::Value::Number(text, _) => text.parse::<i64>().map_err(|_| Unjudged::construct(format!("{call}"))),
            _ => Err(Unjudged::construct(format!("the call {call}"))),
        },
        Some(_) => Err(Unjudged::construct(format!("the call {call}"))),
    };
    match (name, given.as_slice()) {
        ("row_number", []) => made(Function::RowNumber, ScalarType::Int(64)),
        ("rank", []) => made(Function::Rank, ScalarType::Int(64)),
        ("dense_rank", []) => made(Function::DenseRank, ScalarType::Int(64)),
        ("percent_rank", []) => made(Function::PercentRank, ScalarType::Double),
        ("cume_dist", []) => made(Function::CumeDist, ScalarType::Double),
        ("lag" | "lead", [of, ..]) if given.len() <= 3 => {
            let by = whole(1)? * if name == "lag" { -1 } else { 1 };
            let value = binder.bind(of)?;
            match given.get(2) {
                None => made(Function::Shifted(by, value.ex, Term::Const(Scalar::Null)), value.of),
                Some(default) => {
                    let default = binder.bind(default)?;
                    let of = meet([&value, &default])?;
                    made(
                        Function::Shifted(by, converted(value, &of)?, converted(default, &of)?),
                        of,
                    )
                }
            }
        }
        ("first_value", [of]) => {
            let value = binder.bind(of)?;
            made(Function::First(value.ex), value.of)
        }
        ("last_value", [of]) => {
            let value = binder.bind(of)?;
            made(Function::Last(value.ex), value.of)
        }
        ("session_start" | "session_end", [at, gap]) => {
            let (at, gap) = (binder.bind(at)?, binder.bind(gap)?);
            let Term::Const(Scalar::Length(gap)) = gap.ex else {
                return Err(Unjudged::construct("a session whose gap is computed"));
            };
            let gap = i64::try_from(gap.total()).map_err(Unjudged::row)?;
            made(
                Function::Session(name == "session_end", at.ex, gap),
                ScalarType::Moment(false),
            )
        }
        _ => Err(Unjudged::construct(format!("the window function {name}()"))),
    }
}

/// A window's specification, with the windows that it builds on merged in.
fn spec(over: Option<&WindowType>, named: &[ast::NamedWindowDefinition]) -> Result<ast::WindowSpec, Unjudged> {
    let find = |name: &ast::Ident| {
        let found = named.iter().find(|window| spelled(&window.0) == spelled(name));
        let found = found.ok_or_else(|| Unjudged::Name(name.to_string()))?;
        match &found.1 {
            ast::NamedWindowExpr::WindowSpec(spec) => self::spec(Some(&WindowType::WindowSpec(spec.clone())), named),
            ast::NamedWindowExpr::NamedWindow(name) => self::spec(Some(&WindowType::NamedWindow(name.clone())), named),
        }
    };
    match over {
        Some(WindowType::NamedWindow(name)) => find(name),
        Some(WindowType::WindowSpec(spec)) => match &spec.window_name {
            None => Ok(spec.clone()),
            Some(name) => {
                let base = find(name)?;
                if base.window_frame.is_some() || !spec.partition_by.is_empty() {
                    return Err(Unjudged::construct(format!("the window {spec}")));
                }
                Ok(ast::WindowSpec {
                    window_name: None,
                    partition_by: base.partition_by,
                    order_by: if base.order_by.is_empty() {
                        spec.order_by.clone()
                    } else {
                        base.order_by
                    },
                    window_frame: spec.window_frame.clone(),
                })
            }
        },
        None => Err(Unjudged::construct("a window function without a window")),
    }
}

fn written(frame: &ast::WindowFrame) -> Result<Frame, Unjudged> {
    let rows = match frame.units {
        WindowFrameUnits::Rows => true,
        WindowFrameUnits::Range => false,
        WindowFrameUnits::Groups => return Err(Unjudged::construct("a frame of GROUPS")),
    };
    let offset = |expr: &Expr| match expr {
        Expr::Value(value) => match &value.value {
            ast::Value::Number(text, _) if rows => text.parse::<i64>().ok(),
            _ => None,
        },
        _ => None,
    };
    let edge = |bound: &WindowFrameBound| {
        Ok(match bound {
            WindowFrameBound::CurrentRow => Edge::At(0),
            WindowFrameBound::Preceding(None) => Edge::First,
            WindowFrameBound::Following(None) => Edge::Last,
            WindowFrameBound::Preceding(Some(by)) | WindowFrameBound::Following(Some(by)) => {
                let by = offset(by).ok_or_else(|| Unjudged::construct("a frame of RANGE by a distance"))?;
                Edge::At(if matches!(bound, WindowFrameBound::Preceding(_)) {
                    -by
                } else {
                    by
                })
            }
        })
    };
    Ok(Frame {
        rows,
        start: edge(&frame.start_bound)?,
        end: frame.end_bound.as_ref().map_or(Ok(Edge::At(0)), edge)?,
    })
}

impl WindowCall {
    /// The function's value for each row.
    pub fn values(
        &self,
        rows: &[ScalarRow],
        parent: Option<&RowEnv<'_>>,
        budget: &Budget,
    ) -> Result<Vec<Scalar>, Unjudged> {
        let mut partitions: HashMap<Vec<u8>, Vec<(Vec<Scalar>, usize)>> = HashMap::new();
        for (at, row) in rows.iter().enumerate() {
            let env = RowEnv { row, parent };
            let by = self
                .partition
                .iter()
                .map(|ex| ex.eval(&env))
                .collect::<Result<Vec<_>, _>>()?;
            let place = self
                .order
                .iter()
                .map(|(ex, _)| ex.eval(&env))
                .collect::<Result<Vec<_>, _>>()?;
            partitions.entry(key_of(&by)).or_default().push((place, at));
        }
        let ways: Vec<SortDirection> = self.order.iter().map(|(_, way)| *way).collect();
        let mut values = vec![Scalar::Null; rows.len()];
        for (_, mut partition) in partitions {
            partition.sort_by(|(a, _), (b, _)| order::compare(&ways, a, b));
            let same = |a: usize, b: usize| order::compare(&ways, &partition[a].0, &partition[b].0) == Ordering::Equal;
            if self.tells_ties_apart() {
                for at in 1..partition.len() {
                    if same(at - 1, at) && key_of(&rows[partition[at - 1].1]) != key_of(&rows[partition[at].1]) {
                        return Err(Unjudged::Ties("the order of a window"));
                    }
                }
            }
            // For each row, where its run of ties begins, and where it ends.
            let (mut first, mut end) = (vec![0; partition.len()], vec![partition.len(); partition.len()]);
            for at in 1..partition.len() {
                first[at] = if same(at - 1, at) { first[at - 1] } else { at };
            }
            for at in (0..partition.len().saturating_sub(1)).rev() {
                end[at] = if same(at, at + 1) { end[at + 1] } else { at + 1 };
            }
            let places: Vec<usize> = partition.iter().map(|(_, at)| *at).collect();
            let made = self.of_partition(rows, &places, (&first, &end), parent, budget)?;
            for (at, value) in places.into_iter().zip(made) {
                values[at] = value;
            }
        }
        Ok(values)
    }

    fn tells_ties_apart(&self) -> bool {
        match &self.function {
            Function::RowNumber | Function::Shifted(..) | Function::First(_) => true,
            Function::Last(_) => self.frame.rows || self.frame.is_whole(),
            Function::Aggregate(_) => self.frame.rows && !self.frame.is_whole(),
            _ => false,
        }
    }

    fn of_partition(
        &self,
        rows: &[ScalarRow],
        places: &[usize],
        (first, end): (&[usize], &[usize]),
        parent: Option<&RowEnv<'_>>,
        budget: &Budget,
    ) -> Result<Vec<Scalar>, Unjudged> {
        let n = places.len();
        let value = |ex: &Term, at: usize| {
            ex.eval(&RowEnv {
                row: &rows[places[at]],
                parent,
            })
        };
        let frame = |at: usize| {
            let edge = |edge: Edge, start: bool| match edge {
                Edge::First => 0,
                Edge::Last => n,
                Edge::At(by) if self.frame.rows => (at as i64 + by + i64::from(!start)).clamp(0, n as i64) as usize,
                Edge::At(_) => {
                    if start {
                        first[at]
                    } else {
                        end[at]
                    }
                }
            };
            let (start, end) = (edge(self.frame.start, true), edge(self.frame.end, false));
            start..end.max(start)
        };
        let each = |of: &dyn Fn(usize) -> Result<Scalar, Unjudged>| (0..n).map(of).collect::<Result<Vec<_>, _>>();
        match &self.function {
            Function::RowNumber => each(&|at| Ok(Scalar::Int(at as i64 + 1))),
            Function::Rank => each(&|at| Ok(Scalar::Int(first[at] as i64 + 1))),
            Function::DenseRank => {
                let mut rank = 0;
                let ranks = (0..n).map(|at| {
                    rank += i64::from(first[at] == at);
                    Scalar::Int(rank)
                });
                Ok(ranks.collect())
            }
            Function::PercentRank => each(&|at| Ok(Scalar::Double(first[at] as f64 / (n.max(2) - 1) as f64))),
            Function::CumeDist => each(&|at| Ok(Scalar::Double(end[at] as f64 / n as f64))),
            Function::Shifted(by, of, default) => each(&|at| match usize::try_from(at as i64 + by) {
                Ok(position) if position < n => value(of, position),
                _ => value(default, at),
            }),
            Function::First(of) => each(&|at| {
                let frame = frame(at);
                if frame.is_empty() {
                    Ok(Scalar::Null)
                } else {
                    value(of, frame.start)
                }
            }),
            Function::Last(of) => each(&|at| {
                let frame = frame(at);
                if frame.is_empty() {
                    Ok(Scalar::Null)
                } else {
                    value(of, frame.end - 1)
                }
            }),
            Function::Aggregate(call) => {
                let given = places.iter().map(|at| {
                    call.arguments(&RowEnv {
                        row: &rows[*at],
                        parent,
                    })
                });
                let given = given.collect::<Result<Vec<Option<Arguments>>, _>>()?;
                let mut values: Vec<Scalar> = Vec::with_capacity(n);
                let mut before = None;
                for at in 0..n {
                    let frame = frame(at);
                    let made = match before == Some(frame.clone()) {
                        true => values.last().expect("there is a frame before").clone(),
                        false => {
                            budget.spend(frame.len())?;
                            call.fold(given[frame.clone()].iter().flatten().collect())?
                        }
                    };
                    values.push(made);
                    before = Some(frame);
                }
                Ok(values)
            }
            Function::Session(is_end, of, gap) => {
                let times = (0..n).map(|at| value(of, at)).collect::<Result<Vec<_>, _>>()?;
                let at = |n: usize| match &times[n] {
                    Scalar::Moment(micros) => Some(*micros),
                    _ => None,
                };
                let follows = |n: usize| matches!((at(n - 1), at(n)), (Some(a), Some(b)) if b - a < *gap);
                // For each row, where its session begins, or ends.
                let mut bounds: Vec<usize> = (0..n).collect();
                match *is_end {
                    true => (0..n.saturating_sub(1))
                        .rev()
                        .filter(|n| follows(n + 1))
                        .for_each(|n| bounds[n] = bounds[n + 1]),
                    false => (1..n).filter(|n| follows(*n)).for_each(|n| bounds[n] = bounds[n - 1]),
                }
                let gap = if *is_end { *gap } else { 0 };
                let moved = |micros: i64| Scalar::Moment(micros.saturating_add(gap));
                let bounds = bounds
                    .into_iter()
                    .map(|bound| at(bound).map_or(Scalar::Null, moved))
                    .collect();
                Ok(bounds)
            }
        }
    }
}
