//! Reads what a database's catalogs say about the tables, publications and slot of feeds, and checks whether they
//! fit.

use hashbrown::HashMap;

use super::client::{PostgresClient, TextRow, WaitCheck, literal, quoted};
use super::error::PostgresError;
use super::lsn::Lsn;
use super::types::{DerivedType, TYPES, Types};
use crate::definition::{FirstRows, Input, Postgres, PostgresUrl};

/// The first version whose publications may hold generated columns.
const GENERATED_SINCE: u32 = 180_000;

/// What to look up.
#[derive(Debug)]
pub struct CatalogRequest {
    pub slot: String,
    pub publications: Vec<String>,
    /// `schema.table`.
    pub tables: Vec<String>,
    /// OIDs of tables that may have been renamed.
    pub oids: Vec<u32>,
}

/// The result of the look-up.
#[derive(Debug)]
pub struct Catalog {
    pub system: String,
    pub database: String,
    /// The end of the write-ahead log.
    pub end: Lsn,
    pub wal_level: String,
    pub tables: Vec<CatalogTable>,
    /// For each publication, which of `insert, update, delete, truncate` it leaves out.
    pub publications: HashMap<String, Vec<&'static str>>,
    pub slot: Option<ReplicationSlot>,
}

/// A table.
#[derive(Debug)]
pub struct CatalogTable {
    pub oid: u32,
    pub schema: String,
    pub table: String,
    /// `pg_class.relkind`.
    pub kind: String,
    /// `pg_class.relreplident`.
    pub identity: String,
    pub readable: bool,
    /// Whether row security policies hide rows from the user.
    pub hides: bool,
    /// Whether the table has a replica identity; without one PostgreSQL refuses updates and deletes once it is
    /// published.
    pub has_identity: bool,
    pub columns: Vec<CatalogColumn>,
    /// None if none of the requested publications contains it.
    pub published: Option<PublishedTable>,
}

/// A column.
#[derive(Debug)]
pub struct CatalogColumn {
    pub name: String,
    pub generated: bool,
    /// Whether it belongs to the replica identity, so that updates and deletes contain its old value.
    pub identifies: bool,
}

/// How a publication publishes a table.
#[derive(Clone, Debug)]
pub struct PublishedTable {
    /// The published columns, in their order.
    pub columns: Vec<String>,
    /// The row filter; none: all rows.
    pub filter: Option<String>,
}

/// A replication slot.
#[derive(Debug)]
pub struct ReplicationSlot {
    pub plugin: String,
    pub database: String,
    /// The server never sends again what lies before this.
    pub confirmed: Option<Lsn>,
    /// Why it can no longer be read.
    pub lost: Option<String>,
}

impl CatalogTable {
    /// `schema.table`.
    pub fn name(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }

    /// Its name, quoted for SQL.
    pub fn quoted(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.table))
    }

    /// Whether a column belongs to the replica identity.
    fn identifies(&self, column: &str) -> bool {
        self.columns.iter().any(|own| own.name == column && own.identifies)
    }
}

/// Queries the whole catalog.
pub fn survey(
    client: &mut PostgresClient,
    wanted: &CatalogRequest,
    tick: WaitCheck<'_>,
) -> Result<Catalog, PostgresError> {
    let identified = one(client.query("IDENTIFY_SYSTEM", tick)?)?;
    let settings = one(client.query(
        "SELECT current_setting('wal_level'), current_setting('server_version_num'), current_database()",
        tick,
    )?)?;
    let version: u32 = text(&settings, 1).parse().unwrap_or(0);
    let publications = publications(client, wanted, tick)?;
    Ok(Catalog {
        system: text(&identified, 0).to_string(),
        end: lsn(&identified, 2).unwrap_or_default(),
        wal_level: text(&settings, 0).to_string(),
        database: text(&settings, 2).to_string(),
        tables: tables(client, wanted, version, tick)?,
        publications,
        slot: slot(client, &wanted.slot, tick)?,
    })
}

/// The types that columns may have besides PostgreSQL's built-in ones.
pub fn types(client: &mut PostgresClient, tick: WaitCheck<'_>) -> Result<Types, PostgresError> {
    let made = |row: TextRow| {
        let made = DerivedType {
            of: text(&row, 1).parse().ok()?,
            is_array: text(&row, 2) == "t",
            delimiter: *text(&row, 3).as_bytes().first()?,
        };
        Some((text(&row, 0).parse().ok()?, made))
    };
    let rows = client.query(TYPES, tick)?;
    Ok(Types(rows.into_iter().filter_map(made).collect()))
}

