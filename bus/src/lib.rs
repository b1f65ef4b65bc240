//! What travels between Kassa's rooms, and how.
//!
//! Every other crate depends on this one and on none of its siblings: a message that two rooms
//! share is declared here once, and neither room knows who sends or takes it.

/// Exact decimals: quantities and money.
pub mod amount;
/// Time, given from outside.
pub mod clock;
/// What went wrong, with what caused it.
pub mod error;
/// Identifiers that are right by construction: shop, sale, item, key.
pub mod ids;
/// A Lambda function around a subscriber.
pub mod lambda;
/// The in-process bus: queues, retries and dead letters on one machine.
pub mod local;
/// The published contract: one type per topic, and the envelope around it.
pub mod message;
/// What is counted.
pub mod metrics;
/// `Publisher`: how a stage tells the others.
pub mod publish;
/// What a till sold: lines and totals.
pub mod sale;
/// Topics on SNS.
pub mod sns;
/// `Subscriber`: how a stage takes a batch, and what it may answer.
pub mod subscriber;
/// What may be logged.
pub mod telemetry;

pub use clock::Clock;
pub use ids::{ItemNo, SaleId, ShopId, Thumbprint};
pub use message::{Contract, Message, Topic};
pub use metrics::{Metric, Metrics};
pub use publish::{PublishError, Publisher};
pub use sale::{Line, Totals};
pub use subscriber::{Retry, Source, Subscriber, Subscription, Verdict};
