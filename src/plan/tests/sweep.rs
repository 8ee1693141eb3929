//! Tests every scalar function of the session with extreme arguments.
//!
//! Each function is called with columns and literals of every combination of types that it accepts, along the
//! path that the graph uses: the call is coerced, wrapped, planned, and evaluated over a batch that is split
//! where it fails. No call may panic, take more memory than it may, run long, or return another type than the
//! plan expects; and the result of a row must not depend on the other rows of its batch.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, Int64Builder};
use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array,
    IntervalMonthDayNanoArray, ListBuilder, MapBuilder, NullArray, RecordBatch, StringArray, StringBuilder,
    StructArray, TimestampMicrosecondArray, UInt32Array,
};
use arrow::compute::{take, take_record_batch};
use arrow::datatypes::{DataType, Field, IntervalMonthDayNano, Schema};
use datafusion::common::{DFSchema, ScalarValue, ToDFSchema};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, ScalarUDF, Volatility};
use datafusion::logical_expr_common::signature::Arity;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_plan::PhysicalExpr;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::contain::contain;
use crate::plan::guard::wrap_functions;
use crate::plan::lower::physical;
use crate::plan::session;
use crate::render::expr::{KernelError, bisect, evaluated};
use crate::render::footprint_tests::peak_of;

/// The most bytes that one value may take in this test.
const MAX_VALUE: u64 = 1 << 20;

/// The most bytes that one batch may take: a value for each row, twice while it grows, and the arguments.
const MOST_MEMORY: i64 = 192 << 20;

/// Those of the extreme texts that look like code in a message.
const TEXTS_WITH_BRACES: [&str; 2] = ["(a{70}){70}", "{\"a\": [1, {\"b\": 1e400}], \"c\": null}"];

/// The longest that one call may take.
const MOST_TIME: Duration = Duration::from_secs(120);

/// The number of rows in one call.
const ROWS: usize = 32;

/// How many rows of a batch are also computed alone.
const ALONE: usize = 4;

/// Functions that are not tested, with the reason.
const LEFT_OUT: [(&str, &str); 1] = [("make_timestamp", "it takes six numbers, more than are tried together")];

