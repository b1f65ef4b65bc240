use std::path::Path;
use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use kassa_pipeline::event_store::{Appends, EventStore};
use kassa_pipeline::read_model::ReadModel;
use kassa_pipeline::registry::Registry;
use kassa_pipeline::table::TableError;

use super::dynamodb::{Embedded, Sync, Tables};
use super::stream::LocalStream;
use crate::questions::Books;

/// The tables of one embedded shop, open.
#[derive(Clone)]
pub struct Store {
    pub client: Client,
    pub tables: Tables,
    pub events: EventStore,
    pub registry: Registry,
    pub read_model: ReadModel,
    pub stream: LocalStream,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot open the shop's database")]
    Database(#[from] dynoxide::DynoxideError),
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Appends that share one transaction and its fsync at most: what a transaction takes, less one for the
/// stream.
const GROUP: usize = 99;

impl Store {
    /// Opens the database file, or one in memory if there is none, and makes what tables it lacks.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open(file: Option<&Path>, sync: Sync) -> Result<Self, StoreError> {
        let tables = Tables::local();
        let embedded = Embedded::open(file, sync, tables.clone())?;
        let client = embedded.client();
        embedded.prepare(&client).await?;
        Ok(Self {
            events: EventStore::new(client.clone(), tables.events.as_str(), Appends::Grouped(GROUP)),
            registry: Registry::new(client.clone(), tables.shops.as_str()),
            read_model: ReadModel::new(client.clone(), tables.shops.as_str()),
            stream: LocalStream::new(client.clone(), tables.clone(), embedded.recent()),
            tables,
            client,
        })
    }

    #[must_use]
    pub fn books(&self) -> Books {
        Books {
            events: self.events.clone(),
            registry: self.registry.clone(),
            read_model: self.read_model.clone(),
            changes: Arc::new(self.stream.clone()),
            // The table has one connection, and would sort itself for each segment.
            segments: 1,
        }
    }
}
