//! The warehouse's routes.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use kassa_bus::message::DecryptedSale;
use kassa_bus::shares::Share;
use kassa_bus::webhook::{self, Headers, SalesDelivery, WarehouseSale};
use kassa_bus::{ClientAddress, Clock};

use super::body;
use super::check::check;
use super::group_commit::GroupCommit;
use super::problem::Problem;
use super::secrets::Secrets;
use super::sns::Kind;
use super::subscription::{SnsError, Subscriptions};
use crate::listener::Places;

/// Where sales come in.
pub(super) struct Gate {
    pub secrets: Secrets,
    pub subscriptions: Subscriptions,
    pub clock: Clock,
    pub warehouse: GroupCommit,
    pub places: Arc<Places>,
}

type Answer = Result<StatusCode, Problem>;

impl Gate {
    pub fn router(self) -> Router {
        Router::new()
            .route("/sales", post(sales))
            .route("/sns", post(sns))
            .fallback(|| async { Problem::NoSuchPage })
            .method_not_allowed_fallback(|| async { Problem::NoSuchMethod })
            .with_state(Arc::new(self))
    }

    /// A place for a request whose body is there.
    fn place(&self, client: ClientAddress) -> Result<Share<ClientAddress>, Problem> {
        self.places.enter(client).ok_or(Problem::BUSY)
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

async fn sales(
    State(gate): State<Arc<Gate>>,
    ConnectInfo(client): ConnectInfo<ClientAddress>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let unverified = |why: webhook::Unverified| Problem::Unverified(why.to_string());
    let signed = Headers::from(|name| headers.get(name)?.to_str().ok()).map_err(unverified)?;
    let body = body::read(&gate.places, client, &headers, body).await?;
    let _in_hand = gate.place(client)?;
    webhook::verify(signed, &body, &gate.secrets.live(), gate.clock.now()).map_err(unverified)?;
    let delivery = SalesDelivery::read(&body).map_err(|error| Problem::Malformed(error.to_string()))?;
    gate.load(delivery.data.sales).await
}

async fn sns(
    State(gate): State<Arc<Gate>>,
    ConnectInfo(client): ConnectInfo<ClientAddress>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    if headers.contains_key("x-amz-sns-rawdelivery") {
        let why = "raw message delivery has no signature; switch it off for this subscription";
        return Err(Problem::Forbidden(why.into()));
    }
    let body = body::read(&gate.places, client, &headers, body).await?;
    let _in_hand = gate.place(client)?;
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