/// The end of the server's log.
pub fn end(client: &mut PostgresClient, tick: WaitCheck<'_>) -> Result<Lsn, PostgresError> {
    let row = one(client.query("IDENTIFY_SYSTEM", tick)?)?;
    lsn(&row, 2).ok_or_else(|| PostgresError::Wrong("the server does not say where its log ends".into()))
}

/// Which of these tables the publications contain.
pub fn published(
    client: &mut PostgresClient,
    publications: &[String],
    oids: &[u32],
    tick: WaitCheck<'_>,
) -> Result<Vec<u32>, PostgresError> {
    let oids: Vec<String> = oids.iter().map(u32::to_string).collect();
    let rows = client.query(
        &format!(
            "SELECT c.oid FROM pg_catalog.pg_publication_tables p \
             JOIN pg_catalog.pg_namespace n ON n.nspname = p.schemaname \
             JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename \
             WHERE p.pubname IN ({}) AND c.oid = ANY ('{{{}}}')",
            literals(publications),
            oids.join(",")
        ),
        tick,
    )?;
    Ok(rows.iter().filter_map(|row| text(row, 0).parse().ok()).collect())
}

fn one(rows: Vec<TextRow>) -> Result<TextRow, PostgresError> {
    let first = rows.into_iter().next();
    first.ok_or_else(|| PostgresError::Wrong("the server's answer has no row".into()))
}

fn text(row: &TextRow, at: usize) -> &str {
    row.get(at).and_then(Option::as_deref).unwrap_or_default()
}

fn lsn(row: &TextRow, at: usize) -> Option<Lsn> {
    text(row, at).parse().ok()
}

fn literals(texts: &[String]) -> String {
    let literals: Vec<String> = texts.iter().map(|text| literal(text)).collect();
    literals.join(", ")
}

fn tables(
    client: &mut PostgresClient,
    wanted: &CatalogRequest,
    version: u32,
    tick: WaitCheck<'_>,
) -> Result<Vec<CatalogTable>, PostgresError> {
    let names = wanted.tables.iter().filter_map(|name| name.split_once('.'));
    let mut wants: Vec<String> = names
        .map(|(schema, table)| format!("(n.nspname = {} AND c.relname = {})", literal(schema), literal(table)))
        .collect();
    wants.extend(wanted.oids.iter().map(|oid| format!("c.oid = {oid}")));
    let wants = wants.join(" OR ");
    let rows = client.query(
        &format!(
            "SELECT c.oid, n.nspname, c.relname, c.relkind, c.relreplident, has_table_privilege(c.oid, 'SELECT'), \
             row_security_active(c.oid), CASE c.relkind WHEN 'p' THEN NOT EXISTS (SELECT FROM pg_partition_tree(c.oid) p \
             JOIN pg_catalog.pg_class l ON l.oid = p.relid WHERE p.isleaf AND NOT {}) ELSE {} END \
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE {wants}",
            identified("l"),
            identified("c")
        ),
        tick,
    )?;
    let mut tables: Vec<CatalogTable> = rows
        .iter()
        .map(|row| CatalogTable {
            oid: text(row, 0).parse().unwrap_or(0),
            schema: text(row, 1).into(),
            table: text(row, 2).into(),
            kind: text(row, 3).into(),
            identity: text(row, 4).into(),
            readable: text(row, 5) == "t",
            hides: text(row, 6) == "t",
            has_identity: text(row, 7) == "t",
            columns: Vec::new(),
            published: None,
        })
        .collect();
    // The row is converted to JSON, because there a column that the server's version lacks is null and not an
    // error.
    let rows = client.query(
        &format!(
            "SELECT c.oid, a.attname, to_jsonb(a)->>'attgenerated', CASE c.relreplident WHEN 'f' THEN true \
             ELSE EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indimmediate AND a.attnum = ANY (i.indkey) \
             AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END) END \
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
             WHERE {wants} ORDER BY c.oid, a.attnum"
        ),
        tick,
    )?;
    for row in &rows {
        if let Some(table) = tables.iter_mut().find(|table| table.oid.to_string() == text(row, 0)) {
            table.columns.push(CatalogColumn {
                name: text(row, 1).into(),
                generated: !text(row, 2).is_empty(),
                identifies: text(row, 3) == "t",
            });
        }
    }
    let rows = client.query(
        &format!(
            "SELECT p.pubname, p.schemaname, p.tablename, to_jsonb(p)->>'attnames', to_jsonb(p)->>'rowfilter' \
             FROM pg_catalog.pg_publication_tables p WHERE p.pubname IN ({})",
            literals(&wanted.publications)
        ),
        tick,
    )?;
    for row in &rows {
        let entry = tables
            .iter_mut()
            .find(|t| t.schema == text(row, 1) && t.table == text(row, 2));
        let Some(table) = entry else { continue };
        let named: Option<Vec<String>> = serde_json::from_str(text(row, 3)).ok();
        let is_published = |column: &&CatalogColumn| {
            let named = named.as_ref().is_none_or(|named| named.contains(&column.name));
            named && (!column.generated || version >= GENERATED_SINCE)
        };
        let columns = table
            .columns
            .iter()
            .filter(is_published)
            .map(|column| column.name.clone());
        table.published = Some(PublishedTable {
            columns: columns.collect(),
            filter: row.get(4).cloned().flatten(),
        });
    }
    Ok(tables)
}

