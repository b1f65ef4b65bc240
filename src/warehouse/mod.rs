//! The warehouse's end of the webhook: takes deliveries, loads each sale into a star schema exactly once,
//! and answers after the commit.
//!
//! ```text
//!  POST /sales ─ signature ─┐
//!                           ├─ check ─ group commit ─ which are there? ─ COPY the others ─▶ fact_sale_line
//!  POST /sns ─── signature ─┘                                                               dim_*
//! ```
//!
//! Whatever comes twice, at once, or through two receivers is there once: the fact table's primary key refuses
//! a second copy, and the group that held it looks again which sales are there.
//!
//! Plain HTTP is served: the way here needs TLS in front, or a private network.

/// A request's body, of bounded size however it is compressed.
mod body;
/// What the database can hold.
mod check;
/// Rows as Postgres copies them.
mod copy;
/// Connecting.
mod database;
/// What only Postgres takes.
mod dialect;
/// Shops, items and days: the rows that facts point to.
mod dimensions;
/// Requests that share a transaction.
mod group_commit;
/// The transaction that loads sales.
mod load;
/// What is answered when a request is refused.
mod problem;
/// Migrations.
mod schema;
/// The secrets deliveries are signed with.
mod secrets;
/// HTTP.
mod server;
/// SNS's messages and signatures.
mod sns;
/// Certificates and confirmations.
mod subscription;

use std::future::Future;
use std::time::Duration;

use kassa_bus::Clock;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

pub use database::{Database, DatabaseError};
pub use secrets::{Secrets, SecretsError};
pub use sns::{InvalidTopic, Kind, NotOurs, SigningCertificate, SnsMessage, TopicArn};
pub use subscription::{Fetch, FetchError, Https, Subscriptions};

use group_commit::GroupCommit;
use server::Gate;

use crate::listener::{self, Limits, Places};

/// When asked to stop, requests in hand get this long. What they loaded is there, answered or not.
const CLOSING: Duration = Duration::from_secs(30);

/// Bytes of bodies at once, as they come and inflated: what one delivery may have four times, as an address has a quarter.
const BODY_BYTES: usize = 4 * (body::MAX_BODY + body::MAX_INFLATED);

/// A delivery may be large, and takes at most this long to come.
const BODY_TIME: Duration = Duration::from_secs(30);

/// A receiver, not yet open.
pub struct Receiver {
    pub database: Database,
    pub secrets: Secrets,
    pub subscriptions: Subscriptions,
    pub clock: Clock,
}

impl Receiver {
    /// Takes deliveries until `until` is over, and ends those that were begun. A database that is away is
    /// no reason to end.
    pub async fn serve(self, listener: TcpListener, until: impl Future<Output = ()> + Send) {
        let (warehouse, loaders) = GroupCommit::start(self.database);
        let places =
            Places::new(Limits { body_bytes: BODY_BYTES, body_time: BODY_TIME, ..Limits::default() });
        let gate = Gate {
            secrets: self.secrets,
            subscriptions: self.subscriptions,
            clock: self.clock,
            warehouse,
            places: places.clone(),
        };
        let (asked, stopping) = oneshot::channel();
        let until = async move {
            until.await;
            // Nobody waits if the listener failed.
            let _ = asked.send(());
        };
        let late = async {
            let _ = stopping.await;
            tokio::time::sleep(CLOSING).await;
        };
        tokio::select! {
            () = listener::serve(listener, None, gate.router(), places, until) => {}
            () = late => tracing::warn!("requests were left; whoever sent them sends them again"),
        }
        loaders.join_all().await;
    }
}
