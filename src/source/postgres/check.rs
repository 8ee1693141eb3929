//! Checks for the command `check` whether a database fits a feed, without creating or changing anything.

use std::time::Duration;

use super::catalog::{self, CatalogMisfit, CatalogRequest};
use super::client::PostgresClient;
use super::error::PostgresError;
use crate::definition::{Dataflow, Postgres};
use crate::source::connector::FeedMisfit;

/// Queries the database of a feed. A database that does not answer within `patience` is reported.
pub(super) fn check(
    dataflow: &Dataflow,
    (input, feed): (usize, usize),
    postgres: &Postgres,
    patience: Duration,
) -> Vec<FeedMisfit> {
    let place = |message: String, help, refuses| FeedMisfit {
        input,
        feed,
        message,
        help,
        refuses,
    };
    match misfits(dataflow, (input, feed), postgres, patience) {
        Ok(misfits) => {
            let placed = misfits.into_iter().map(|m| place(m.message, Some(m.help), m.refuses));
            placed.collect()
        }
        Err(trouble) => {
            let refuses = !trouble.passes() && !matches!(trouble, PostgresError::Ended(_));
            let reason = match trouble {
                PostgresError::Ended(_) => "it does not answer in time".to_string(),
                trouble => trouble.to_string(),
            };
            let message = format!("{} could not be asked: {reason}", postgres.url);
            let help = refuses.then(|| "the user needs REPLICATION, and CONNECT to the database".to_string());
            vec![place(message, help, refuses)]
        }
    }
}

fn misfits(
    dataflow: &Dataflow,
    (input, feed): (usize, usize),
    postgres: &Postgres,
    patience: Duration,
) -> Result<Vec<CatalogMisfit>, PostgresError> {
    let until = std::time::Instant::now() + patience;
    let mut tick = || match std::time::Instant::now() < until {
        true => Ok(()),
        false => Err(crate::source::error::ReaderExit::Stopped),
    };
    let publication = postgres.publication(&dataflow.name);
    let wanted = CatalogRequest {
        slot: postgres.slot(&dataflow.name),
        publications: vec![publication.clone()],
        tables: postgres.tables.clone(),
        oids: Vec::new(),
    };
    let mut client = PostgresClient::connect(&postgres.url, &mut tick)?;
    let catalog = catalog::survey(&mut client, &wanted, &mut tick)?;
    let input = &dataflow.inputs[input];
    let mut misfits = catalog.misfits(&postgres.url, &wanted);
    misfits.extend(catalog.misfits_of_feed(input, feed, postgres));
    misfits.extend(catalog.misfits_of_identity(&postgres.tables));
    misfits.extend(catalog.misfits_of_publication(&publication, &postgres.tables));
    misfits.extend(catalog.misfits_of_columns(input, feed, postgres));
    if !catalog.publications.contains_key(&publication) {
        let tables: Vec<String> = postgres
            .tables
            .iter()
            .filter_map(|name| catalog.table(name))
            .map(catalog::CatalogTable::quoted)
            .collect();
        misfits.push(CatalogMisfit {
            message: format!("publication {publication:?} does not exist yet; a run makes it where the user may"),
            help: catalog::create_publication(&publication, &tables),
            refuses: false,
        });
    }
    Ok(misfits)
}