/// An SQL condition: whether a relation has a replica identity, so that its updates and deletes identify the row.
fn identified(relation: &str) -> String {
    format!(
        "({relation}.relreplident = 'f' OR EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = {relation}.oid \
         AND i.indimmediate AND CASE {relation}.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident \
         ELSE false END))"
    )
}

fn publications(
    client: &mut PostgresClient,
    wanted: &CatalogRequest,
    tick: WaitCheck<'_>,
) -> Result<HashMap<String, Vec<&'static str>>, PostgresError> {
    let rows = client.query(
        &format!(
            "SELECT pubname, pubinsert, pubupdate, pubdelete, pubtruncate FROM pg_catalog.pg_publication \
             WHERE pubname IN ({})",
            literals(&wanted.publications)
        ),
        tick,
    )?;
    let lacks = |row: &TextRow| {
        let operations = ["insert", "update", "delete", "truncate"].into_iter().enumerate();
        let lacks = operations.filter(|(at, _)| text(row, at + 1) != "t");
        lacks.map(|(_, operation)| operation).collect()
    };
    Ok(rows.iter().map(|row| (text(row, 0).to_string(), lacks(row))).collect())
}

fn slot(
    client: &mut PostgresClient,
    name: &str,
    tick: WaitCheck<'_>,
) -> Result<Option<ReplicationSlot>, PostgresError> {
    let rows = client.query(
        &format!(
            "SELECT s.plugin, s.database, s.confirmed_flush_lsn, to_jsonb(s)->>'wal_status', \
             to_jsonb(s)->>'invalidation_reason' FROM pg_catalog.pg_replication_slots s WHERE s.slot_name = {}",
            literal(name)
        ),
        tick,
    )?;
    Ok(rows.first().map(|row| {
        let reason = Some(text(row, 4)).filter(|reason| !reason.is_empty());
        let removed = (text(row, 3) == "lost").then_some("wal_removed");
        ReplicationSlot {
            plugin: text(row, 0).into(),
            database: text(row, 1).into(),
            confirmed: lsn(row, 2),
            lost: reason.or(removed).map(str::to_string),
        }
    }))
}

/// A way in which a database does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogMisfit {
    pub message: String,
    /// What to do.
    pub help: String,
    /// Whether it prevents the feed from being read; otherwise it may be intended.
    pub refuses: bool,
}

fn refuses(message: impl Into<String>, help: impl Into<String>) -> CatalogMisfit {
    CatalogMisfit {
        message: message.into(),
        help: help.into(),
        refuses: true,
    }
}

/// The SQL that creates a publication of tables.
pub fn create_publication(name: &str, tables: &[String]) -> String {
    let tables = tables.join(", ");
    format!(
        "CREATE PUBLICATION {} FOR TABLE {tables} WITH (publish_via_partition_root = true)",
        quoted(name)
    )
}

