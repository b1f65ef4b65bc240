//! Tables, keys and stages of one data folder.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use kassa_bus::attention::Attention;
use kassa_bus::local::Kept;
use kassa_bus::local::LocalBus;
use kassa_bus::registry::Registry;
use kassa_bus::shops_table::ShopsTable;
use kassa_bus::table::TableError;
use kassa_bus::{Clock, Documents};
use kassa_pipeline::attention::AttentionList;
use kassa_pipeline::event_store::{Appends, EventStore};
use kassa_pipeline::read_model::ReadModel;

use super::database::{self, DatabaseError};
use super::dead_letters::{LocalDeadLetters, LocalOffice};
use super::dynamodb::{Embedded, Sync, Tables};
use super::queues::LocalQueues;
use super::stream::{self, LocalStream, SHARD};
use crate::questions::Books;

/// The tables of one embedded shop, open.
#[derive(Clone)]
pub struct Store {
    pub client: Client,
    pub tables: Tables,
    pub events: EventStore,
    pub registry: Registry,
    pub read_model: ReadModel,
    /// Which sales were rejected and are not booked.
    pub attention: Attention,
    pub stream: LocalStream,
    /// Tables that were lost, and were made anew, empty.
    pub lost: Vec<String>,
    /// How far the projection had come was no place in the stream.
    pub is_astray: bool,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    File(#[from] DatabaseError),
    #[error("cannot open the shop's database")]
    Database(#[from] dynoxide::DynoxideError),
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Whose documents are kept.
fn owners() -> Vec<&'static str> {
    kassa_subscribers::all().iter().map(|entry| entry.name).chain([OUTBOX, MONITOR]).collect()
}

/// Appends that share one transaction and its fsync at most: what a transaction takes, less one for the
/// stream.
const GROUP: usize = 99;

/// Whose documents the outbox is.
pub const OUTBOX: &str = "outbox";

/// Whose documents metrics over time and the alarms' states are.
pub const MONITOR: &str = "monitor";

impl Store {
    /// Opens the database file, or one in memory if there is none, and makes what tables it lacks.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open(file: Option<&Path>, sync: Sync) -> Result<Self, StoreError> {
        let (tables, owners) = (Tables::local(), owners());
        let Some(file) = file else {
            let embedded = Embedded::open(None, sync, tables.clone())?;
            embedded.make_tables(&owners).await?;
            return Self::on(&embedded, tables, Vec::new()).await;
        };
        database::inspect(file, &tables.names(&owners))?;
        let opened = Self::open_file(file, sync, tables, &owners).await;
        // What fails here fails for want of a whole file: it is worth reading all of it to say so.
        opened.map_err(|error| match database::verify(file) {
            Err(damaged @ DatabaseError::Damaged { .. }) => damaged.into(),
            _ => error,
        })
    }

    async fn open_file(file: &Path, sync: Sync, tables: Tables, owners: &[&str]) -> Result<Self, StoreError> {
        database::make(file)?;
        let embedded = Embedded::open(Some(file), sync, tables.clone())?;
        let template = file.with_extension("new");
        // Whoever made it was killed.
        let _ = fs::remove_file(&template);
        let mut lost = Vec::new();
        if database::lacks(file, &tables.names(owners))? {
            let whole = Embedded::open(None, sync, tables.clone())?;
            whole.make_tables(owners).await?;
            whole.write_to(&template)?;
            let old = [&tables.events, &tables.shops, &tables.changes];
            let completed = database::complete(file, &template, &old, (&tables.events, &tables.changes));
            let _ = fs::remove_file(&template);
            lost = completed?;
        }
        for table in &lost {
            tracing::error!(
                table,
                "the table was missing and was made anew, empty; if it held anything, restore a backup"
            );
        }
        Self::on(&embedded, tables, lost).await
    }

    async fn on(embedded: &Embedded, tables: Tables, lost: Vec<String>) -> Result<Self, StoreError> {
        let client = embedded.client();
        let read_model = ReadModel::new(client.clone(), tables.shops.as_str());
        let stream = LocalStream::new(client.clone(), tables.clone(), embedded.recent());
        // Where the stream was lost, the projection has still come as far as it had.
        let taken = read_model.checkpoint(SHARD).await?.position().ok().flatten();
        let row = taken.as_ref().map(stream::row);
        let is_astray = row == Some(None);
        if is_astray {
            tracing::error!(
                "the projection has come to where the stream cannot be; stock and turnover are made anew"
            );
            read_model.forget_positions().await?;
        }
        embedded.goes_on_after(stream.last().await?.max(row.flatten().unwrap_or_default()));
        Ok(Self {
            events: EventStore::new(client.clone(), tables.events.as_str(), Appends::Grouped(GROUP)),
            registry: Registry::new(client.clone(), tables.shops.as_str()),
            read_model,
            attention: Attention::new(client.clone(), tables.shops.as_str()),
            stream,
            is_astray,
            lost,
            tables,
            client,
        })
    }

    /// Whether the rows are not what the events say, because a table was lost that they are made from or kept in.
    #[must_use]
    pub fn rows_are_lost(&self) -> bool {
        let lost = |table: &String| self.lost.contains(table);
        if self.is_astray {
            return true;
        }
        // Without events, rows are the last there is of what they said.
        !lost(&self.tables.events) && (lost(&self.tables.shops) || lost(&self.tables.changes))
    }

    /// The table of the registry and the read models.
    #[must_use]
    pub fn shops(&self) -> ShopsTable {
        ShopsTable::new(self.client.clone(), self.tables.shops.as_str())
    }

    /// Whoever keeps that list.
    #[must_use]
    pub fn attention_list(&self) -> AttentionList {
        AttentionList::new(self.events.clone(), self.attention.clone())
    }

    /// The documents of a subscriber, or of the outbox.
    #[must_use]
    pub fn documents(&self, owner: &str, clock: Clock) -> Documents {
        Documents::new(self.client.clone(), Tables::documents(owner), clock)
    }

    /// The dead letters, for whoever does something about them: send them back, if there is a bus that takes them.
    #[must_use]
    pub fn dead_letters(&self, bus: Option<Arc<LocalBus>>) -> LocalOffice {
        LocalOffice { client: self.client.clone(), table: self.tables.dead_letters.clone(), bus }
    }

    /// Queues and dead letters, for the bus.
    #[must_use]
    pub fn kept(&self, clock: &Clock) -> Kept {
        let (client, clock) = (self.client.clone(), clock.clone());
        Kept {
            queues: Arc::new(LocalQueues {
                client: client.clone(),
                table: self.tables.queues.clone(),
                clock: clock.clone(),
            }),
            dead_letters: Arc::new(LocalDeadLetters {
                client,
                table: self.tables.dead_letters.clone(),
                clock: clock.clone(),
            }),
            clock,
        }
    }

    #[must_use]
    pub fn books(&self) -> Books {
        let owners = kassa_subscribers::all().into_iter().map(|entry| entry.name).chain([OUTBOX]);
        Books {
            events: self.events.clone(),
            registry: self.registry.clone(),
            read_model: self.read_model.clone(),
            attention: self.attention.clone(),
            changes: Arc::new(self.stream.clone()),
            // The table has one connection, and would sort itself for each segment.
            segments: 1,
            documents: owners.map(|name| (name, self.documents(name, Clock::system()))).collect(),
            dead_letters: Arc::new(self.dead_letters(None)),
            clock: Clock::system(),
        }
    }
}
