use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use kassa_bus::Clock;
use kassa_bus::message::DecryptedSale;
use kassa_bus::webhook::{self, Headers, SalesDelivery, WarehouseSale};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::body;
use super::check::check;
use super::group_commit::GroupCommit;
use super::problem::Problem;
use super::secrets::Secrets;
use super::sns::Kind;
use super::subscription::{SnsError, Subscriptions};

/// Requests in hand at once; with bodies of at most 8 MiB that bounds memory.
const IN_HAND: usize = 32;

/// A request that waits longer for its turn is answered "try again".
const PATIENCE: Duration = Duration::from_secs(5);

/// Where sales come in.
pub(super) struct Gate {
    pub secrets: Secrets,
    pub subscriptions: Subscriptions,
    pub clock: Clock,
    pub warehouse: GroupCommit,
    in_hand: Semaphore,
}

type Answer = Result<StatusCode, Problem>;

impl Gate {
    pub fn new(secrets: Secrets, subscriptions: Subscriptions, clock: Clock, warehouse: GroupCommit) -> Self {
        Self { secrets, subscriptions, clock, warehouse, in_hand: Semaphore::new(IN_HAND) }
    }

    pub fn router(self) -> Router {
        Router::new()
            .route("/sales", post(sales))
            .route("/sns", post(sns))
            .fallback(|| async { Problem::NoSuchPage })
            .method_not_allowed_fallback(|| async { Problem::NoSuchMethod })
            .with_state(Arc::new(self))
    }

    /// Waits until there is room. What waits has not sent its body yet.
    async fn room(&self) -> Result<SemaphorePermit<'_>, Problem> {
        const BUSY: Problem = Problem::Unavailable(Cow::Borrowed("the warehouse is busy"), 1);
        let room = tokio::time::timeout(PATIENCE, self.in_hand.acquire()).await;
        room.map_err(|_| BUSY)?.map_err(|_| BUSY)
    }

    /// 204 once the sales are committed, not before.
    async fn load(&self, sales: Vec<WarehouseSale>) -> Answer {
        check(&sales).map_err(|invalid| Problem::Malformed(invalid.to_string()))?;
        if !sales.is_empty() {
            self.warehouse.load(sales).await?;
        }
        Ok(StatusCode::NO_CONTENT)
    }
}

async fn sales(State(gate): State<Arc<Gate>>, headers: HeaderMap, body: Body) -> Answer {
    let _in_hand = gate.room().await?;
    let unverified = |why: webhook::Unverified| Problem::Unverified(why.to_string());
    let signed = Headers::from(|name| headers.get(name)?.to_str().ok()).map_err(unverified)?;
    let body = body::read(&headers, body).await?;
    webhook::verify(signed, &body, &gate.secrets.live(), gate.clock.now()).map_err(unverified)?;
    let delivery = SalesDelivery::read(&body).map_err(|error| Problem::Malformed(error.to_string()))?;
    gate.load(delivery.data.sales).await
}

async fn sns(State(gate): State<Arc<Gate>>, headers: HeaderMap, body: Body) -> Answer {
    let _in_hand = gate.room().await?;
    if headers.contains_key("x-amz-sns-rawdelivery") {
        let why = "raw message delivery has no signature; switch it off for this subscription";
        return Err(Problem::Forbidden(why.into()));
    }
    let body = body::read(&headers, body).await?;
    let message = gate.subscriptions.verified(&body, gate.clock.now()).await?;
    let topic = &message.topic_arn;
    match message.kind {
        Kind::Notification => {
            let sale: DecryptedSale = serde_json::from_str(&message.message)
                .map_err(|e| Problem::Malformed(format!("Message is no sale (column {})", e.column())))?;
            return gate.load(vec![sale.into()]).await;
        }
        Kind::SubscriptionConfirmation => {
            gate.subscriptions.confirm(&message).await?;
            tracing::info!(topic, "subscribed");
        }
        Kind::UnsubscribeConfirmation => tracing::warn!(topic, "somebody ended the subscription"),
    }
    Ok(StatusCode::NO_CONTENT)
}

impl From<SnsError> for Problem {
    fn from(error: SnsError) -> Self {
        match error {
            SnsError::NotOurs(why) => Self::Forbidden(why.to_string()),
            SnsError::Fetch(why) => {
                tracing::warn!(%why, "a message of SNS cannot be checked or confirmed");
                Self::Unavailable("SNS cannot be asked".into(), 5)
            }
        }
    }
}