impl Catalog {
    /// The table with this name.
    pub fn table(&self, name: &str) -> Option<&CatalogTable> {
        self.tables.iter().find(|table| table.name() == name)
    }

    /// The misfits of the server and the slot.
    pub fn misfits(&self, url: &PostgresUrl, wanted: &CatalogRequest) -> Vec<CatalogMisfit> {
        let mut misfits = Vec::new();
        if self.wal_level != "logical" {
            misfits.push(refuses(
                format!("wal_level of {url} is {}", self.wal_level),
                "as a superuser: ALTER SYSTEM SET wal_level = logical; then restart the server",
            ));
        }
        if let Some(slot) = &self.slot
            && (slot.plugin != "pgoutput" || slot.database != self.database)
        {
            misfits.push(refuses(
                format!(
                    "slot {:?} is of plugin {:?} and database {:?}",
                    wanted.slot, slot.plugin, slot.database
                ),
                "give the feed another `slot`",
            ));
        }
        misfits
    }

    /// The misfits of a feed's tables, apart from their publication.
    pub fn misfits_of_feed(&self, input: &Input, feed: usize, postgres: &Postgres) -> Vec<CatalogMisfit> {
        let mut misfits = Vec::new();
        for name in &postgres.tables {
            let Some(table) = self.table(name) else {
                misfits.push(refuses(
                    format!("there is no table {name} in database {:?}", self.database),
                    "write schema and table as \\dt shows them; the user may lack USAGE of the schema",
                ));
                continue;
            };
            if !matches!(table.kind.as_str(), "r" | "p") {
                misfits.push(refuses(
                    format!("{name} is no table"),
                    "PostgreSQL replicates tables alone",
                ));
                continue;
            }
            if !table.readable && postgres.start == FirstRows::Snapshot {
                misfits.push(refuses(
                    format!("user {:?} may not read table {name}", postgres.url.user),
                    format!("GRANT SELECT ON {} TO {}", table.quoted(), quoted(&postgres.url.user)),
                ));
            }
            if table.hides && postgres.start == FirstRows::Snapshot {
                misfits.push(refuses(
                    format!(
                        "row-level security hides rows of table {name} from user {:?}",
                        postgres.url.user
                    ),
                    format!("as a superuser: ALTER ROLE {} BYPASSRLS", quoted(&postgres.url.user)),
                ));
            }
            let full = format!("ALTER TABLE {} REPLICA IDENTITY FULL", table.quoted());
            if !input.key.is_empty() {
                let lacking = unidentified(input, feed, &|column| match () {
                    () if !table.columns.iter().any(|own| own.name == column) => None,
                    () => Some(table.kind == "p" && table.identity == "d" || table.identifies(column)),
                });
                if let Some(column) = lacking {
                    misfits.push(refuses(
                        format!(
                            "updates and deletes of table {name} do not tell column {column:?}, which the key of input {} takes",
                            input.name
                        ),
                        full.clone(),
                    ));
                }
                for position in input.positions(&input.order_by) {
                    let from = &input.feeds[feed].columns[position].from;
                    let own = from
                        .iter()
                        .find(|from| table.columns.iter().any(|own| own.name == **from));
                    if let Some(column) = own.filter(|column| !table.identifies(column)) {
                        misfits.push(CatalogMisfit {
                            message: format!(
                                "deletes of table {name} do not tell column {column:?}, by which input {} orders: a delete loses \
                                 against the row",
                                input.name
                            ),
                            help: full.clone(),
                            refuses: false,
                        });
                    }
                }
            } else if table.identity != "f" {
                misfits.push(CatalogMisfit {
                    message: format!(
                        "input {} has no key, and updates and deletes of table {name} do not tell the row before: they would \
                         become dead letters",
                        input.name
                    ),
                    help: full,
                    refuses: false,
                });
            }
        }
        misfits
    }

    /// The misfits of tables that are not published yet and must not be: PostgreSQL would refuse everybody's updates.
    pub fn misfits_of_identity(&self, tables: &[String]) -> Vec<CatalogMisfit> {
        let known = tables.iter().filter_map(|table| self.table(table));
        let mute = known.filter(|table| table.published.is_none() && !table.has_identity);
        let misfit = |table: &CatalogTable| {
            let (what, help) = match table.kind.as_str() {
                "p" => (
                    "a partition of table",
                    "give each partition a primary key, or REPLICA IDENTITY FULL".into(),
                ),
                _ => (
                    "table",
                    format!(
                        "add a primary key, or ALTER TABLE {} REPLICA IDENTITY FULL",
                        table.quoted()
                    ),
                ),
            };
            refuses(
                format!(
                    "{what} {} has no primary key and no replica identity: once it is published, PostgreSQL refuses its updates and \
                     deletes",
                    table.name()
                ),
                help,
            )
        };
        mute.map(misfit).collect()
    }

