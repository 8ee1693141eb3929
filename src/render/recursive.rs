//! A recursive query: its step over its own rows, in a scope of its own, whose times consist of an epoch and a round.
//!
//! ```text
//!            base                                        what the step joins
//!             |                                                  |
//! +- scope ---v--------------------------------------------------v---------------+
//! |   rows of the first round + step(rows so far) --> counted --+-> rows ---------+--> oks
//! |                               ^                             |                 |
//! |                               +---- one round later --------+-> beyond the ---+--> errs
//! |                                                             |   last round    |
//! |                                                             +-> too many -----+--> errs
//! +-------------------------------------------------------------------------------+
//! ```
//!
//! 1. An update at (epoch, n) belongs to round n: the sum over all rounds up to n gives the query's rows after n
//!    rounds. Because the step is linear, the updates at n itself are the rows that this round adds.
//! 2. `counted` bounds how often each row is there: once (UNION), or as often as it is derived, up to [`MOST_EQUAL`] +
//!    1, where it stays. So counts do not overflow, and a cycle ends by itself or at the last round. A row that
//!    reaches this bound is an error, and is not among the query's rows.
//! 3. Updates of rounds beyond the last one are errors, and are not fed back. An error of (2) or (3) is reported once
//!    for each row.
//! 4. Nodes that do not read the rows so far stay outside of the scope. They are arranged once, and shared with the
//!    rest of the graph.

use std::collections::HashMap;

use arrow::datatypes::SchemaRef;
use differential_dataflow::AsCollection;
use differential_dataflow::operators::iterate::Variable;
use timely::dataflow::operators::generic::operator::empty;
use timely::dataflow::operators::vec::Filter;
use timely::dataflow::{ProbeHandle, Scope};
use timely::order::Product;

use super::arrange::{self, ByKey};
use super::error::Errors;
use super::expr::types_of;
use super::join::{both, emit, keys, marks, nulls, part};
use super::key::{self, KeyColumnLayout, KeyCutter, KeyedRows};
use super::rounds::{RoundByKey, RoundPairs, RoundRows, apply, arrange_by_key, join, reduce};
use super::{Builder, Collections, mfp};
use crate::plan::{Graph, Join, JoinKind, MOST_EQUAL, Mfp, Node, NodeId, Op, Recursive};
use crate::repr::{Diff, Round, Row, RowCodec};

/// The side of a join in a step that stays outside of the scope.
struct Outside<'s> {
    keyed: KeyedRows<'s>,
    /// The distinct keys of this side, if the join only needs to know whether a key is present.
    keys: Option<ByKey<'s>>,
    schema: SchemaRef,
}

/// Rows and errors inside of the scope.
#[derive(Clone)]
struct Inside<'i> {
    oks: RoundRows<'i>,
    errs: Vec<RoundRows<'i>>,
}

impl<'s> Builder<'_, 's> {
    /// Builds a recursive query, whose two inputs are its base and its step.
    pub(super) fn recursive(&mut self, id: NodeId, plan: &Recursive) -> Collections<'s> {
        let graph = self.graph;
        let node = &graph.nodes[id];
        let [base, step] = [node.inputs[0], node.inputs[1]];
        let name = node.name.as_str();
        let first = self.node(base);
        let inner = inner(graph, step, base);
        let mut errs = first.errs.clone();
        let mut outside = HashMap::new();
        for (id, node) in inner.iter().map(|id| (*id, &graph.nodes[*id])) {
            let Op::Join(join) = &node.op else { continue };
            let (read, keys) = match inner.contains(&node.inputs[0]) {
                true => (node.inputs[1], &join.right_keys),
                false => (node.inputs[0], &join.left_keys),
            };
            let keyed = self.keyed(read, keys, !join.null_equals_null);
            errs = errs.concat(keyed.errs.clone()).concat(self.node(read).errs);
            let only_keys = join.residual.is_none() && join.kind != JoinKind::Inner;
            let side = Outside {
                keys: only_keys.then(|| self::keys(&keyed, &node.name)),
                keyed,
                schema: graph.nodes[read].schema.clone(),
            };
            outside.insert(id, side);
        }
        let outer = self.scope;
        let probe = ProbeHandle::new();
        let (oks, made_errs, ends) = outer.scoped::<Round, _, _>(name, |scope| {
            let summary = Product::new(Default::default(), 1);
            let (variable, so_far) = Variable::new(scope, summary);
            let mut built = Step {
                graph,
                scope,
                base,
                so_far,
                outside,
                made: HashMap::new(),
            };
            let made = built.node(step);
            let all = first.oks.enter(scope).concat(made.oks);
            let (rows, many) = counted(all, plan.distinct, name);
            let most = plan.most_rounds;
            let within = in_rounds(&rows, move |round| round <= most);
            let beyond = in_rounds(&rows, move |round| round > most);
            let again = match many.clone() {
                None => within.clone(),
                // By (2), a row that reached the bound is fed back with the count of the bound.
                Some(many) => within
                    .clone()
                    .concat(multiplied(in_rounds(&many, move |round| round <= most), MOST_EQUAL + 1)),
            };
            variable.set(again.probe_with(&probe));
            let schema = &node.schema;
            let ends = refused(beyond, schema, without_end(most));
            let ends = match many {
                None => ends,
                Some(many) => ends.concat(refused(many, schema, too_many())),
            };
            let errs = differential_dataflow::collection::concatenate(scope, made.errs);
            (within.leave(outer), errs.leave(outer), ends.leave(outer))
        });
        self.rounds.push((name.to_string(), probe));
        // There may be as many such rows as there are paths; `distinct` reports each row once.
        let description = format!("ends of {name}");
        let ends = arrange::distinct(
            arrange::arrange_rows(ends, &format!("arrange {description}")),
            &description,
        );
        Collections {
            oks,
            errs: errs.concat(made_errs).concat(ends),
        }
    }
}

