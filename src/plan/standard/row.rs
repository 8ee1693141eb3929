//! Functions that are computed row by row. The result of a row depends on that row only, and an error only
//! affects its own row.
//!
//! A null argument makes the result null.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BooleanBuilder, Float64Builder, Int64Builder, ListBuilder, StringBuilder,
};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Int64Type};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::words::sql_types;

/// The type of an argument or a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::plan) enum RowType {
    Text,
    /// BIGINT; an argument may be of any integer type.
    Whole,
    Double,
    Bytes,
    Yes,
    /// A list of texts.
    Texts,
}

impl RowType {
    fn data_type(self) -> DataType {
        match self {
            RowType::Text => DataType::Utf8,
            RowType::Whole => DataType::Int64,
            RowType::Double => DataType::Float64,
            RowType::Bytes => DataType::Binary,
            RowType::Yes => DataType::Boolean,
            RowType::Texts => DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))),
        }
    }

    /// Whether an argument of this Arrow type is accepted.
    fn takes(self, of: &DataType) -> bool {
        match self {
            _ if of.is_null() => true,
            RowType::Text => {
                !of.is_nested() && !matches!(of, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
            }
            RowType::Whole => of.is_integer(),
            RowType::Double => of.is_numeric(),
            RowType::Bytes => matches!(
                of,
                DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_)
            ),
            RowType::Yes => of == &DataType::Boolean,
            RowType::Texts => matches!(of, DataType::List(_)),
        }
    }
}

/// The value of an argument in a row.
pub(in crate::plan) enum RowArgument<'a> {
    Text(&'a str),
    Whole(i64),
    Double(f64),
    Bytes(&'a [u8]),
}

impl<'a> RowArgument<'a> {
    pub fn text(&self) -> &'a str {
        match self {
            RowArgument::Text(text) => text,
            _ => unreachable!("the function takes a text here"),
        }
    }

    pub fn whole(&self) -> i64 {
        match self {
            RowArgument::Whole(whole) => *whole,
            _ => unreachable!("the function takes a whole number here"),
        }
    }

    pub fn double(&self) -> f64 {
        match self {
            RowArgument::Double(double) => *double,
            _ => unreachable!("the function takes a double here"),
        }
    }

    pub fn bytes(&self) -> &'a [u8] {
        match self {
            RowArgument::Bytes(bytes) => bytes,
            _ => unreachable!("the function takes bytes here"),
        }
    }
}

/// The result of a row.
pub(in crate::plan) enum RowValue {
    Null,
    Text(String),
    Whole(i64),
    Double(f64),
    Bytes(Vec<u8>),
    Yes(bool),
    Texts(Vec<Option<String>>),
}

/// The result of a row, or the reason why there is none.
pub(in crate::plan) type RowResult = Result<RowValue, String>;

