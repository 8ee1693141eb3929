//! Compares the rows that a table has with those that it should have, as multisets, with doubles rounded to nine
//! significant digits: in batch, a sum of doubles depends on the order of addition (the run's sums do not).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, RecordBatch, new_null_array};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use twox_hash::XxHash3_128;

use super::{Difference, VerifyError};
use crate::plan::PlannedTable;
use crate::repr::{CodecError, Row, RowCodec, ValueTexts, normalise_batch, normalise_schema};
use crate::serve::query::{LakeSnapshot, QueryError};

/// The number of rows that a table has in the lake, and the rows that differ from the recomputed ones.
pub async fn compare(
    snapshot: &LakeSnapshot,
    planned: &PlannedTable,
    made: &[RecordBatch],
) -> Result<(u64, Vec<Difference>), VerifyError> {
    let hasher = Hasher::new(&planned.schema)?;
    let mut surplus: HashMap<u128, i64> = HashMap::new();
    for rows in made {
        for hash in hasher.hashes(rows)? {
            *surplus.entry(hash).or_default() += 1;
        }
    }
    let mut stored_rows = 0;
    let mut stored = LakeRows::open(snapshot, &planned.name, &planned.schema).await?;
    while let Some(rows) = stored.next().await? {
        stored_rows += rows.num_rows() as u64;
        for hash in hasher.hashes(&rows)? {
            *surplus.entry(hash).or_default() -= 1;
        }
    }
    surplus.retain(|_, count| *count != 0);
    if surplus.is_empty() {
        return Ok((stored_rows, vec![]));
    }
    let differing = |rows: &RecordBatch| -> Result<RecordBatch, VerifyError> {
        let hashes = hasher.hashes(rows)?;
        let mask: BooleanArray = hashes.iter().map(|hash| Some(surplus.contains_key(hash))).collect();
        Ok(filter_record_batch(rows, &mask).expect("the mask was made from the batch"))
    };
    let ours = made.iter().map(differing).collect::<Result<Vec<_>, _>>()?;
    let mut theirs = vec![];
    let mut stored = LakeRows::open(snapshot, &planned.name, &planned.schema).await?;
    while let Some(rows) = stored.next().await? {
        theirs.push(differing(&rows)?);
    }
    let schema = nullable(&normalise_schema(&planned.schema));
    let [ours, theirs] = [ours, theirs].map(|rows| concat_batches(&schema, &rows));
    let failed = |source| VerifyError::Check {
        table: planned.name.clone(),
        source,
    };
    let (ours, theirs) = (ours.map_err(failed)?, theirs.map_err(failed)?);
    let differences = differences(&planned.name, &planned.schema, &ours, &theirs)?;
    Ok((stored_rows, differences))
}

/// Hashes rows, with doubles rounded to nine digits.
pub struct Hasher(RowCodec);

impl Hasher {
    /// A hasher for rows of this schema.
    pub fn new(schema: &SchemaRef) -> Result<Hasher, CodecError> {
        Ok(Hasher(RowCodec::new(nullable(&normalise_schema(schema)))?))
    }

    /// The hash of each row.
    pub fn hashes(&self, rows: &RecordBatch) -> Result<Vec<u128>, CodecError> {
        if rows.num_columns() == 0 {
            return Ok(vec![0; rows.num_rows()]);
        }
        let columns: Vec<ArrayRef> = rows.columns().iter().map(rounded).collect();
        let encoded = self.0.encode(&columns)?;
        Ok(encoded.iter().map(|row| XxHash3_128::oneshot(row.as_ref())).collect())
    }
}

/// Streams a table's rows from the lake, in the types of the plan.
pub struct LakeRows {
    name: String,
    schema: SchemaRef,
    rows: SendableRecordBatchStream,
}

impl LakeRows {
    /// Starts reading a table.
    pub async fn open(snapshot: &LakeSnapshot, name: &str, schema: &SchemaRef) -> Result<LakeRows, VerifyError> {
        Ok(LakeRows {
            name: name.to_string(),
            schema: normalise_schema(schema),
            rows: snapshot.stream(name).await?,
        })
    }

    /// The next batch; none at the end.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>, VerifyError> {
        let Some(batch) = self.rows.next().await else {
            return Ok(None);
        };
        let batch = batch.map_err(QueryError::from)?;
        // Columns are matched by name: a column that was added later is last in the table, wherever the definition has
        // it, and exists only once rows have changed since.
        let fields = self
            .schema
            .fields()
            .iter()
            .map(|field| match batch.schema().field_with_name(field.name()) {
                Ok(stored) => stored.clone(),
                Err(_) => field.as_ref().clone().with_nullable(true),
            });
        let fields: Vec<Field> = fields.collect();
        let columns = fields.iter().map(|field| match batch.column_by_name(field.name()) {
            Some(column) => column.clone(),
            None => new_null_array(field.data_type(), batch.num_rows()),
        });
        let columns = columns.collect();
        let batch =
            RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|source| VerifyError::Check {
                table: self.name.clone(),
                source,
            })?;
        Ok(Some(relaxed(&normalise_batch(&nullable(&self.schema), &batch)?)))
    }
}

