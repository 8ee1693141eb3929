//! Prints the graph as text, each table as a tree. A shared node is printed once and named where it comes again.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use arrow::datatypes::IntervalMonthDayNano;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_expr::expressions::{Column, Literal};

use super::optimise::PASSED;
use super::partitions::FOUR_DIGITS;
use super::{AggregateCall, AggregateKind, Expr, Graph, Join, NodeId, Op, Rank, SortKey, TopK, Window};
use super::{numbers, times};

impl Graph {
    /// The plan of one table, by its name in SQL, or of all tables. Each operator has a line, with its inputs
    /// indented below it. An operator that several others read has a mark such as `#1`, which stands for it
    /// when it comes again. For an unknown name the text is empty.
    pub fn explain(&self, table: Option<&str>) -> String {
        let mut printer = Printer::new(self, table);
        for planned in self.tables.iter().filter(|t| table.is_none_or(|name| name == t.name)) {
            let mut facts = Vec::new();
            if planned.append_only {
                facts.push("append-only".to_string());
            }
            let names = |positions: &[usize]| {
                let names: Vec<&str> = positions
                    .iter()
                    .map(|&p| planned.schema.field(p).name().as_str())
                    .collect();
                names.join(", ")
            };
            if !planned.key.is_empty() {
                facts.push(format!("key {}", names(&planned.key)));
            }
            if !planned.partition_by.is_empty() {
                facts.push(format!("partitioned by {}", names(&planned.partition_by)));
            }
            // Every table that computes dates has the expectation that they are in the calendar, so it is left out.
            let stated = planned
                .expectations
                .iter()
                .filter(|expected| !expected.name.ends_with(FOUR_DIGITS));
            for expectation in stated {
                facts.push(format!("expects {}", readable(&expectation.check)));
            }
            let columns: Vec<String> = planned
                .schema
                .fields()
                .iter()
                .map(|f| format!("{} {}", f.name(), f.data_type()))
                .collect();
            let _ = writeln!(printer.text, "{} ({})", planned.name, columns.join(", "));
            for fact in facts {
                let _ = writeln!(printer.text, "  : {fact}");
            }
            printer.node(planned.node, 1);
        }
        printer.text
    }
}

struct Printer<'a> {
    graph: &'a Graph,
    text: String,
    readers: HashMap<NodeId, usize>,
    marks: HashMap<NodeId, usize>,
}

impl<'a> Printer<'a> {
    fn new(graph: &'a Graph, table: Option<&str>) -> Self {
        let mut readers: HashMap<NodeId, usize> = HashMap::new();
        let mut stack: Vec<NodeId> = Vec::new();
        for planned in graph.tables.iter().filter(|t| table.is_none_or(|name| name == t.name)) {
            *readers.entry(planned.node).or_default() += 1;
            stack.push(planned.node);
        }
        let mut seen = vec![false; graph.nodes.len()];
        while let Some(node) = stack.pop() {
            if std::mem::replace(&mut seen[node], true) || matches!(graph.nodes[node].op, Op::Table(_) | Op::SoFar) {
                continue;
            }
            for &input in &graph.nodes[node].inputs {
                *readers.entry(input).or_default() += 1;
                stack.push(input);
            }
        }
        Printer {
            graph,
            text: String::new(),
            readers,
            marks: HashMap::new(),
        }
    }

    fn node(&mut self, id: NodeId, depth: usize) {
        let node = &self.graph.nodes[id];
        let leaf = matches!(node.op, Op::Input(_) | Op::Table(_) | Op::Constant(_) | Op::SoFar);
        let indent = "  ".repeat(depth);
        if let Some(mark) = self.marks.get(&id) {
            let _ = writeln!(self.text, "{indent}#{mark} again");
            return;
        }
        let mut mark = String::new();
        if !leaf && self.readers.get(&id).is_some_and(|&n| n > 1) {
            let number = self.marks.len() + 1;
            self.marks.insert(id, number);
            mark = format!("#{number} ");
        }
        let _ = writeln!(self.text, "{indent}{mark}{}", self.describe(id));
        if !leaf {
            for &input in &node.inputs {
                self.node(input, depth + 1);
            }
        }
    }

