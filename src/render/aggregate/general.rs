//! Aggregates that are neither additive nor min or max: DataFusion's own accumulator runs over all values of a group
//! whenever the group changes. A change of a group of n rows costs O(n).
//!
//! Values are (ORDER BY columns, arguments), encoded so that their bytes compare in the order that the aggregate asks
//! for. The arguments break ties, so the order does not depend on the arrival of rows.

use arrow::array::{Array, ArrayRef};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{RowConverter, SortField};
use datafusion::common::ScalarValue;
use datafusion::error::DataFusionError;
use datafusion::physical_expr::expressions::Literal;

use crate::contain::contain;
use crate::plan::{self, AggregateCall, Expr};
use crate::render::arrange::{ByKey, reduce};
use crate::render::expr::KernelError;
use crate::render::tagged;
use crate::repr::{Diff, Row, RowCodec, RowRef, rows_bytes};

/// A general aggregate.
pub(super) struct GeneralAggregate {
    /// The call as users write it, for messages.
    shown: String,
    call: std::sync::Arc<datafusion::physical_expr::aggregate::AggregateFunctionExpr>,
    fields: Vec<SortField>,
    arguments: Vec<Argument>,
    orders: usize,
    result: RowCodec,
    output_type: DataType,
    /// The maximal size of the result in bytes, if it grows with the group.
    most: Option<u64>,
}

/// About how many bytes of values are decoded at once.
const PIECE: usize = 16 << 20;

enum Argument {
    /// The index of the stored column that holds the argument.
    Stored(usize),
    /// The argument is not stored, because it is the same in every row.
    Constant(ScalarValue),
}

impl GeneralAggregate {
    /// The aggregate, and the expressions whose columns form its values.
    pub fn new(
        call: &AggregateCall,
        input: &SchemaRef,
        result: RowCodec,
        output_type: DataType,
    ) -> (Self, Vec<(Expr, DataType)>) {
        let type_of = |expr: &Expr| {
            expr.data_type(input)
                .expect("a planned expression has a type over its input")
        };
        let (mut fields, mut stored) = (vec![], vec![]);
        let order_by = call.function.order_bys();
        for order in order_by {
            let data_type = type_of(&order.expr);
            fields.push(SortField::new_with_options(data_type.clone(), order.options));
            stored.push((order.expr.clone(), data_type));
        }
        let mut arguments = vec![];
        for arg in call.function.expressions() {
            if let Some(literal) = (arg.as_ref() as &dyn std::any::Any).downcast_ref::<Literal>() {
                arguments.push(Argument::Constant(literal.value().clone()));
                continue;
            }
            let data_type = type_of(&arg);
            fields.push(SortField::new(data_type.clone()));
            arguments.push(Argument::Stored(stored.len()));
            stored.push((arg, data_type));
        }
        let general = GeneralAggregate {
            shown: plan::readable_call(call),
            call: call.function.clone(),
            fields,
            arguments,
            orders: order_by.len(),
            result,
            output_type,
            most: call.most,
        };
        (general, stored)
    }

    /// The encoder of values.
    pub fn converter(&self) -> RowConverter {
        RowConverter::new(self.fields.clone()).expect("aggregates have arguments of types that rows can hold")
    }

    /// The result over no rows; `None` if the function has none.
    pub fn missing(&self) -> Option<Row> {
        self.evaluate(&self.converter(), &[]).ok()
    }

    /// The tagged results of all groups.
    pub fn results<'s>(self, arranged: ByKey<'s>, name: &str) -> ByKey<'s> {
        let converter = self.converter();
        reduce(
            arranged,
            name,
            Box::new(move |_, values, results| {
                let result = match contain(|| self.evaluate(&converter, values))
                    .unwrap_or_else(|panic| Err(format!("could not compute {}: {panic}", self.shown)))
                {
                    Ok(row) => tagged::ok(&[row.bytes()]),
                    Err(reason) => tagged::err(reason.as_bytes()),
                };
                results.push((result, 1));
            }),
        )
    }

    fn evaluate(&self, converter: &RowConverter, values: &[(RowRef<'_>, Diff)]) -> Result<Row, String> {
        let fail = |error: DataFusionError| {
            format!(
                "could not compute {}: {}",
                self.shown,
                KernelError::from(error).reason()
            )
        };
        let mut accumulator = self.call.create_accumulator().map_err(fail)?;
        let times = |diff: &Diff| match self.call.is_distinct() {
            true => (*diff).clamp(0, 1),
            false => (*diff).max(0),
        };
        let rows = values
            .iter()
            .flat_map(|(value, diff)| std::iter::repeat_n(value.bytes(), times(diff) as usize));
        let (mut piece, mut bytes, mut gathered) = (vec![], 0, 0);
        for row in rows {
            if bytes + row.len() > PIECE && !piece.is_empty() {
                let columns = self.columns(converter, std::mem::take(&mut piece)).map_err(fail)?;
                self.check(&columns[0], &mut gathered)?;
                accumulator.update_batch(&columns).map_err(fail)?;
                bytes = 0;
            }
            bytes += row.len();
            piece.push(row);
        }
        if !piece.is_empty() {
            let columns = self.columns(converter, piece).map_err(fail)?;
            self.check(&columns[0], &mut gathered)?;
            accumulator.update_batch(&columns).map_err(fail)?;
        }
        let result = accumulator
            .evaluate()
            .and_then(|scalar| scalar.to_array())
            .map_err(fail)?;
        let result = match result.data_type() == &self.output_type {
            true => result,
            false => cast(&result, &self.output_type).map_err(|error| KernelError::from(error).reason())?,
        };
        if let Some(most) = self.most
            && let Some(bytes) = plan::value_above(&result, most)
        {
            return Err(plan::too_long(self.call.fun().name(), bytes, most));
        }
        let mut rows = self
            .result
            .encode_rows(&[result], 1)
            .expect("a result is of its column's type");
        Ok(rows.pop().expect("one row was encoded"))
    }

    /// The columns that the accumulator takes for these values.
    fn columns(&self, converter: &RowConverter, values: Vec<&[u8]>) -> Result<Vec<ArrayRef>, DataFusionError> {
        let (parser, count) = (converter.parser(), values.len());
        let stored = converter
            .convert_rows(values.into_iter().map(|value| parser.parse(value)))
            .expect("values were encoded with these fields");
        let mut columns: Vec<ArrayRef> = vec![];
        for argument in &self.arguments {
            columns.push(match argument {
                Argument::Stored(column) => stored[*column].clone(),
                Argument::Constant(value) => value.to_array_of_size(count)?,
            });
        }
        // Accumulators that respect an order expect its columns behind their arguments.
        columns.extend_from_slice(&stored[..self.orders]);
        Ok(columns)
    }

    /// Refuses a group as soon as its values so far (`gathered` bytes, and these values) are too large for a result,
    /// instead of gathering all of them first.
    fn check(&self, values: &ArrayRef, gathered: &mut u64) -> Result<(), String> {
        let Some(most) = self.most else { return Ok(()) };
        *gathered += rows_bytes(std::slice::from_ref(values), 0..values.len());
        match *gathered > most {
            true => Err(plan::too_long(self.call.fun().name(), *gathered, most)),
            false => Ok(()),
        }
    }
}