/// The schema with every column nullable.
pub fn nullable(schema: &Schema) -> SchemaRef {
    Arc::new(Schema::new(
        schema
            .fields()
            .iter()
            .map(|f| f.as_ref().clone().with_nullable(true))
            .collect::<Vec<Field>>(),
    ))
}

fn relaxed(batch: &RecordBatch) -> RecordBatch {
    RecordBatch::try_new(nullable(&batch.schema()), batch.columns().to_vec())
        .expect("a nullable field takes any column")
}

/// Encoded rows with their multiplicities; doubles are rounded to nine digits.
fn counted(rows: &RecordBatch) -> Result<BTreeMap<Row, i64>, CodecError> {
    let columns: Vec<ArrayRef> = rows.columns().iter().map(rounded).collect();
    let codec = RowCodec::new(rows.schema())?;
    let mut counts = BTreeMap::new();
    for row in codec.encode_rows(&columns, rows.num_rows())? {
        *counts.entry(row).or_default() += 1;
    }
    Ok(counts)
}

/// Rounds doubles to nine significant digits. Two values that differ only in their last bits may still be rounded
/// apart; [`differences`] treats these as equal.
pub fn rounded(column: &ArrayRef) -> ArrayRef {
    match column.as_any().downcast_ref::<Float64Array>() {
        Some(doubles) => Arc::new(doubles.unary::<_, Float64Type>(|x| {
            if x == 0.0 || !x.is_finite() {
                return x;
            }
            let scale = 10f64.powi(8 - x.abs().log10().floor() as i32);
            if scale.is_finite() && scale > 0.0 {
                (x * scale).round() / scale
            } else {
                x
            }
        })),
        None => column.clone(),
    }
}

/// The rows that differ between two batches of a table, except for rows that differ only in the last digits of
/// doubles.
pub fn differences(
    table: &str,
    schema: &SchemaRef,
    expected: &RecordBatch,
    found: &RecordBatch,
) -> Result<Vec<Difference>, VerifyError> {
    let mut differing: BTreeMap<Row, (i64, i64)> = BTreeMap::new();
    for (row, count) in counted(expected)? {
        differing.entry(row).or_default().0 = count;
    }
    for (row, count) in counted(found)? {
        differing.entry(row).or_default().1 = count;
    }
    differing.retain(|_, (expected, found)| expected != found);
    if differing.is_empty() {
        return Ok(vec![]);
    }
    let codec = RowCodec::new(nullable(schema))?;
    let rows = codec.decode(differing.keys().map(Row::bytes))?;
    let counts: Vec<(i64, i64)> = differing.into_values().collect();
    let open = forgive(&rows, &counts);
    let names: Vec<String> = rows.schema().fields().iter().map(|f| f.name().clone()).collect();
    let columns = rows.columns().iter().zip(&names);
    let columns: Vec<_> = columns
        .map(|(column, name)| {
            let values = ValueTexts::new(column.as_ref()).expect("every type of a table can be shown");
            (name, column, values)
        })
        .collect();
    let text = |row: usize| {
        columns
            .iter()
            .map(|(name, column, values)| match column.is_null(row) {
                true => format!("{name}=null"),
                false => format!("{name}={}", values.text(row)),
            })
            .collect::<Vec<_>>()
            .join(" ")
    };
    Ok(open
        .into_iter()
        .map(|row| Difference {
            table: table.to_string(),
            row: text(row),
            expected: counts[row].0,
            found: counts[row].1,
        })
        .collect())
}

/// The rows that differ by more than the last digits of a double: pairs of rows that are equal but for close doubles
/// are removed.
fn forgive(rows: &RecordBatch, counts: &[(i64, i64)]) -> Vec<usize> {
    let doubles: Vec<&Float64Array> = rows
        .columns()
        .iter()
        .filter_map(|c| c.as_primitive_opt::<Float64Type>())
        .collect();
    let exact: Vec<usize> = (0..rows.num_columns())
        .filter(|&c| rows.column(c).data_type() != &DataType::Float64)
        .collect();
    let keys = rows.project(&exact).expect("positions are of the batch");
    let keys = RowCodec::new(keys.schema()).and_then(|codec| codec.encode_rows(keys.columns(), rows.num_rows()));
    let keys = keys.expect("the rows were encoded before");
    let close = |a: usize, b: usize| {
        doubles.iter().all(|d| match (d.is_null(a), d.is_null(b)) {
            (false, false) => {
                let (x, y) = (d.value(a), d.value(b));
                x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= 1e-8 * x.abs().max(y.abs())
            }
            (one, other) => one == other,
        })
    };
    let mut open: Vec<usize> = Vec::new();
    for row in 0..rows.num_rows() {
        let surplus = counts[row].0 - counts[row].1;
        let twin = open.iter().position(|&other| {
            keys[other] == keys[row] && counts[other].0 - counts[other].1 == -surplus && close(other, row)
        });
        match twin {
            Some(twin) => drop(open.remove(twin)),
            None => open.push(row),
        }
    }
    open
}
