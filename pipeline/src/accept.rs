use std::sync::Arc;

use kassa_bus::message::{AcceptedSale, Envelope, Origin};
use kassa_bus::publish::publish_one;
use kassa_bus::{
    Clock, Dimension, Message, Metric, Metrics, Publisher, Retry, SaleId, Topic, TraceContext, trace,
};
use serde_json::json;

use crate::event::{Accepted, Event, Fact};
use crate::event_store::{Appended, EventStore};
use crate::problem::{Answer, Problem};
use crate::rates::Rates;
use crate::request;
use kassa_bus::keys::{KeyError, ShopKeys};
use kassa_bus::registry::Registry;

/// Takes a sale at the door: checks its form, keeps the closed envelope, passes it on, answers.
///
/// It has no private key and cannot see into an envelope.
pub struct Accept {
    pub store: EventStore,
    pub registry: Registry,
    pub keys: Arc<dyn ShopKeys>,
    pub publisher: Arc<dyn Publisher>,
    pub rates: Rates,
    pub clock: Clock,
    pub metrics: Metrics,
}

/// A `POST /shop`, its body decoded if it came in base64.
pub struct Post<'a> {
    pub body: &'a [u8],
    /// The client's network address.
    pub source: String,
    /// What the request says of the trace it belongs to.
    pub trace: Option<TraceContext>,
}

/// Seconds a till may keep a public key.
const KEY_MAX_AGE: u32 = 3600;

const TRY_AGAIN: Problem = Problem::Unavailable {
    retry_after: 1,
    detail: "the sale was not accepted yet; send it again with the same message_id",
};

impl Accept {
    pub const NAME: &str = "accept";

    /// Answers a `POST /shop`: 200 `"OK"` for a classic sale, 202 for a sealed one, or a problem.
    ///
    /// Says yes only when the sale is in the event store *and* on its way. After any other answer the
    /// till sends it again, which changes nothing if the first half had worked.
    pub async fn sale(&self, post: Post<'_>) -> Answer {
        match self.accept(post).await {
            Ok(answer) => answer,
            Err(problem) => {
                if !matches!(problem, Problem::Unavailable { .. }) {
                    self.metrics.count(Metric::Refused, 1);
                }
                problem.answer()
            }
        }
    }

    async fn accept(&self, post: Post<'_>) -> Result<Answer, Problem> {
        let posted = request::parse(post.body)?;
        trace::note("kassa.shop_id", posted.shop_id.as_str());
        let now = self.clock.now();
        let trace = trace::current().or(post.trace);
        let mut sale = AcceptedSale {
            shop_id: posted.shop_id,
            sale_id: posted.sale_id.unwrap_or_else(|| SaleId::new(now)),
            envelope: posted.envelope,
            origin: Origin { source: post.source, accepted_at: now, attempt: 1, trace },
        };
        trace::note("kassa.sale_id", sale.sale_id.as_str());
        let shop = self.registry.shop(&sale.shop_id).await.map_err(|error| try_again(&sale, error))?;
        let shop = shop.ok_or(Problem::UnknownShop)?;
        self.rates.admit(&sale.shop_id, &sale.origin.source)?;
        let appended = self.store.append(&accepted(&sale)).await;
        let appended = appended.map_err(|error| try_again(&sale, error))?;
        match appended {
            Appended::New => {
                let shop = &[(Dimension::Shop, sale.shop_id.as_str())];
                self.metrics.count_of(Metric::Accepted, shop, 1);
            }
            // When it came first is what counts, for whatever ended in between.
            Appended::Exists(there) => {
                sale.origin.accepted_at = there.at;
                self.metrics.count(Metric::Duplicates, 1);
            }
        }
        let published = publish_one(&*self.publisher, Topic::ToDecrypt, Message::of(&sale)).await;
        published.map_err(|error| try_again(&sale, error))?;
        let AcceptedSale { shop_id, sale_id, origin, .. } = &sale;
        let trace_id = origin.trace.map(|trace| tracing::field::display(trace.trace_id()));
        tracing::debug!(%shop_id, %sale_id, trace_id, "accepted");
        let key = shop.present_key().map(|key| key.kid.clone());
        Ok(Answer { key, ..yes(&sale) })
    }

    /// Answers a `GET /shop/{shop_id}/key`: the public key as a JWK (RFC 7517).
    pub async fn key(&self, shop_id: &str) -> Answer {
        let Ok(shop_id) = shop_id.parse() else { return Problem::UnknownShop.answer() };
        match self.keys.public_key(&shop_id).await {
            Ok(key) => Answer { max_age: Some(KEY_MAX_AGE), ..Answer::json(200, &json!(key)) },
            Err(KeyError::NoSuchKey | KeyError::DoesNotOpen) => Problem::UnknownShop.answer(),
            Err(error @ KeyError::Unavailable(_)) => {
                tracing::error!(%error, %shop_id, "cannot give the public key");
                Problem::Unavailable { retry_after: 5, detail: "the key cannot be read now" }.answer()
            }
        }
    }
}

fn try_again(sale: &AcceptedSale, error: impl Into<Retry>) -> Problem {
    tracing::error!(
        shop_id = %sale.shop_id,
        sale_id = %sale.sale_id,
        trace_id = sale.origin.trace.map(|trace| tracing::field::display(trace.trace_id())),
        error = %error.into(),
        "a sale was not accepted"
    );
    TRY_AGAIN
}

/// The event that keeps an accepted sale.
fn accepted(sale: &AcceptedSale) -> Event {
    Event {
        shop_id: sale.shop_id.clone(),
        sale_id: sale.sale_id.clone(),
        at: sale.origin.accepted_at,
        trace: sale.origin.trace,
        fact: Fact::Accepted(Accepted {
            envelope: sale.envelope.clone(),
            source: sale.origin.source.clone(),
        }),
    }
}

/// The message that an accepted event stands for: what to publish again if it was lost on its way.
#[must_use]
pub fn republished(event: Event, attempt: u32) -> Option<AcceptedSale> {
    let Fact::Accepted(Accepted { envelope, source }) = event.fact else { return None };
    let origin = Origin { source, accepted_at: event.at, attempt, trace: event.trace };
    Some(AcceptedSale { shop_id: event.shop_id, sale_id: event.sale_id, envelope, origin })
}

fn yes(sale: &AcceptedSale) -> Answer {
    match sale.envelope {
        Envelope::Classic { .. } => Answer::json(200, &json!("OK")),
        Envelope::Sealed { .. } => Answer::json(202, &json!({"sale_id": sale.sale_id, "status": "accepted"})),
    }
}