    fn describe(&self, id: NodeId) -> String {
        let node = &self.graph.nodes[id];
        match &node.op {
            Op::Input(_) => format!("input {}", node.name),
            Op::Table(_) => format!("table {}", node.name),
            Op::Constant(batch) => format!("constant, {} rows", batch.num_rows()),
            Op::Distinct => "distinct".to_string(),
            Op::Recursive(recursive) => {
                let once = if recursive.distinct { ", each row once" } else { "" };
                format!(
                    "recursive{once}, at most {} rounds: first, then each round",
                    recursive.most_rounds
                )
            }
            Op::SoFar => "the rows so far".to_string(),
            Op::Union => "union".to_string(),
            Op::Counted(kind) => format!("{} all", kind.word()),
            Op::Mfp(mfp) => {
                let mut text = String::from(match &mfp.projection {
                    Some(columns) if columns.is_empty() => "map no columns",
                    _ => "map",
                });
                if !mfp.predicates.is_empty() {
                    text = format!("filter {}", list(&mfp.predicates, " and "));
                    if mfp.projection.is_some() {
                        text.push_str(" map");
                    }
                }
                if let Some(projection) = &mfp.projection {
                    let columns: Vec<String> = projection
                        .iter()
                        .zip(node.schema.fields())
                        .map(|(e, field)| {
                            let e = readable(e);
                            let name = short(field.name());
                            if e == name { e } else { format!("{e} as {name}") }
                        })
                        .collect();
                    if !columns.is_empty() {
                        let _ = write!(text, " {}", columns.join(", "));
                    }
                }
                text
            }
            Op::Join(join) => describe_join(join),
            Op::Aggregate(aggregate) => {
                let calls: Vec<String> = aggregate.aggregates.iter().map(describe_call).collect();
                match aggregate.group.as_slice() {
                    [] => format!("aggregate {}", calls.join(", ")),
                    group => format!("aggregate {} by {}", calls.join(", "), list(group, ", ")),
                }
            }
            Op::TopK(top) => describe_top(top),
            Op::Window(window) => describe_window(window),
            Op::Unnest(unnest) => {
                let schema = &self.graph.nodes[node.inputs[0]].schema;
                let lists: Vec<&str> = unnest
                    .columns
                    .iter()
                    .filter(|(_, taken)| *taken)
                    .map(|(from, _)| schema.field(*from).name().as_str())
                    .collect();
                let lists: Vec<String> = lists.into_iter().map(short).collect();
                format!("unnest {}", lists.join(", "))
            }
            Op::Temporal(temporal) => {
                let enter = temporal
                    .lower
                    .iter()
                    .map(|b| format!("now() {} {}", if b.inclusive { ">=" } else { ">" }, readable(&b.expr)));
                let leave = temporal
                    .upper
                    .iter()
                    .map(|b| format!("now() {} {}", if b.inclusive { "<=" } else { "<" }, readable(&b.expr)));
                format!("while {}", enter.chain(leave).collect::<Vec<_>>().join(" and "))
            }
        }
    }
}

fn describe_join(join: &Join) -> String {
    let mut text = format!("{:?} join", join.kind).to_lowercase();
    let equal = if join.null_equals_null {
        "is not distinct from"
    } else {
        "="
    };
    for (n, (l, r)) in join.left_keys.iter().zip(&join.right_keys).enumerate() {
        let word = if n == 0 { "on" } else { "and" };
        let _ = write!(text, " {word} {} {equal} {}", readable(l), readable(r));
    }
    if let Some(residual) = &join.residual {
        let _ = write!(text, " where {}", readable(residual));
    }
    text
}

/// The call of an aggregate as text, without its order and filter.
pub fn readable_call(call: &AggregateCall) -> String {
    format!(
        "{}({}{})",
        call.function.fun().name(),
        if call.distinct { "distinct " } else { "" },
        list(&call.args, ", ")
    )
}

fn describe_call(call: &AggregateCall) -> String {
    let mut text = readable_call(call);
    if call.kind == AggregateKind::General {
        text.push_str(" general");
    }
    let order: Vec<String> = call
        .function
        .order_bys()
        .iter()
        .map(|o| {
            let expr = readable(&o.expr);
            if o.options.descending {
                format!("{expr} desc")
            } else {
                expr
            }
        })
        .collect();
    if !order.is_empty() {
        let _ = write!(text, " order by {}", order.join(", "));
    }
    if let Some(filter) = &call.filter {
        let _ = write!(text, " filter {}", readable(filter));
    }
    text
}