/// Extreme values of every type, with nulls among them.
fn columns() -> Vec<(&'static str, ArrayRef)> {
    let long = "ab\u{e9}".repeat(2000);
    let texts = [
        None,
        Some(""),
        Some("a"),
        Some("\u{65e5}\u{672c}\u{1f600}"),
        Some("\0%_\\"),
        Some(TEXTS_WITH_BRACES[0]),
        Some("(a*)*b|["),
        Some("9999-12-31T23:59:59.999999999"),
        Some("-262144-01-01"),
        Some(TEXTS_WITH_BRACES[1]),
        Some("%Y %Q %"),
        Some("Int64"),
        Some("day"),
        Some("base64"),
        Some("$1$1$0"),
        Some(long.as_str()),
    ];
    let whole = [
        None,
        Some(0),
        Some(1),
        Some(-1),
        Some(i64::MIN),
        Some(i64::MAX),
        Some(1 << 30),
        Some(1 << 31),
    ];
    let ten = 10i128.pow(38) - 1;
    let decimals = |precision, scale, most: i128| {
        let values = [
            None,
            Some(0),
            Some(1),
            Some(-1),
            Some(most),
            Some(-most),
            Some(5 * 10i128.pow(9)),
        ];
        Arc::new(
            Decimal128Array::from(values.to_vec())
                .with_precision_and_scale(precision, scale)
                .unwrap(),
        ) as ArrayRef
    };
    let interval = IntervalMonthDayNano::new;
    let intervals = [
        None,
        Some(interval(0, 0, 0)),
        Some(interval(0, 0, 1)),
        Some(interval(1, -31, 0)),
        Some(interval(0, 1, 0)),
        Some(interval(i32::MAX, i32::MAX, i64::MAX)),
        Some(interval(i32::MIN, i32::MIN, i64::MIN)),
    ];
    let mut lists = ListBuilder::new(Int64Builder::new());
    lists.append(false);
    lists.append(true);
    for list in [
        vec![None],
        vec![Some(i64::MIN), Some(i64::MAX), None, Some(0)],
        vec![Some(7); 300],
    ] {
        lists.values().extend(list);
        lists.append(true);
    }
    let mut words = ListBuilder::new(StringBuilder::new());
    words.append(false);
    words.append(true);
    for list in [
        vec![None, Some("")],
        vec![Some("a"), Some("\u{1f600}"), Some(long.as_str())],
    ] {
        list.into_iter().for_each(|word| words.values().append_option(word));
        words.append(true);
    }
    let mut nested = ListBuilder::new(ListBuilder::new(Int64Builder::new()));
    nested.append(false);
    nested.append(true);
    nested.values().append(false);
    nested.values().append(true);
    nested.values().values().append_value(1);
    nested.values().append(true);
    nested.append(true);
    let mut maps = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
    maps.append(false).unwrap();
    maps.append(true).unwrap();
    maps.keys().append_value("a");
    maps.values().append_null();
    maps.append(true).unwrap();
    let field = |name: &str, of| Arc::new(Field::new(name, of, true));
    let structs = StructArray::from(vec![
        (
            field("a", DataType::Int64),
            Arc::new(Int64Array::from(vec![None, Some(i64::MIN)])) as ArrayRef,
        ),
        (
            field("b", DataType::Utf8),
            Arc::new(StringArray::from(vec![Some(""), None])) as ArrayRef,
        ),
    ]);
    let day = |days: i32| Some(days);
    vec![
        ("text", Arc::new(StringArray::from(texts.to_vec()))),
        ("whole", Arc::new(Int64Array::from(whole.to_vec()))),
        (
            "double",
            Arc::new(Float64Array::from(vec![
                None,
                Some(0.0),
                Some(-0.0),
                Some(1.5),
                Some(f64::NAN),
                Some(f64::INFINITY),
                Some(f64::NEG_INFINITY),
                Some(f64::MAX),
                Some(f64::MIN_POSITIVE),
            ])),
        ),
        (
            "moment",
            Arc::new(TimestampMicrosecondArray::from(vec![
                None,
                Some(0),
                Some(-1),
                Some(i64::MIN),
                Some(i64::MAX),
                Some(253_402_300_799_999_999),
            ])),
        ),
        (
            "date",
            Arc::new(Date32Array::from(vec![
                None,
                day(0),
                day(-1),
                day(i32::MIN),
                day(i32::MAX),
                day(2_932_896),
            ])),
        ),
        (
            "interval",
            Arc::new(IntervalMonthDayNanoArray::from(intervals.to_vec())),
        ),
        ("decimal", decimals(38, 10, ten)),
        ("small", decimals(12, 2, 999_999_999_999)),
        ("list", Arc::new(lists.finish())),
        ("words", Arc::new(words.finish())),
        ("nested", Arc::new(nested.finish())),
        (
            "bytes",
            Arc::new(BinaryArray::from_opt_vec(vec![
                None,
                Some(b""),
                Some(b"\xff\xfe\x00"),
                Some(b"YQ=="),
            ])),
        ),
        ("yes", Arc::new(BooleanArray::from(vec![None, Some(true), Some(false)]))),
        ("map", Arc::new(maps.finish())),
        ("struct", Arc::new(structs)),
        ("null", Arc::new(NullArray::new(2))),
    ]
}

/// The types of arguments that are tried: all combinations of one and two types; for three and four, the later
/// ones are of a few types only.
fn tuples(types: usize) -> Vec<Vec<usize>> {
    const TEXT: usize = 0;
    const WHOLE: usize = 1;
    const MOMENT: usize = 3;
    const INTERVAL: usize = 5;
    const LIST: usize = 8;
    let mut tuples = vec![vec![]];
    for a in 0..types {
        tuples.push(vec![a]);
        for b in 0..types {
            tuples.push(vec![a, b]);
        }
        for b in [TEXT, WHOLE, MOMENT, LIST, a] {
            for c in [TEXT, WHOLE, INTERVAL, a] {
                tuples.push(vec![a, b, c]);
            }
        }
        for b in [TEXT, WHOLE] {
            for c in [TEXT, WHOLE] {
                tuples.push(vec![a, b, c, TEXT]);
                tuples.push(vec![a, b, c, WHOLE]);
            }
        }
    }
    tuples.sort();
    tuples.dedup();
    tuples
}

/// The first fault of each function.
#[derive(Default)]
struct Faults(BTreeMap<String, String>);

impl Faults {
    fn add(&mut self, function: &str, what: String) {
        self.0.entry(function.to_string()).or_insert(what);
    }
}