/// The reason of a row that was added in a round beyond the last one.
fn without_end(most: u64) -> String {
    format!(
        "the recursive query goes on beyond {most} rounds, to this row: bound it by a condition, end cycles by UNION \
         in the place of UNION ALL, or raise max_rounds"
    )
}

/// The reason of a row that reached the bound of (2).
fn too_many() -> String {
    format!(
        "the recursive query has more than {MOST_EQUAL} rows like this one: end cycles by UNION in the place of UNION ALL"
    )
}

/// The nodes of a step that read, directly or not, the rows so far.
fn inner(graph: &Graph, step: NodeId, base: NodeId) -> Vec<NodeId> {
    fn reads(graph: &Graph, id: NodeId, base: NodeId, known: &mut HashMap<NodeId, bool>) -> bool {
        if let Some(known) = known.get(&id) {
            return *known;
        }
        let node = &graph.nodes[id];
        let answer = match node.op {
            Op::SoFar => node.inputs[0] == base,
            // A nested recursive query only reads its own rows so far.
            Op::Recursive(_) => false,
            _ => {
                // `collect` visits all inputs, so that the answer is known for each of them.
                let inputs = node.inputs.iter().map(|input| reads(graph, *input, base, known));
                inputs.collect::<Vec<bool>>().contains(&true)
            }
        };
        known.insert(id, answer);
        answer
    }
    let mut known = HashMap::new();
    reads(graph, step, base, &mut known);
    let mut inner: Vec<NodeId> = known
        .into_iter()
        .filter_map(|(id, reads)| reads.then_some(id))
        .collect();
    // All workers must build operators in the same order.
    inner.sort_unstable();
    inner
}

/// The updates of the rounds for which `which` is true.
fn in_rounds<'i>(rows: &RoundRows<'i>, which: impl Fn(u64) -> bool + 'static) -> RoundRows<'i> {
    let rows = rows.inner.clone();
    rows.filter(move |(_, time, _)| which(time.inner)).as_collection()
}

/// Multiplies each row's count.
fn multiplied<'i>(rows: RoundRows<'i>, count: Diff) -> RoundRows<'i> {
    rows.explode(move |row| Some((row, count)))
}

/// By (2): the rows with their bounded counts and, unless `distinct`, the rows that reached the bound, each once.
fn counted<'i>(rows: RoundRows<'i>, distinct: bool, name: &str) -> (RoundRows<'i>, Option<RoundRows<'i>>) {
    let arranged = arrange_by_key(rows.map(|row| (row, Row::default())), &format!("arrange {name}"));
    let (many, _) = marks();
    let mark = many.clone();
    let counts = reduce(
        arranged,
        name,
        Box::new(move |_, values, output| {
            let count = values.iter().map(|(_, count)| count).sum::<Diff>();
            match count {
                Diff::MIN..=0 => {}
                _ if distinct => output.push((Row::default(), 1)),
                1..=MOST_EQUAL => output.push((Row::default(), count)),
                _ => output.push((mark.clone(), 1)),
            }
        }),
    );
    let counts = counts.as_collection(|row, mark| (row.to_row(), mark.bytes().is_empty()));
    let of = |fine: bool| {
        let counts = counts.clone();
        counts.filter(move |(_, is_fine)| *is_fine == fine).map(|(row, _)| row)
    };
    (of(true), (!distinct).then(|| of(false)))
}

/// Turns rows into error rows.
fn refused<'i>(rows: RoundRows<'i>, schema: &SchemaRef, reason: String) -> RoundRows<'i> {
    let codec = RowCodec::new(super::expr::relaxed(schema)).expect("a planned schema has a row encoding");
    let errors = Errors::default();
    rows.map(move |row| errors.encoded(&reason, &codec, row.bytes()))
}