    /// The misfits of an existing publication.
    pub fn misfits_of_publication(&self, name: &str, tables: &[String]) -> Vec<CatalogMisfit> {
        let Some(lacks) = self.publications.get(name) else {
            return Vec::new();
        };
        let known = tables.iter().filter_map(|table| self.table(table));
        let absent = known.filter(|table| table.published.is_none());
        let mut misfits: Vec<CatalogMisfit> = absent
            .map(|table| {
                refuses(
                    format!("publication {name:?} does not hold table {}", table.name()),
                    format!("ALTER PUBLICATION {} ADD TABLE {}", quoted(name), table.quoted()),
                )
            })
            .collect();
        if !lacks.is_empty() {
            misfits.push(CatalogMisfit {
                message: format!("publication {name:?} leaves out every {}", lacks.join(" and ")),
                help: format!(
                    "ALTER PUBLICATION {} SET (publish = 'insert, update, delete, truncate')",
                    quoted(name)
                ),
                refuses: false,
            });
        }
        misfits
    }

    /// The misfits of an input's columns that no published column fills.
    pub fn misfits_of_columns(&self, input: &Input, feed: usize, postgres: &Postgres) -> Vec<CatalogMisfit> {
        let mut misfits = Vec::new();
        for table in postgres.tables.iter().filter_map(|name| self.table(name)) {
            let is_published = |from: &String| {
                let (first, rest) = from
                    .split_once('.')
                    .map_or((from.as_str(), None), |(first, rest)| (first, Some(rest)));
                let beside = rest.is_some() && matches!(first, "source" | "transaction" | "envelope");
                let published = |name: &str| match &table.published {
                    Some(published) => published.columns.iter().any(|column| column == name),
                    None => table.columns.iter().any(|own| own.name == name && !own.generated),
                };
                beside || published(from)
            };
            let feed = &input.feeds[feed];
            for (column, theirs) in input
                .columns
                .iter()
                .zip(&feed.columns)
                .filter(|(_, c)| !c.from.iter().any(is_published))
            {
                let generated = table
                    .columns
                    .iter()
                    .any(|own| own.generated && theirs.from.contains(&own.name));
                let why = if generated {
                    "it is generated, which PostgreSQL does not publish (from version 18 on: publish_generated_columns = stored)"
                } else {
                    "no column of this name is published"
                };
                misfits.push(CatalogMisfit {
                    message: format!("table {} does not bring column {:?}: {why}", table.name(), column.name),
                    help: match input.key.contains(&column.name) {
                        true => "correct the column's `from`; a column of the key is never null".into(),
                        false => "correct the column's `from`, or make it nullable".into(),
                    },
                    refuses: !column.nullable,
                });
            }
        }
        misfits
    }
}

/// The source columns from which the input's key is taken; `has` tells whether a source column exists.
pub fn taken_by_key<'i>(input: &'i Input, feed: usize, has: &dyn Fn(&str) -> bool) -> Vec<&'i str> {
    let positions = input.positions(&input.key).into_iter();
    let taken = positions.filter_map(|position| {
        // The first one that exists is taken, either whole or by a path into it.
        let from = input.feeds[feed].columns[position].from.iter();
        let columns = from.map(|from| match has(from) {
            true => from.as_str(),
            false => from.split('.').next().unwrap_or(from),
        });
        columns.into_iter().find(|column| has(column))
    });
    taken.collect()
}

/// A source column that the input's key needs but that is not in the replica identity. `identifies` tells whether a
/// column is in it; none: the column does not exist.
pub fn unidentified<'i>(input: &'i Input, feed: usize, identifies: &dyn Fn(&str) -> Option<bool>) -> Option<&'i str> {
    let taken = taken_by_key(input, feed, &|column| identifies(column).is_some());
    taken.into_iter().find(|column| identifies(column) == Some(false))
}
