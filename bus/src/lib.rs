//! What travels between Kassa's rooms, and how.
//!
//! Every other crate depends on this one and on none of its siblings: a message that two rooms
//! share is declared here once, and neither room knows who sends or takes it.
//!
//! The feature `aws` adds the adapters for KMS, SNS and Secrets Manager, and the Lambda runner.

#![warn(clippy::print_stdout, clippy::print_stderr)]

/// Exact decimals: quantities and money.
pub mod amount;
/// What needs attention of a shop's sales.
pub mod attention;
/// The day a sale is booked on.
pub mod business_date;
/// A bounded cache whose entries expire.
pub mod cache;
/// Where a request comes from, and how much of that is kept.
pub mod client;
/// Time, given from outside.
pub mod clock;
/// What every subscriber must bear.
pub mod conformance;
/// A subscriber's own table.
pub mod documents;
/// What went wrong, with what caused it.
pub mod error;
/// `Host`: what a subscriber may ask of the place it runs in.
pub mod host;
/// Identifiers that are right by construction: shop, sale, item, key.
pub mod ids;
/// JSON objects, and nothing else in their place.
pub mod json;
/// Compact JWE: what a sealed envelope is.
pub mod jwe;
/// Compact JWS: what a signed sale is, inside its envelope.
pub mod jws;
/// The keys port, public keys as JWK, and the cache of till sessions.
pub mod keys;
/// The keys in KMS.
#[cfg(feature = "aws")]
pub mod kms;
/// A Lambda function around a subscriber.
#[cfg(feature = "aws")]
pub mod lambda;
/// How large things may be.
pub mod limits;
/// The in-process bus: queues, retries and dead letters on one machine.
pub mod local;
/// The published contract: one type per topic, and the envelope around it.
pub mod message;
/// What is counted.
pub mod metrics;
/// `Notifier`: the way to people.
pub mod notify;
/// When a shop is open.
pub mod opening_hours;
/// `Publisher`: how a stage tells the others.
pub mod publish;
/// When a manager is not to be disturbed.
pub mod quiet_hours;
/// Which shops there are.
pub mod registry;
/// How long a server asks to be left alone.
pub mod retry_after;
/// What a till sold: lines and totals.
pub mod sale;
/// `Secrets`: what is shared with others.
pub mod secrets;
/// What a function or a shop is told at its start.
pub mod settings;
/// A bounded whole of which nobody gets more than a share.
pub mod shares;
/// The table of the registry and the read models.
pub mod shops_table;
/// Topics on SNS.
#[cfg(feature = "aws")]
pub mod sns;
/// `Subscriber`: how a stage takes a batch, and what it may answer.
pub mod subscriber;
/// What goes wrong with a table, and what to do about it.
pub mod table;
/// What may be logged.
pub mod telemetry;
/// Texts of bounded length.
pub mod text;
/// Which tills may sign for a shop.
pub mod tills;
/// One trace per sale, from till to read model.
pub mod trace;
/// `Wakes`: a message to oneself, after some time.
pub mod wake;
/// What travels to the warehouse, and how it is signed.
pub mod webhook;

pub use client::{ClientAddress, Network};
pub use clock::Clock;
pub use documents::Documents;
pub use host::Host;
pub use ids::{ItemNo, SaleId, ShopId, Thumbprint, TillId};
pub use message::{Contract, Message, Topic};
pub use metrics::{Dimension, Metric, Metrics};
pub use publish::{PublishError, Publisher};
pub use sale::{Line, Totals};
pub use settings::{SettingError, Settings};
pub use subscriber::{Entry, Failure, Intake, Refusal, Retry, Source, Subscriber, Subscription, Verdict};
pub use trace::{TraceContext, Tracer};