/// The operators of a step while they are built.
struct Step<'a, 's, 'i> {
    graph: &'a Graph,
    scope: Scope<'i, Round>,
    base: NodeId,
    so_far: RoundRows<'i>,
    outside: HashMap<NodeId, Outside<'s>>,
    made: HashMap<NodeId, Inside<'i>>,
}

impl<'i> Step<'_, '_, 'i> {
    fn node(&mut self, id: NodeId) -> Inside<'i> {
        if let Some(made) = self.made.get(&id) {
            return made.clone();
        }
        let made = self.build(id);
        // The first reader takes the errors, so that they are reported once.
        let rows = Inside {
            oks: made.oks.clone(),
            errs: vec![],
        };
        self.made.insert(id, rows);
        made
    }

    fn build(&mut self, id: NodeId) -> Inside<'i> {
        let graph = self.graph;
        let node = &graph.nodes[id];
        let schema = |input: usize| &graph.nodes[node.inputs[input]].schema;
        match &node.op {
            Op::SoFar => {
                debug_assert_eq!(node.inputs[0], self.base, "a step reads its own rows");
                Inside {
                    oks: self.so_far.clone(),
                    errs: vec![],
                }
            }
            Op::Mfp(plan) => self
                .node(node.inputs[0])
                .filtered(plan, schema(0), &node.schema, &node.name),
            // Skipped here, because the rows become distinct at the end of each round.
            Op::Distinct => self.node(node.inputs[0]),
            Op::Union => {
                let inputs: Vec<Inside<'i>> = node.inputs.iter().map(|input| self.node(*input)).collect();
                let (oks, errs): (Vec<_>, Vec<_>) = inputs.into_iter().map(|input| (input.oks, input.errs)).unzip();
                Inside {
                    oks: differential_dataflow::collection::concatenate(self.scope, oks),
                    errs: errs.into_iter().flatten().collect(),
                }
            }
            Op::Join(plan) => self.join(id, node, plan),
            _ => unreachable!("the plan has only linear operators in a step"),
        }
    }

    fn join(&mut self, id: NodeId, node: &Node, plan: &Join) -> Inside<'i> {
        let outside = self
            .outside
            .remove(&id)
            .expect("each join of a step was prepared, and is built once");
        // Whether the rows so far are on the right side.
        let mirrored = !self.is_inner(node.inputs[0]);
        let (read, on) = match mirrored {
            false => (node.inputs[0], &plan.left_keys),
            true => (node.inputs[1], &plan.right_keys),
        };
        let schema = self.graph.nodes[read].schema.clone();
        let name = node.name.as_str();
        let input = self.node(read);
        let keyed = by_key(self.scope, input.oks, &schema, on, !plan.null_equals_null, name);
        let mut errs = input.errs;
        errs.push(keyed.errs);

        let needs_pairs =
            plan.residual.is_some() || matches!(plan.kind, JoinKind::Inner | JoinKind::Left | JoinKind::Right);
        let own = 0..schema.fields().len();
        let (joined, own) = match mirrored {
            false => (both(&schema, &outside.schema), own),
            true => {
                let before = outside.schema.fields().len();
                (both(&outside.schema, &schema), before..before + own.len())
            }
        };
        let pairs = needs_pairs.then(|| {
            let whole: Vec<usize> = (0..joined.fields().len()).collect();
            let layouts = match mirrored {
                false => [&keyed.layout, &outside.keyed.layout],
                true => [&outside.keyed.layout, &keyed.layout],
            };
            let mut make =
                emit(layouts[0], layouts[1], &whole).expect("rows are split only where they can be put together");
            let outside_rows = outside.keyed.arranged.clone().enter(self.scope);
            let pairs = match mirrored {
                false => join(keyed.arranged.clone(), outside_rows, make),
                true => join(
                    keyed.arranged.clone(),
                    outside_rows,
                    Box::new(move |key, inside, outside| make(key, outside, inside)),
                ),
            };
            let Some(residual) = &plan.residual else { return pairs };
            let filter = Mfp {
                predicates: vec![residual.clone()],
                projection: None,
            };
            let pairs = Inside {
                oks: pairs,
                errs: vec![],
            };
            let passed = pairs.filtered(&filter, &joined, &joined, &format!("{name}: residual"));
            errs.extend(passed.errs);
            passed.oks
        });
        let row = keyed.layout.rows();
        let rows = || keyed.arranged.clone().as_collection(keyed.layout.rows());
        let matched = || match (&pairs, &outside.keys) {
            (_, Some(keys)) => {
                let keys = keys.clone().enter(self.scope);
                join(
                    keyed.arranged.clone(),
                    keys,
                    Box::new(move |key, value, _| row(key, value)),
                )
            }
            (Some(pairs), None) => {
                let parts = apply(
                    pairs.clone(),
                    &joined,
                    &format!("{name}: parts"),
                    part(&joined, own.clone()),
                );
                among(rows(), parts.main, name)
            }
            (None, None) => unreachable!("a join makes pairs or asks for keys"),
        };
        let oks = match plan.kind {
            JoinKind::Inner => pairs.expect("an inner join makes pairs"),
            JoinKind::LeftSemi => matched(),
            JoinKind::LeftAnti => rows().concat(matched().negate()).concat(keyed.nulls),
            JoinKind::Left | JoinKind::Right => {
                let unmatched = rows().concat(matched().negate()).concat(keyed.nulls);
                let nulls = nulls(&outside.schema);
                let padded = unmatched.map(move |row| match mirrored {
                    false => Row::concat(row.bytes(), nulls.bytes()),
                    true => Row::concat(nulls.bytes(), row.bytes()),
                });
                pairs.expect("an outer join makes pairs").concat(padded)
            }
            JoinKind::LeftMark => {
                let (yes, no) = marks();
                let all = rows();
                let matched = matched();
                let unmatched = all.concat(matched.clone().negate()).concat(keyed.nulls);
                matched
                    .map(move |row| Row::concat(row.bytes(), yes.bytes()))
                    .concat(unmatched.map(move |row| Row::concat(row.bytes(), no.bytes())))
            }
            JoinKind::Full => unreachable!("a full join is not linear"),
        };
        Inside { oks, errs }
    }

    fn is_inner(&self, id: NodeId) -> bool {
        inner(self.graph, id, self.base).contains(&id)
    }
}

