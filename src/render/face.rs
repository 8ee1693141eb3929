//! The two faces of a node's rows, encoded and as columns. The node outputs one of them; one operator derives the
//! other when a reader first asks for it.

use std::cell::OnceCell;
use std::rc::Rc;

use arrow::datatypes::SchemaRef;
use differential_dataflow::AsCollection;
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::vec::Filter;

use super::Collections;
use super::columns::{self, ColumnBatches, decode, encode};
use crate::repr::{Epoch, Rows};

/// A node's rows, in the face in which the node outputs them.
#[derive(Clone)]
pub enum OutputRows<'s> {
    /// Encoded.
    Rows(Rows<'s>),
    /// As columns.
    Columns(ColumnBatches<'s>),
}

/// The output of a node or a table.
#[derive(Clone)]
pub struct NodeOutput<'s> {
    /// Shared by all outputs with the same rows.
    faces: Rc<Faces<'s>>,
    /// Error rows.
    pub errs: Rows<'s>,
}

/// Rows in one face, and in the other once a reader has asked for it.
struct Faces<'s> {
    schema: SchemaRef,
    name: String,
    /// Whether the node outputs columns.
    columnar: bool,
    rows: OnceCell<Rows<'s>>,
    columns: OnceCell<ColumnBatches<'s>>,
}

impl<'s> NodeOutput<'s> {
    /// The output of a node that outputs encoded rows.
    pub fn rows(collections: Collections<'s>, schema: &SchemaRef, name: &str) -> Self {
        NodeOutput::new(
            OnceCell::from(collections.oks),
            OnceCell::new(),
            collections.errs,
            schema,
            name,
        )
    }

    /// The output of a node that outputs columns.
    pub fn columns(columns: ColumnBatches<'s>, errs: Rows<'s>, schema: &SchemaRef, name: &str) -> Self {
        NodeOutput::new(OnceCell::new(), OnceCell::from(columns), errs, schema, name)
    }

    fn new(
        rows: OnceCell<Rows<'s>>,
        columns: OnceCell<ColumnBatches<'s>>,
        errs: Rows<'s>,
        schema: &SchemaRef,
        name: &str,
    ) -> Self {
        let faces = Rc::new(Faces {
            schema: schema.clone(),
            name: name.to_string(),
            columnar: columns.get().is_some(),
            rows,
            columns,
        });
        NodeOutput { faces, errs }
    }

    /// The same rows with other errors.
    pub fn with_errors(self, errs: Rows<'s>) -> Self {
        NodeOutput { errs, ..self }
    }

    /// Only the updates after an epoch.
    pub fn after(self, epoch: Epoch) -> Self {
        let Faces { schema, name, .. } = &*self.faces;
        let later = |rows: Rows<'s>| rows.inner.filter(move |(_, time, _)| *time > epoch).as_collection();
        let errs = later(self.errs.clone());
        match self.face() {
            OutputRows::Rows(rows) => NodeOutput::rows(Collections { oks: later(rows), errs }, schema, name),
            OutputRows::Columns(columns) => {
                NodeOutput::columns(columns::after(columns, epoch, name), errs, schema, name)
            }
        }
    }

    /// Adds these rows.
    pub fn with_rows(self, rows: Rows<'s>) -> Self {
        let Faces { schema, name, .. } = &*self.faces;
        let errs = self.errs.clone();
        match self.face() {
            OutputRows::Rows(own) => NodeOutput::rows(
                Collections {
                    oks: own.concat(rows),
                    errs,
                },
                schema,
                name,
            ),
            OutputRows::Columns(own) => {
                let rows = decode(rows, schema, &format!("{name}: stored"));
                NodeOutput::columns(own.concat(rows), errs, schema, name)
            }
        }
    }

    /// The rows encoded, and the errors.
    pub fn encoded(&self) -> Collections<'s> {
        let faces = &self.faces;
        let make = || {
            let columns = faces.columns.get().expect("there are rows in one face at least");
            encode(columns.clone(), &faces.schema, &faces.name)
        };
        Collections {
            oks: faces.rows.get_or_init(make).clone(),
            errs: self.errs.clone(),
        }
    }

    /// The rows as columns.
    pub fn decoded(&self) -> ColumnBatches<'s> {
        let faces = &self.faces;
        let make = || {
            let rows = faces.rows.get().expect("there are rows in one face at least");
            decode(rows.clone(), &faces.schema, &faces.name)
        };
        faces.columns.get_or_init(make).clone()
    }

    /// Whether the node outputs columns.
    pub fn is_columnar(&self) -> bool {
        self.faces.columnar
    }

    /// The rows in the face in which the node outputs them.
    pub fn face(&self) -> OutputRows<'s> {
        match self.is_columnar() {
            true => OutputRows::Columns(self.decoded()),
            false => OutputRows::Rows(self.encoded().oks),
        }
    }
}
