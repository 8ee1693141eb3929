//! The two faces of a node's rows, encoded and as columns: it makes one, and the other is made from it by one operator,
//! once somebody asks for it.

use std::cell::OnceCell;
use std::rc::Rc;

use arrow::datatypes::SchemaRef;
use differential_dataflow::AsCollection;
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::vec::Filter;

use super::Collections;
use super::arrange::Rows;
use super::columns::{self, Batches, decode, encode};
use crate::repr::Epoch;

/// A node's rows, as it makes them.
#[derive(Clone)]
pub enum Face<'s> {
    /// Encoded.
    Rows(Rows<'s>),
    /// As columns.
    Columns(Batches<'s>),
}

/// What a node or a table makes.
#[derive(Clone)]
pub struct Made<'s> {
    /// Shared by whoever passes the same rows on.
    faces: Rc<Faces<'s>>,
    /// Error rows.
    pub errs: Rows<'s>,
}

/// Rows in one face, and in the other once it has been asked for.
struct Faces<'s> {
    schema: SchemaRef,
    name: String,
    /// In which face they were made.
    columnar: bool,
    rows: OnceCell<Rows<'s>>,
    columns: OnceCell<Batches<'s>>,
}

impl<'s> Made<'s> {
    /// What makes rows.
    pub fn rows(collections: Collections<'s>, schema: &SchemaRef, name: &str) -> Self {
        Made::new(
            OnceCell::from(collections.oks),
            OnceCell::new(),
            collections.errs,
            schema,
            name,
        )
    }

    /// What makes columns.
    pub fn columns(columns: Batches<'s>, errs: Rows<'s>, schema: &SchemaRef, name: &str) -> Self {
        Made::new(OnceCell::new(), OnceCell::from(columns), errs, schema, name)
    }

    fn new(
        rows: OnceCell<Rows<'s>>,
        columns: OnceCell<Batches<'s>>,
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
        Made { faces, errs }
    }

    /// The same rows, and these errors.
    pub fn with_errors(self, errs: Rows<'s>) -> Self {
        Made { errs, ..self }
    }

    /// What comes after an epoch.
    pub fn after(self, epoch: Epoch) -> Self {
        let Faces { schema, name, .. } = &*self.faces;
        let later = |rows: Rows<'s>| rows.inner.filter(move |(_, time, _)| *time > epoch).as_collection();
        let errs = later(self.errs.clone());
        match self.face() {
            Face::Rows(rows) => Made::rows(Collections { oks: later(rows), errs }, schema, name),
            Face::Columns(columns) => Made::columns(columns::after(columns, epoch, name), errs, schema, name),
        }
    }

    /// These rows as well.
    pub fn with_rows(self, rows: Rows<'s>) -> Self {
        let Faces { schema, name, .. } = &*self.faces;
        let errs = self.errs.clone();
        match self.face() {
            Face::Rows(own) => Made::rows(
                Collections {
                    oks: own.concat(rows),
                    errs,
                },
                schema,
                name,
            ),
            Face::Columns(own) => {
                let rows = decode(rows, schema, &format!("{name}: stored"));
                Made::columns(own.concat(rows), errs, schema, name)
            }
        }
    }

    /// Rows, encoded, and errors.
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

    /// Rows, as columns.
    pub fn decoded(&self) -> Batches<'s> {
        let faces = &self.faces;
        let make = || {
            let rows = faces.rows.get().expect("there are rows in one face at least");
            decode(rows.clone(), &faces.schema, &faces.name)
        };
        faces.columns.get_or_init(make).clone()
    }

    /// Whether they were made as columns.
    pub fn is_columnar(&self) -> bool {
        self.faces.columnar
    }

    /// Rows as they were made.
    pub fn face(&self) -> Face<'s> {
        match self.is_columnar() {
            true => Face::Columns(self.decoded()),
            false => Face::Rows(self.encoded().oks),
        }
    }
}