fn describe_top(top: &TopK) -> String {
    let mut text = String::from(match top.rank {
        Rank::RowNumber => "top",
        Rank::Rank => "top ranks",
        Rank::DenseRank => "top dense ranks",
    });
    if let Some(limit) = top.limit {
        let _ = write!(text, " {limit}");
    }
    if top.offset > 0 {
        let _ = write!(text, " behind {}", top.offset);
    }
    if !top.partition.is_empty() {
        let _ = write!(text, " per {}", list(&top.partition, ", "));
    }
    let _ = write!(text, " by {}", order(&top.order));
    if top.output_rank {
        text.push_str(" with rank");
    }
    text
}

fn describe_window(window: &Window) -> String {
    let functions: Vec<String> = window
        .functions
        .iter()
        .map(|f| {
            format!(
                "{}({})",
                f.name().split('(').next().unwrap_or_default(),
                list(&f.expressions(), ", ")
            )
        })
        .collect();
    let mut text = format!("window {}", functions.join(", "));
    if !window.partition.is_empty() {
        let _ = write!(text, " per {}", list(&window.partition, ", "));
    }
    let _ = write!(text, " by {}", order(&window.order));
    text
}

fn order(keys: &[SortKey]) -> String {
    let keys: Vec<String> = keys
        .iter()
        .map(|k| {
            let mut text = readable(&k.expr);
            if k.descending {
                text.push_str(" desc");
            }
            if k.nulls_first != k.descending {
                text.push_str(if k.nulls_first { " nulls first" } else { " nulls last" });
            }
            text
        })
        .collect();
    keys.join(", ")
}

fn list(exprs: &[Expr], separator: &str) -> String {
    exprs.iter().map(readable).collect::<Vec<_>>().join(separator)
}

/// The operator for which a function of numbers or times stands.
fn as_operator(call: &ScalarFunctionExpr) -> Option<Expr> {
    numbers::as_operator(call).or_else(|| times::as_operator(call))
}

/// An expression as text: columns by name only, intervals and texts as SQL writes them.
pub fn readable(expr: &Expr) -> String {
    let named = |name: String| Transformed::yes(Arc::new(Column::new(&name, 0)) as Expr);
    let with_operators = expr.clone().transform_up(|e| {
        Ok(match e.downcast_ref::<ScalarFunctionExpr>().and_then(as_operator) {
            Some(operator) => Transformed::yes(operator),
            None => Transformed::no(e),
        })
    });
    let plain = with_operators
        .data()
        .expect("writing operators does not fail")
        .transform_up(|e| {
            if let Some(column) = e.downcast_ref::<Column>() {
                return Ok(named(short(column.name())));
            }
            let Some(literal) = e.downcast_ref::<Literal>() else {
                return Ok(Transformed::no(e));
            };
            Ok(match literal.value() {
                ScalarValue::IntervalMonthDayNano(Some(i)) => named(interval(i)),
                ScalarValue::Utf8(Some(text)) => named(format!("'{text}'")),
                _ => Transformed::no(e),
            })
        })
        .data()
        .expect("renaming columns does not fail");
    plain.to_string().replace("@0", "")
}

/// A column's name without the parts that DataFusion adds to make computed names unique.
fn short(name: &str) -> String {
    // A column that was passed up more than once has the prefix several times.
    let mut name = name.trim_start_matches(PASSED);
    for clause in [" PARTITION BY", " ORDER BY", " ROWS BETWEEN", " RANGE BETWEEN"] {
        name = name.split(clause).next().unwrap_or(name);
    }
    if name.starts_with("__unnest_placeholder(") {
        return "list".to_string();
    }
    match name.split_once('(') {
        Some((function, _)) if name.len() > 40 => format!("{function}(..)"),
        _ => name.to_string(),
    }
}

fn interval(interval: &IntervalMonthDayNano) -> String {
    let mut parts = Vec::new();
    if interval.months != 0 {
        parts.push(format!("{} months", interval.months));
    }
    if interval.days != 0 {
        parts.push(format!("{} days", interval.days));
    }
    if interval.nanoseconds != 0 || parts.is_empty() {
        let nanos = interval.nanoseconds;
        let units = [
            (3_600_000_000_000, "hours"),
            (60_000_000_000, "minutes"),
            (1_000_000_000, "seconds"),
            (1_000, "microseconds"),
        ];
        let (per, unit) = units
            .into_iter()
            .find(|(per, _)| nanos % per == 0)
            .unwrap_or((1, "nanoseconds"));
        parts.push(format!("{} {unit}", nanos / per));
    }
    format!("interval '{}'", parts.join(" "))
}
