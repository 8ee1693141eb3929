//! The mistakes of a query, before they have a place in a file.

use std::path::Path;

use datafusion::common::{Column, DataFusionError, SchemaError};
use datafusion::sql::sqlparser::tokenizer::TokenWithSpan;

use super::diagnose::{diagnose, names_twice, refused, takes_a_value_for_another};
use super::error::{PlanError, Refusal};
use crate::definition::Diagnostic;

/// The mistakes of a query.
pub(super) enum Mistakes {
    /// It could not be planned.
    Plan(PlanError),
    /// Some columns have names that a table's columns cannot have.
    Columns(Vec<Refusal>),
}

impl From<PlanError> for Mistakes {
    fn from(error: PlanError) -> Self {
        Mistakes::Plan(error)
    }
}

impl From<Refusal> for Mistakes {
    fn from(refusal: Refusal) -> Self {
        Mistakes::Plan(refusal.into())
    }
}

impl Mistakes {
    /// Whether it failed because two columns have one name.
    pub fn are_of_one_name(&self) -> bool {
        matches!(self, Mistakes::Plan(error) if names_twice(error))
    }

    /// The column that could not be found, if that is the mistake.
    pub fn of_a_column(&self) -> Option<&Column> {
        let Mistakes::Plan(PlanError::DataFusion(error)) = self else {
            return None;
        };
        let mut error: &DataFusionError = error;
        loop {
            error = match error {
                DataFusionError::Diagnostic(_, inner) | DataFusionError::Context(_, inner) => inner,
                DataFusionError::SchemaError(inner, _) => match inner.as_ref() {
                    SchemaError::FieldNotFound { field, .. } => return Some(field),
                    _ => return None,
                },
                _ => return None,
            };
        }
    }

    /// Whether it failed because a subquery's value and another column have one name.
    pub fn are_of_a_value(&self) -> bool {
        matches!(self, Mistakes::Plan(error) if takes_a_value_for_another(error))
    }

    /// The diagnostics, with their places in a file.
    pub fn diagnose(self, file: &Path, tokens: &[TokenWithSpan]) -> Vec<Diagnostic> {
        match self {
            Mistakes::Plan(error) => diagnose(error, file, tokens),
            Mistakes::Columns(refusals) => refusals.into_iter().map(|r| refused(r, file, tokens)).collect(),
        }
    }
}
