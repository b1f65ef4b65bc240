use std::sync::Arc;
use std::time::Duration;

use kassa_bus::error::chain;
use kassa_bus::webhook::WarehouseSale;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::database::Database;
use super::load::{Loader, NotLoaded};

/// Requests that may share a transaction.
const GROUP: usize = 32;

/// While one waits for the disk, others load.
const LOADERS: usize = 4;

/// A group that takes longer is given up; its sales may be there all the same.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sales that come at the same time, loaded in one transaction and so with one fsync.
#[derive(Clone)]
pub(super) struct GroupCommit {
    loads: mpsc::Sender<Load>,
}

struct Load {
    sales: Vec<WarehouseSale>,
    done: oneshot::Sender<Result<(), NotLoaded>>,
}

impl GroupCommit {
    /// Starts the loaders. They end when the last clone is dropped and what was begun is done.
    pub fn start(database: Database) -> (Self, JoinSet<()>) {
        let (sender, receiver) = mpsc::channel(GROUP);
        let (database, loads) = (Arc::new(database), Arc::new(Mutex::new(receiver)));
        let loader = |_| run(Arc::clone(&database), Arc::clone(&loads));
        (Self { loads: sender }, (0..LOADERS).map(loader).collect())
    }

    /// Loads sales. Committed when it answers.
    pub async fn load(&self, sales: Vec<WarehouseSale>) -> Result<(), NotLoaded> {
        let (done, answer) = oneshot::channel();
        self.loads.send(Load { sales, done }).await.map_err(|_| NotLoaded::Away)?;
        answer.await.unwrap_or(Err(NotLoaded::Away))
    }
}

async fn run(database: Arc<Database>, loads: Arc<Mutex<mpsc::Receiver<Load>>>) {
    let mut connection = Connection { database, loader: None };
    loop {
        let mut group = Vec::new();
        if loads.lock().await.recv_many(&mut group, GROUP).await == 0 {
            return;
        }
        connection.load_group(group).await;
    }
}

/// A connection that is made when it is needed, and anew when it broke.
struct Connection {
    database: Arc<Database>,
    loader: Option<Loader>,
}

impl Connection {
    /// Loads a group in one transaction. If the database is there and does not take it, each request goes alone, so
    /// that only the one at fault is refused.
    async fn load_group(&mut self, group: Vec<Load>) {
        let outcome = self.load(&group).await;
        let is_there = self.loader.is_some();
        let mut outcomes = vec![outcome; group.len()];
        if outcomes[0].is_err() && is_there && group.len() > 1 {
            for (load, outcome) in group.iter().zip(&mut outcomes) {
                *outcome = self.load(std::slice::from_ref(load)).await;
            }
        }
        for (load, outcome) in group.into_iter().zip(outcomes) {
            if let (Err(NotLoaded::Refused(why)), Some(sale)) = (&outcome, load.sales.first()) {
                let (shop_id, sale_id, sales) = (&sale.shop_id, &sale.sale_id, load.sales.len());
                tracing::warn!(%shop_id, %sale_id, sales, why, "a delivery is refused: its sender has to set it aside");
            }
            // Whoever waited may have gone away.
            let _ = load.done.send(outcome);
        }
    }

    async fn load(&mut self, group: &[Load]) -> Result<(), NotLoaded> {
        let sales: Vec<_> = group.iter().flat_map(|load| &load.sales).collect();
        if self.loader.as_ref().is_none_or(Loader::is_closed) {
            self.loader = Some(self.connect().await?);
        }
        let Some(loader) = &mut self.loader else { return Err(NotLoaded::Away) };
        let outcome = match timeout(PATIENCE, loader.load(&sales)).await {
            Ok(outcome) => outcome.map_err(|error| NotLoaded::from(&error)),
            Err(_) => Err(NotLoaded::Away),
        };
        if outcome == Err(NotLoaded::Away) {
            tracing::warn!("the database went away in mid-load");
            self.loader = None;
        }
        outcome
    }

    async fn connect(&self) -> Result<Loader, NotLoaded> {
        let connected = timeout(PATIENCE, Loader::connect(&self.database)).await;
        let (why, said) = match connected {
            Ok(Ok(loader)) => return Ok(loader),
            Ok(Err(error)) => (NotLoaded::from(&error), chain(&error)),
            Err(_) => (NotLoaded::Away, "it does not answer".into()),
        };
        tracing::warn!(said, "the database cannot be used");
        Err(why)
    }
}