impl<'i> Inside<'i> {
    /// Rows that pass the predicates, projected.
    fn filtered(self, plan: &Mfp, input: &SchemaRef, output: &SchemaRef, name: &str) -> Inside<'i> {
        if plan.predicates.is_empty() && plan.projection.is_none() {
            return self;
        }
        if let (true, Some(splice)) = (plan.predicates.is_empty(), mfp::spliced(plan, input, output)) {
            return Inside {
                oks: self.oks.map(move |row| splice.cut(row)),
                errs: self.errs,
            };
        }
        let applied = apply(self.oks, input, name, mfp::kernel(plan, input, output));
        let mut errs = self.errs;
        errs.push(applied.errs);
        Inside {
            oks: applied.main,
            errs,
        }
    }
}

/// The rows so far, arranged by a join's key.
struct ByJoinKey<'i> {
    arranged: RoundByKey<'i>,
    /// Rows with a null in their key, if they are kept apart.
    nulls: RoundRows<'i>,
    errs: RoundRows<'i>,
    layout: KeyColumnLayout,
}

fn by_key<'i>(
    scope: Scope<'i, Round>,
    rows: RoundRows<'i>,
    schema: &SchemaRef,
    keys: &[crate::plan::Expr],
    nulls_apart: bool,
    name: &str,
) -> ByJoinKey<'i> {
    let arrange = |pairs: RoundPairs<'i>| arrange_by_key(pairs, &format!("arrange the rows so far of {name}"));
    if let Some(cut) = KeyCutter::new(schema, keys, nulls_apart) {
        let layout = cut.layout.clone();
        let cut = rows.map(move |row| cut.split_key(row));
        let nulls = cut.clone().flat_map(Result::err);
        return ByJoinKey {
            arranged: arrange(cut.flat_map(Result::ok)),
            nulls,
            errs: empty(scope).as_collection(),
            layout,
        };
    }
    let types = schema.fields().iter().map(|field| field.data_type().clone()).collect();
    let applied = apply(
        rows,
        schema,
        &format!("key {name}"),
        key::kernel(schema, keys, nulls_apart),
    );
    ByJoinKey {
        arranged: arrange(applied.main),
        nulls: applied.rest,
        errs: applied.errs,
        layout: KeyColumnLayout::whole(types_of(keys, schema), types),
    }
}

/// The rows that are among `parts`, with their own counts.
fn among<'i>(rows: RoundRows<'i>, parts: RoundRows<'i>, name: &str) -> RoundRows<'i> {
    let (is_part, is_row) = marks();
    let (part, of) = (is_part.clone(), is_row.clone());
    let tagged = parts
        .map(move |row| (row, part.clone()))
        .concat(rows.map(move |row| (row, of.clone())));
    let name = format!("{name}: matched");
    let reduced = reduce(
        arrange_by_key(tagged, &name),
        &name,
        Box::new(move |_, values, output| {
            let count = |mark: &Row| {
                values
                    .iter()
                    .find(|(value, _)| value.bytes() == mark.bytes())
                    .map(|(_, count)| *count)
            };
            if let (Some(1..), Some(rows)) = (count(&is_part), count(&is_row)) {
                output.push((Row::default(), rows));
            }
        }),
    );
    reduced.as_collection(|row, _| row.to_row())
}