struct Sweep {
    schema: Schema,
    named: DFSchema,
    columns: Vec<(&'static str, ArrayRef)>,
    simplifier: ExprSimplifier,
    random: StdRng,
    calls: usize,
    faults: Faults,
}

impl Sweep {
    fn new() -> Sweep {
        let columns = columns();
        let fields = columns
            .iter()
            .map(|(name, column)| Field::new(*name, column.data_type().clone(), true));
        let schema = Schema::new(fields.collect::<Vec<_>>());
        let named = schema.clone().to_dfschema().unwrap();
        let info = SimplifyContext::builder().with_schema(Arc::new(named.clone())).build();
        Sweep {
            schema,
            named,
            columns,
            simplifier: ExprSimplifier::new(info),
            random: StdRng::seed_from_u64(14),
            calls: 0,
            faults: Faults::default(),
        }
    }

    fn call(&self, function: &Arc<ScalarUDF>, args: Vec<Expr>) -> Option<Expr> {
        let call = Expr::ScalarFunction(ScalarFunction::new_udf(function.clone(), args));
        contain(|| self.simplifier.coerce(call, &self.named)).ok()?.ok()
    }

    fn plan(&self, call: Expr) -> Option<Arc<dyn PhysicalExpr>> {
        let call = wrap_functions(call, &self.named, MAX_VALUE).ok()?;
        let call = self.simplifier.simplify(call).ok()?;
        physical(&call, &self.named, &self.schema).ok()
    }

    /// Rows with a random choice of values of each type.
    fn rows(&mut self, rows: usize) -> RecordBatch {
        let columns: Vec<ArrayRef> = (0..self.columns.len())
            .map(|column| {
                let values = &self.columns[column].1;
                let picked: UInt32Array = (0..rows)
                    .map(|_| Some(self.random.random_range(0..values.len()) as u32))
                    .collect();
                take(values, &picked, None).unwrap()
            })
            .collect();
        RecordBatch::try_new(Arc::new(self.schema.clone()), columns).unwrap()
    }

    /// Tests an expression that is not a call.
    fn try_expr(&mut self, expr: Expr) {
        let Ok(Ok(expr)) = contain(|| self.simplifier.coerce(expr, &self.named)) else {
            return;
        };
        let Ok(Some(planned)) = contain(|| self.plan(expr.clone())) else {
            return;
        };
        self.calls += 1;
        let text = expr.to_string();
        for _ in 0..4 {
            let batch = self.rows(ROWS);
            self.evaluate(&text, &text, &planned, &batch);
        }
    }

    /// Tests a function with arguments of these types.
    fn try_types(&mut self, function: &Arc<ScalarUDF>, types: &[usize]) {
        let args = types
            .iter()
            .map(|t| datafusion::prelude::ident(self.columns[*t].0))
            .collect();
        let Some(call) = self.call(function, args) else { return };
        self.calls += 1;
        let text = call.to_string();
        let rows = if types.is_empty() { 1 } else { ROWS };
        let batch = self.rows(rows);
        let planned = contain(|| self.plan(call.clone()));
        match planned {
            Ok(Some(expr)) => self.evaluate_call(function.name(), &text, &expr, &batch),
            Ok(None) => {}
            Err(panic) => self
                .faults
                .add(function.name(), format!("{text} panics when it is planned: {panic}")),
        }
        // Also tries constants beside a column, which a kernel may handle once for all rows.
        for (column, row) in (0..types.len()).flat_map(|column| [(column, 0), (column, 1)]) {
            if types.len() < 2 {
                continue;
            }
            let arg = |(n, t): (usize, &usize)| match n == column {
                true => datafusion::prelude::ident(self.columns[*t].0),
                false => Expr::Literal(ScalarValue::try_from_array(batch.column(*t), row).unwrap(), None),
            };
            let Some(call) = self.call(function, types.iter().enumerate().map(arg).collect()) else {
                continue;
            };
            if let Ok(Some(expr)) = contain(|| self.plan(call.clone())) {
                self.evaluate_call(function.name(), &call.to_string(), &expr, &batch);
            }
        }
        // Also tries only constants, which are computed when the query is planned.
        for row in 0..2.min(rows) {
            let literal = |t: &usize| Expr::Literal(ScalarValue::try_from_array(batch.column(*t), row).unwrap(), None);
            let Some(call) = self.call(function, types.iter().map(literal).collect()) else {
                continue;
            };
            let (planned, peak) = peak_of(|| contain(|| self.plan(call.clone())));
            match planned {
                Ok(Some(expr)) => self.evaluate_call(function.name(), &call.to_string(), &expr, &batch.slice(0, 1)),
                Ok(None) => {}
                Err(panic) => self
                    .faults
                    .add(function.name(), format!("{call} panics when it is planned: {panic}")),
            }
            if peak > MOST_MEMORY {
                self.faults
                    .add(function.name(), format!("{call} takes {peak} bytes when it is planned"));
            }
        }
    }

