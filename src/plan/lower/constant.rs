//! Lowers rows that stand in the SQL itself: VALUES, and SELECT without FROM.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::{EmptyRelation, Values};
use datafusion::physical_plan::ColumnarValue;

use super::aggregate::rows_without_columns;
use super::{Lowering, expr};
use crate::plan::error::Planned;
use crate::plan::share::Draft;
use crate::plan::{NodeId, Op};
use crate::repr::normalise_schema;

impl Lowering<'_> {
    pub(super) fn empty(&mut self, empty: &EmptyRelation) -> Planned<NodeId> {
        let schema = normalise_schema(empty.schema.as_arrow());
        let batch = if empty.produce_one_row {
            rows_without_columns(1)?
        } else {
            RecordBatch::new_empty(schema.clone())
        };
        Ok(self.constant(batch, schema))
    }

    pub(super) fn values(&mut self, values: &Values) -> Planned<NodeId> {
        let schema = normalise_schema(values.schema.as_arrow());
        let one_row = rows_without_columns(1)?;
        let nothing = datafusion::common::DFSchema::empty();
        let mut columns = Vec::with_capacity(schema.fields().len());
        for (n, field) in schema.fields().iter().enumerate() {
            let mut scalars = Vec::with_capacity(values.values.len());
            for row in &values.values {
                let cell = expr::physical_as(&row[n], &nothing, one_row.schema_ref(), field.data_type())?;
                let array = match cell.evaluate(&one_row)? {
                    ColumnarValue::Scalar(scalar) => scalar.to_array()?,
                    ColumnarValue::Array(array) => array,
                };
                scalars.push(array);
            }
            let arrays: Vec<&dyn arrow::array::Array> = scalars.iter().map(|a| a.as_ref()).collect();
            columns.push(arrow::compute::concat(&arrays)?);
        }
        let batch = RecordBatch::try_new(schema.clone(), columns)?;
        Ok(self.constant(batch, schema))
    }

    pub(super) fn constant(&mut self, batch: RecordBatch, schema: SchemaRef) -> NodeId {
        let draft = Draft {
            op: Op::Constant(batch),
            inputs: vec![],
            schema,
            name: "constant".to_string(),
            append_only: true,
        };
        self.builder.add(draft, "")
    }
}
