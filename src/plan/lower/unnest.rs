//! Lowers UNNEST of list columns.

use datafusion::logical_expr::Unnest as LogicalUnnest;

use super::Lowering;
use crate::plan::error::{Planned, Refusal};
use crate::plan::{NodeId, Op, Unnest};
use crate::repr::normalise_schema;

impl Lowering<'_> {
    pub(super) fn unnest(&mut self, unnest: &LogicalUnnest) -> Planned<NodeId> {
        let refused = |what: &str, help: &str| Refusal::new(what).help(help).near("unnest");
        if !unnest.struct_type_columns.is_empty() {
            return Err(refused("could not unnest a struct", "name its fields one by one: s['field']").into());
        }
        if unnest.list_type_columns.iter().any(|(_, list)| list.depth != 1) {
            return Err(refused(
                "could not unnest lists inside lists at once",
                "unnest the outer list in a subquery, then the inner one",
            )
            .into());
        }
        let input = self.lower(&unnest.input)?;
        let columns = unnest
            .dependency_indices
            .iter()
            .zip(unnest.schema.columns())
            .map(|(&from, column)| {
                let taken = unnest
                    .list_type_columns
                    .iter()
                    .any(|(list, out)| *list == from && out.output_column.name == column.name);
                (from, taken)
            })
            .collect();
        let op = Op::Unnest(Unnest {
            columns,
            preserve_nulls: unnest.options.preserve_nulls(),
        });
        let append_only = self.builder.nodes[input].append_only;
        let schema = normalise_schema(unnest.schema.as_arrow());
        Ok(self.add(op, vec![input], schema, "unnest", append_only))
    }
}