    fn evaluate_call(&mut self, function: &str, text: &str, expr: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) {
        for error in self.evaluate(function, text, expr, batch) {
            // Panics outside of a function are only caught by the evaluation.
            if let KernelError::Panic(panic) = error {
                self.faults
                    .add(function, format!("{text} panics beside its function: {panic}"));
            }
        }
    }

    /// Evaluates an expression over each row, and returns its errors.
    fn evaluate(
        &mut self,
        function: &str,
        text: &str,
        expr: &Arc<dyn PhysicalExpr>,
        batch: &RecordBatch,
    ) -> Vec<KernelError> {
        let promised = expr.data_type(batch.schema_ref()).unwrap();
        let started = Instant::now();
        let mut wrong = None;
        let mut run = |part: &RecordBatch, _: usize| -> Result<(), KernelError> {
            let (values, peak) = peak_of(|| evaluated(expr, part));
            if peak > MOST_MEMORY {
                wrong.get_or_insert(format!("{text} takes {peak} bytes"));
            }
            let values = values?;
            if values.data_type() != &promised {
                wrong.get_or_insert(format!(
                    "{text} returns a {}, and promised a {promised}",
                    values.data_type()
                ));
            }
            if let Some(shown) = values
                .as_string_opt::<i32>()
                .and_then(|texts| texts.iter().flatten().find(|text| text.contains("ERROR")))
            {
                wrong.get_or_insert(format!("{text} yields {shown}"));
            }
            if values.len() != part.num_rows() {
                wrong.get_or_insert(format!("{text} returns {} rows of {}", values.len(), part.num_rows()));
                return Ok(());
            }
            // A row that is retracted later may be evaluated alone or among other rows, so both must agree.
            let looked_at = if part.num_rows() > 1 {
                0..part.num_rows().min(ALONE)
            } else {
                0..0
            };
            for row in looked_at {
                let among = values.slice(row, 1);
                let alone = take_record_batch(part, &UInt32Array::from(vec![row as u32])).unwrap();
                match evaluated(expr, &alone) {
                    Ok(alone) if alone.to_data() == among.to_data() => {}
                    alone => {
                        wrong.get_or_insert(format!(
                            "{text} yields {among:?} for a row among others, alone {alone:?}"
                        ));
                    }
                }
            }
            Ok(())
        };
        let mut failed = vec![];
        bisect(batch, 0, &mut run, &mut failed);
        if started.elapsed() > MOST_TIME {
            wrong.get_or_insert(format!("{text} takes {:?}", started.elapsed()));
        }
        let errors: Vec<KernelError> = failed.into_iter().map(|(_, error)| error).collect();
        if let Some(message) = errors
            .iter()
            .map(KernelError::reason)
            .find(|message| tells_of_code(message))
        {
            wrong.get_or_insert(format!("{text} tells: {message}"));
        }
        if let Some(wrong) = wrong {
            self.faults.add(function, wrong);
        }
        errors
    }
}

/// Whether a user's message exposes internals of the code; values that it quotes do not count.
fn tells_of_code(message: &str) -> bool {
    let quoted = TEXTS_WITH_BRACES
        .iter()
        .flat_map(|text| [text.to_string(), format!("{text:?}")]);
    let message = quoted.fold(message.to_string(), |message, text| message.replace(&text, ""));
    ["::", "Some(", "{", "ERROR:", "Error:", "error: "]
        .iter()
        .any(|sign| message.contains(sign))
}

/// Waits for the sweep, whose thread reports each call that it tries; returns how many there were.
fn watch(progress: &Receiver<String>) -> usize {
    let (mut last, mut tried) = (String::from("nothing"), 0);
    loop {
        match progress.recv_timeout(MOST_TIME) {
            Ok(now) => {
                tried += 1;
                last = now;
            }
            Err(RecvTimeoutError::Disconnected) => return tried,
            Err(RecvTimeoutError::Timeout) => panic!("{last} does not end"),
        }
    }
}

#[test]
fn no_function_panics_takes_too_much_hangs_or_returns_another_type() {
    let context = session::planning_context(MAX_VALUE);
    let functions: BTreeMap<String, Arc<ScalarUDF>> = context.state().scalar_functions().clone().into_iter().collect();
    assert!(functions.len() > 150, "{} functions are registered", functions.len());
    // Each function is tried once, not again under its aliases.
    let functions = functions.into_iter().filter(|(name, function)| name == function.name());
    let functions: Vec<Arc<ScalarUDF>> = functions.map(|(_, function)| function).collect();
    let (say, progress) = channel();
    let sweep = std::thread::Builder::new()
        .stack_size(crate::deep::STACK)
        .spawn(move || {
            let mut sweep = Sweep::new();
            let mut untried = vec![];
            for function in &functions {
                // Inspection (`look`) refuses volatile functions.
                if function.signature().volatility == Volatility::Volatile
                    || LEFT_OUT.iter().any(|(name, _)| *name == function.name())
                {
                    continue;
                }
                let before = sweep.calls;
                let most = match function.signature().type_signature.arity() {
                    Arity::Fixed(most) => most,
                    Arity::Variable => usize::MAX,
                };
                for types in tuples(sweep.columns.len())
                    .into_iter()
                    .filter(|types| types.len() <= most)
                {
                    let names: Vec<&str> = types.iter().map(|t| sweep.columns[*t].0).collect();
                    say.send(format!("{}({})", function.name(), names.join(", "))).unwrap();
                    sweep.try_types(function, &types);
                }
                if sweep.calls == before {
                    untried.push(function.name().to_string());
                }
            }
            (sweep.faults, sweep.calls, untried)
        })
        .unwrap();
    watch(&progress);
    let (faults, calls, untried) = sweep.join().unwrap();
    let mut text = String::new();
    for (function, fault) in &faults.0 {
        writeln!(text, "{function}: {}", fault.chars().take(400).collect::<String>()).unwrap();
    }
    assert!(
        faults.0.is_empty(),
        "{} functions are at fault:\n{text}",
        faults.0.len()
    );
    assert_eq!(untried, Vec::<String>::new(), "no arguments were found for these");
    assert!(calls > 3000, "{calls} calls were tried");
}

#[test]
fn casts_and_operations_over_extreme_values_tell_nothing_of_the_code() {
    // Formerly a dead letter of CAST(at AS TIME) named `arrow_array::types::TimestampMicrosecondType`.
    const TYPES: [&str; 19] = [
        "BOOLEAN",
        "TINYINT",
        "SMALLINT",
        "INT",
        "BIGINT",
        "INT UNSIGNED",
        "BIGINT UNSIGNED",
        "FLOAT",
        "DOUBLE",
        "DECIMAL(5,2)",
        "DECIMAL(38,10)",
        "VARCHAR",
        "BYTEA",
        "DATE",
        "TIME",
        "TIMESTAMP",
        "TIMESTAMP(0)",
        "TIMESTAMPTZ",
        "INTERVAL",
    ];
    crate::deep::deep(|| {
        let context = session::planning_context(MAX_VALUE);
        let mut sweep = Sweep::new();
        let names: Vec<&str> = sweep.columns.iter().map(|(name, _)| *name).collect();
        let casts = names
            .iter()
            .flat_map(|name| TYPES.map(|to| format!("CAST(\"{name}\" AS {to})")));
        let operations = names.iter().flat_map(|left| {
            names.iter().flat_map(move |right| {
                ["+", "-", "*", "/", "%", "||", "<", "="].map(|sign| format!("\"{left}\" {sign} \"{right}\""))
            })
        });
        let through = TYPES.map(|to| format!("CAST(CAST(\"moment\" AS BIGINT) AS {to})"));
        let mut planned = 0;
        for sql in casts.chain(operations).chain(through) {
            if let Ok(expr) = context.parse_sql_expr(&sql, &sweep.named) {
                sweep.try_expr(expr);
                planned += 1;
            }
        }
        let faults: Vec<String> = sweep.faults.0.into_values().collect();
        assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
        assert!(
            planned > 500 && sweep.calls > 300,
            "{planned} were planned, {} tried",
            sweep.calls
        );
    });
}