/// A function that is computed row by row.
#[derive(Debug)]
pub(in crate::plan) struct RowFunction {
    pub name: &'static str,
    pub aliases: Vec<String>,
    /// The lists of arguments that the function accepts.
    pub forms: &'static [&'static [RowType]],
    pub returns: RowType,
    pub compute: fn(&[RowArgument<'_>]) -> RowResult,
    signature: Signature,
}

impl RowFunction {
    pub fn new(
        name: &'static str,
        forms: &'static [&'static [RowType]],
        returns: RowType,
        compute: fn(&[RowArgument<'_>]) -> RowResult,
    ) -> RowFunction {
        RowFunction {
            name,
            aliases: vec![],
            forms,
            returns,
            compute,
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }

    pub fn also(mut self, aliases: &[&str]) -> RowFunction {
        self.aliases = aliases.iter().map(|name| name.to_string()).collect();
        self
    }

    pub fn udf(self) -> ScalarUDF {
        ScalarUDF::from(self)
    }
}

impl PartialEq for RowFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for RowFunction {}

impl Hash for RowFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for RowFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let fits =
            |form: &&&[RowType]| form.len() == types.len() && form.iter().zip(types).all(|(of, given)| of.takes(given));
        match self.forms.iter().find(fits) {
            Some(form) => Ok(form.iter().map(|of| of.data_type()).collect()),
            None => {
                let words = |types: Vec<String>| sql_types(&types.join(", "));
                let form = |form: &&[RowType]| words(form.iter().map(|of| of.data_type().to_string()).collect());
                let forms: Vec<String> = self
                    .forms
                    .iter()
                    .map(|f| format!("{}({})", self.name, form(f)))
                    .collect();
                let given = words(types.iter().map(ToString::to_string).collect());
                plan_err!("could not plan {}({given}): it is {}", self.name, forms.join(" or "))
            }
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.returns.data_type())
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(self.name, self.returns.data_type(), true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { args.number_rows };
        let columns: Vec<Column> = args.args.iter().map(Column::new).collect::<Result<_>>()?;
        let mut made = Builder::new(self.returns);
        let mut given = Vec::with_capacity(columns.len());
        for row in 0..rows {
            given.clear();
            given.extend(columns.iter().map_while(|column| column.get(row)));
            if given.len() < columns.len() {
                made.append(RowValue::Null);
                continue;
            }
            match (self.compute)(&given) {
                Ok(value) => made.append(value),
                Err(why) => return exec_err!("could not compute {}(): {why}", self.name),
            }
        }
        let made = made.finish();
        Ok(match is_constant {
            true => ColumnarValue::Scalar(datafusion::common::ScalarValue::try_from_array(&made, 0)?),
            false => ColumnarValue::Array(made),
        })
    }
}

/// An argument for all rows.
struct Column {
    values: ArrayRef,
    is_constant: bool,
}

impl Column {
    fn new(value: &ColumnarValue) -> Result<Column> {
        Ok(match value {
            ColumnarValue::Array(values) => Column {
                values: values.clone(),
                is_constant: false,
            },
            ColumnarValue::Scalar(value) => Column {
                values: value.to_array()?,
                is_constant: true,
            },
        })
    }

    fn get(&self, row: usize) -> Option<RowArgument<'_>> {
        let row = if self.is_constant { 0 } else { row };
        if self.values.is_null(row) {
            return None;
        }
        Some(match self.values.data_type() {
            DataType::Utf8 => RowArgument::Text(self.values.as_string::<i32>().value(row)),
            DataType::Int64 => RowArgument::Whole(self.values.as_primitive::<Int64Type>().value(row)),
            DataType::Float64 => RowArgument::Double(self.values.as_primitive::<Float64Type>().value(row)),
            DataType::Binary => RowArgument::Bytes(self.values.as_binary::<i32>().value(row)),
            _ => return None,
        })
    }
}

enum Builder {
    Text(StringBuilder),
    Whole(Int64Builder),
    Double(Float64Builder),
    Bytes(BinaryBuilder),
    Yes(BooleanBuilder),
    Texts(ListBuilder<StringBuilder>),
}

impl Builder {
    fn new(of: RowType) -> Builder {
        match of {
            RowType::Text => Builder::Text(StringBuilder::new()),
            RowType::Whole => Builder::Whole(Int64Builder::new()),
            RowType::Double => Builder::Double(Float64Builder::new()),
            RowType::Bytes => Builder::Bytes(BinaryBuilder::new()),
            RowType::Yes => Builder::Yes(BooleanBuilder::new()),
            RowType::Texts => Builder::Texts(ListBuilder::new(StringBuilder::new())),
        }
    }

    fn append(&mut self, value: RowValue) {
        match (self, value) {
            (Builder::Text(b), RowValue::Text(text)) => b.append_value(text),
            (Builder::Whole(b), RowValue::Whole(whole)) => b.append_value(whole),
            (Builder::Double(b), RowValue::Double(double)) => b.append_value(double + 0.0),
            (Builder::Bytes(b), RowValue::Bytes(bytes)) => b.append_value(bytes),
            (Builder::Yes(b), RowValue::Yes(yes)) => b.append_value(yes),
            (Builder::Texts(b), RowValue::Texts(texts)) => {
                texts.into_iter().for_each(|text| b.values().append_option(text));
                b.append(true);
            }
            (Builder::Text(b), _) => b.append_null(),
            (Builder::Whole(b), _) => b.append_null(),
            (Builder::Double(b), _) => b.append_null(),
            (Builder::Bytes(b), _) => b.append_null(),
            (Builder::Yes(b), _) => b.append_null(),
            (Builder::Texts(b), _) => b.append(false),
        }
    }

    fn finish(self) -> ArrayRef {
        match self {
            Builder::Text(mut b) => Arc::new(b.finish()),
            Builder::Whole(mut b) => Arc::new(b.finish()),
            Builder::Double(mut b) => Arc::new(b.finish()),
            Builder::Bytes(mut b) => Arc::new(b.finish()),
            Builder::Yes(mut b) => Arc::new(b.finish()),
            Builder::Texts(mut b) => Arc::new(b.finish()),
        }
    }
}
