//! Whether databases fit a dataflow's feeds, for `check`: nothing is made or changed.

use std::time::Duration;

use super::catalog::{self, Misfit, Wanted};
use super::client::Client;
use super::trouble::Trouble;
use crate::definition::{Dataflow, FeedKind, Postgres};

/// Something that does not fit, and where.
#[derive(Clone, Debug)]
pub struct Misplaced {
    /// Index into `Dataflow::inputs`.
    pub input: usize,
    /// Index into `Input::feeds`.
    pub feed: usize,
    pub message: String,
    /// What to do; none: it could not be looked at.
    pub help: Option<String>,
    /// Whether the feed cannot be read.
    pub refuses: bool,
}

/// Asks each database. One that does not answer within `patience` is told of, and passed over.
pub fn check(dataflow: &Dataflow, patience: Duration) -> Vec<Misplaced> {
    let mut found = Vec::new();
    for (i, input) in dataflow.inputs.iter().enumerate() {
        for (f, feed) in input.feeds.iter().enumerate() {
            let FeedKind::Postgres(postgres) = &feed.kind else {
                continue;
            };
            let place = |message: String, help, refuses| Misplaced {
                input: i,
                feed: f,
                message,
                help,
                refuses,
            };
            match misfits(dataflow, (i, f), postgres, patience) {
                Ok(misfits) => found.extend(misfits.into_iter().map(|m| place(m.message, Some(m.help), m.refuses))),
                Err(trouble) => {
                    let refuses = !trouble.passes() && !matches!(trouble, Trouble::Ended(_));
                    let reason = match trouble {
                        Trouble::Ended(_) => "it does not answer in time".to_string(),
                        trouble => trouble.to_string(),
                    };
                    let message = format!("{} could not be asked: {reason}", postgres.url);
                    let help = refuses.then(|| "the user needs REPLICATION, and CONNECT to the database".to_string());
                    found.push(place(message, help, refuses));
                }
            }
        }
    }
    found
}

fn misfits(
    dataflow: &Dataflow,
    (input, feed): (usize, usize),
    postgres: &Postgres,
    patience: Duration,
) -> Result<Vec<Misfit>, Trouble> {
    let until = std::time::Instant::now() + patience;
    let mut tick = || match std::time::Instant::now() < until {
        true => Ok(()),
        false => Err(crate::source::outlet::Ended::Stopped),
    };
    let publication = postgres.publication(&dataflow.name);
    let wanted = Wanted {
        slot: postgres.slot(&dataflow.name),
        publications: vec![publication.clone()],
        tables: postgres.tables.clone(),
        oids: Vec::new(),
    };
    let mut client = Client::connect(&postgres.url, &mut tick)?;
    let catalog = catalog::survey(&mut client, &wanted, &mut tick)?;
    let input = &dataflow.inputs[input];
    let mut found = catalog.misfits(&postgres.url, &wanted);
    found.extend(catalog.misfits_of_feed(input, feed, postgres));
    found.extend(catalog.misfits_of_identity(&postgres.tables));
    found.extend(catalog.misfits_of_publication(&publication, &postgres.tables));
    found.extend(catalog.misfits_of_columns(input, feed, postgres));
    if !catalog.publications.contains_key(&publication) {
        let tables: Vec<String> = postgres
            .tables
            .iter()
            .filter_map(|name| catalog.table(name))
            .map(catalog::Table::quoted)
            .collect();
        found.push(Misfit {
            message: format!("publication {publication:?} does not exist yet; a run makes it where the user may"),
            help: catalog::create_publication(&publication, &tables),
            refuses: false,
        });
    }
    Ok(found)
}
