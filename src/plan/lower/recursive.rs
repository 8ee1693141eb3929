//! Lowers recursive queries. The step becomes nodes over the rows so far, and each node must be linear in them.

use std::collections::HashSet;

use super::Lowering;
use crate::plan::error::{Planned, Refusal};
use crate::plan::recursive::Recursion;
use crate::plan::{JoinKind, NodeId, Op, Recursive};

impl Lowering<'_> {
    /// Lowers a recursive query, and makes its rows known to the plans that read them.
    pub(in crate::plan) fn recursion(&mut self, recursion: &Recursion) -> Planned<()> {
        let base = self.lower(&recursion.base)?;
        let base = self.conform(base, &recursion.schema)?;
        let so_far = self.add(Op::SoFar, vec![base], recursion.schema.clone(), "rows-so-far", false);
        self.own.insert(recursion.before.clone(), so_far);
        let step = self.lower(&recursion.step)?;
        let step = self.conform(step, &recursion.schema)?;
        let reads = self.linear(step, so_far, recursion.distinct)?;
        let node = match reads {
            true => {
                let op = Op::Recursive(Recursive {
                    distinct: recursion.distinct,
                    most_rounds: recursion.most_rounds,
                });
                self.add(op, vec![base, step], recursion.schema.clone(), "recursive", false)
            }
            // The optimiser has found that the step never yields a row.
            false if recursion.distinct => self.distinct(base),
            false => base,
        };
        self.own.insert(recursion.name.clone(), node);
        Ok(())
    }

    /// Whether a step reads the rows so far. Refuses one that is not linear in them.
    fn linear(&self, step: NodeId, so_far: NodeId, distinct: bool) -> Planned<bool> {
        let nodes = &self.builder.nodes;
        let mut readers = HashSet::from([so_far]);
        for (id, node) in nodes.iter().enumerate() {
            // A recursive query within the step has a step of its own, which reads that query's rows so far.
            let bound = matches!(node.op, Op::Recursive(_));
            let inputs = &node.inputs[..if bound { 1 } else { node.inputs.len() }];
            if inputs.iter().any(|input| readers.contains(input)) {
                readers.insert(id);
            }
        }
        if !readers.contains(&step) {
            return match &nodes[step].op {
                Op::Constant(batch) if batch.num_rows() == 0 => Ok(false),
                _ => Err(refused(
                    "a part that does not read it",
                    "put that part in front of the recursive one",
                )
                .into()),
            };
        }
        let (mut pending, mut seen) = (vec![step], HashSet::new());
        while let Some(id) = pending.pop() {
            if id == so_far || !seen.insert(id) {
                continue;
            }
            let node = &nodes[id];
            let reads: Vec<bool> = node.inputs.iter().map(|input| readers.contains(input)).collect();
            let later = "do so where the query is read, or in a table that the recursive part joins";
            match &node.op {
                Op::Mfp(_) => {}
                Op::Union if reads.iter().all(|reads| *reads) => {}
                Op::Union => {
                    return Err(refused(
                        "a part that does not read it and would give its rows in each round",
                        "put that part in front of the recursive one",
                    )
                    .into());
                }
                Op::Distinct if distinct => {}
                Op::Join(join) => match (join.kind, reads.as_slice()) {
                    (
                        JoinKind::Inner | JoinKind::Left | JoinKind::LeftSemi | JoinKind::LeftAnti | JoinKind::LeftMark,
                        [true, false],
                    )
                    | (JoinKind::Inner | JoinKind::Right, [false, true]) => {}
                    (_, [true, true]) => {
                        let help = "write the subquery as a join with a table, or compute it in a table of its own";
                        return Err(
                            refused("a join of its rows with themselves, or a subquery that needs one", help).into(),
                        );
                    }
                    _ => return Err(refused("a join that keeps rows for want of its rows", later).into()),
                },
                Op::Temporal(_) => {
                    return Err(refused(
                        "a condition on now() and its rows",
                        "put it in front of the recursive part, or in a subquery of FROM which that part joins, or where the query is read",
                    )
                    .into());
                }
                Op::Unnest(_) => return Err(refused("UNNEST of its rows", later).into()),
                Op::Aggregate(_) | Op::Distinct => return Err(refused("groups of its rows", later).into()),
                _ => return Err(refused("what depends on several of its rows at once", later).into()),
            }
            pending.extend(node.inputs.iter().filter(|input| readers.contains(input)));
        }
        Ok(true)
    }
}

fn refused(what: &str, help: &str) -> Refusal {
    Refusal::new(format!(
        "could not keep a recursive query up to date whose recursive part has {what}"
    ))
    .help(help)
    .near("RECURSIVE")
}
