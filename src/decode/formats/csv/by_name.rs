//! Finds fields of a header by name, without a scan of the header, which may have a hundred thousand fields, for each
//! name.

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use crate::decode::formats::csv::header::place;

/// An index of a header's fields by name.
pub(super) struct FieldsByName<'a> {
    width: usize,
    exact: HashMap<&'a str, usize>,
    /// By lower-case name, if case is ignored.
    folded: Option<HashMap<String, usize>>,
    /// For each field, whether an earlier one has the same name.
    is_repeated: Vec<bool>,
}

impl<'a> FieldsByName<'a> {
    /// For fields with these names; of fields with the same name the first counts.
    pub fn new(names: &'a [String], ignore_case: bool) -> Self {
        let mut exact = HashMap::with_capacity(names.len());
        let mut is_repeated = Vec::with_capacity(names.len());
        for (field, name) in names.iter().enumerate() {
            is_repeated.push(match exact.entry(name.as_str()) {
                Entry::Occupied(_) => true,
                Entry::Vacant(entry) => {
                    entry.insert(field);
                    false
                }
            });
        }
        let folded = ignore_case.then(|| {
            let mut folded = HashMap::with_capacity(names.len());
            for (field, name) in names.iter().enumerate() {
                folded.entry(name.to_lowercase()).or_insert(field);
            }
            folded
        });
        FieldsByName {
            width: names.len(),
            exact,
            folded,
            is_repeated,
        }
    }

    /// The field that the first matching of these names or numbers refers to.
    pub fn field(&self, from: &[String]) -> Option<usize> {
        from.iter().find_map(|from| {
            let exact = self.exact.get(from.as_str()).copied();
            exact
                .or_else(|| self.folded.as_ref()?.get(&from.to_lowercase()).copied())
                .or_else(|| place(from).filter(|place| *place < self.width))
        })
    }

    /// Whether an earlier field has the same name.
    pub fn is_repeated(&self, field: usize) -> bool {
        self.is_repeated[field]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_the_first_field_that_has_it_then_one_in_another_case_then_a_place() {
        let names = ["A", "b", "a", "b", "#1"].map(str::to_string);
        let exact = FieldsByName::new(&names, false);
        let loose = FieldsByName::new(&names, true);
        for (from, by_name, by_case) in [
            ("a", Some(2), Some(2)),
            ("b", Some(1), Some(1)),
            ("B", None, Some(1)),
            ("#1", Some(4), Some(4)),
            ("#2", Some(1), Some(1)),
            ("#6", None, None),
        ] {
            let from = [from.to_string()];
            assert_eq!((exact.field(&from), loose.field(&from)), (by_name, by_case), "{from:?}");
        }
        let repeated: Vec<bool> = (0..names.len()).map(|field| exact.is_repeated(field)).collect();
        assert_eq!(repeated, [false, false, false, true, false]);
    }
}
