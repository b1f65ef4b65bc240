use std::sync::Arc;

use futures::stream::{self, StreamExt};
use kassa_bus::message::{AcceptedSale, Envelope, Origin};
use kassa_bus::publish::publish_one;
use kassa_bus::{
    Clock, Dimension, Metric, Metrics, PublishError, Publisher, Retry, SaleId, ShopId, Thumbprint, Topic,
    TraceContext, trace,
};
use serde_json::{Value, json};

use crate::claim_check;
use crate::event::{Accepted, Event, Fact};
use crate::event_store::{Appended, EventStore};
use crate::outcome::Outcome;
use crate::problem::{Answer, Problem};
use crate::rates::Rates;
use crate::request::{self, Member, Posted, Posts};
use kassa_bus::keys::{KeyError, ShopKeys};
use kassa_bus::registry::{Registry, Shop};

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

    /// Answers a `POST /shop`: 200 `"OK"` for a classic sale, 202 for a sealed one or a batch, 207 for a batch of which
    /// some were not taken, or a problem.
    ///
    /// Says yes only when the sale is in the event store *and* on its way. After any other answer the
    /// till sends it again, which changes nothing if the first half had worked.
    pub async fn sale(&self, post: Post<'_>) -> Answer {
        match self.accept(post).await {
            Ok(answer) => answer,
            Err(problem) => {
                if !problem.is_ours() {
                    self.metrics.count(Metric::Refused, 1);
                }
                problem.answer()
            }
        }
    }

    async fn accept(&self, post: Post<'_>) -> Result<Answer, Problem> {
        let now = self.clock.now();
        let trace = trace::current().or(post.trace);
        let origin = Origin { source: post.source, accepted_at: now, attempt: 1, opened_with: None, trace };
        match request::parse(post.body)? {
            Posts::One(posted) => self.one(posted, origin).await,
            Posts::Batch(shop_id, members) => self.batch(shop_id, members, &origin).await,
        }
    }

    async fn one(&self, posted: Posted, origin: Origin) -> Result<Answer, Problem> {
        let shop = self.shop(&posted.shop_id).await?;
        let sale = self.take(posted, origin).await?;
        let published = publish_one(&*self.publisher, Topic::ToDecrypt, claim_check::message(&sale)).await;
        published.map_err(|error| try_again(&sale, error))?;
        told(&sale);
        Ok(Answer { key: present_key(&shop), ..yes(&sale) })
    }

    /// Takes each sale of a batch for itself: what one is refused for is no matter of the others.
    async fn batch(&self, shop_id: ShopId, members: Vec<Member>, origin: &Origin) -> Result<Answer, Problem> {
        let shop = self.shop(&shop_id).await?;
        let each = members.into_iter().map(|member| async move {
            let posted = member?;
            let id = posted.sale_id.clone();
            self.take(posted, origin.clone()).await.map_err(|problem| (id, problem))
        });
        let taken: Vec<_> = stream::iter(each).buffered(AT_ONCE).collect().await;
        let messages = taken.iter().flatten().map(claim_check::message).collect();
        let mut published = self.publisher.publish(Topic::ToDecrypt, messages).await.into_iter();
        let outcomes = taken.into_iter().map(|taken: Result<AcceptedSale, _>| {
            let sale = taken?;
            let lost = || PublishError { topic: Topic::ToDecrypt.name(), why: "no answer".into() };
            match published.next().unwrap_or_else(|| Err(lost())) {
                Ok(()) => {
                    told(&sale);
                    Ok(sale.sale_id)
                }
                Err(error) => Err((Some(sale.sale_id.clone()), try_again(&sale, error))),
            }
        });
        let outcomes: Vec<Answered> = outcomes.collect();
        let refused = |outcome: &&Answered| matches!(outcome, Err((_, problem)) if !problem.is_ours());
        self.metrics.count(Metric::Refused, outcomes.iter().filter(refused).count() as u64);
        Ok(Answer { key: present_key(&shop), ..batch_answer(&outcomes)? })
    }

    async fn shop(&self, shop_id: &ShopId) -> Result<Arc<Shop>, Problem> {
        trace::note("kassa.shop_id", shop_id.as_str());
        let shop = self.registry.shop(shop_id).await.map_err(|error| {
            tracing::error!(%shop_id, %error, "the registry cannot be read");
            TRY_AGAIN
        })?;
        shop.ok_or(Problem::UnknownShop)
    }

    /// Appends the accepted event of a registered shop's sale.
    async fn take(&self, posted: Posted, origin: Origin) -> Result<AcceptedSale, Problem> {
        let sale_id = posted.sale_id.unwrap_or_else(|| SaleId::new(origin.accepted_at));
        let mut sale = AcceptedSale { shop_id: posted.shop_id, sale_id, envelope: posted.envelope, origin };
        trace::note("kassa.sale_id", sale.sale_id.as_str());
        self.rates.admit(&sale.shop_id, &sale.origin.source)?;
        let appended = self.store.append(&accepted(&sale)).await;
        match appended.map_err(|error| try_again(&sale, error))? {
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
        Ok(sale)
    }

    /// Answers a `GET /shop/{shop_id}/sales/{sale_id}`: what became of a sale that was accepted, with nothing of what was sold.
    /// Asking is bounded as selling is.
    pub async fn outcome(&self, shop_id: &str, sale_id: &str, source: &str) -> Answer {
        let Ok(shop_id) = shop_id.parse() else { return Problem::UnknownShop.answer() };
        let Ok(sale_id) = sale_id.parse() else { return Problem::UnknownSale.answer() };
        let told = async {
            self.shop(&shop_id).await?;
            self.rates.admit(&shop_id, source)?;
            let events = self.store.sale_without_bodies(&shop_id, &sale_id).await.map_err(|error| {
                tracing::error!(%shop_id, %sale_id, %error, "a sale's events cannot be read");
                Problem::Unavailable { retry_after: 1, detail: "the sale's events cannot be read now" }
            })?;
            Outcome::of(&events).ok_or(Problem::UnknownSale)
        };
        match told.await {
            Ok(outcome) => Answer::json(200, &outcome.document(&sale_id)),
            Err(problem) => problem.answer(),
        }
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

/// Appends of one batch at once.
const AT_ONCE: usize = 25;

/// How a sale of a batch was answered.
type Answered = Result<SaleId, (Option<SaleId>, Problem)>;

/// 202 if all were taken, else 207 with what became of each; and if none could be because of us, that.
fn batch_answer(outcomes: &[Answered]) -> Result<Answer, Problem> {
    let problems = || outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
    if let Some((_, problem)) = problems().find(|(_, problem)| problem.may_pass())
        && outcomes.iter().all(|outcome| matches!(outcome, Err((_, problem)) if problem.may_pass()))
    {
        return Err(problem.clone());
    }
    let sales: Vec<Value> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Ok(sale_id) => json!({"sale_id": sale_id, "status": "accepted"}),
            Err((sale_id, problem)) => {
                let status = if problem.may_pass() { "unavailable" } else { "refused" };
                json!({"sale_id": sale_id, "status": status, "problem": problem.document().1})
            }
        })
        .collect();
    let status = if problems().next().is_none() { 202 } else { 207 };
    let retry_after = problems().filter_map(|(_, problem)| problem.retry_after()).max();
    Ok(Answer { retry_after, ..Answer::json(status, &json!({"sales": sales})) })
}

fn present_key(shop: &Shop) -> Option<Thumbprint> {
    shop.present_key().map(|key| key.kid.clone())
}

fn told(sale: &AcceptedSale) {
    let AcceptedSale { shop_id, sale_id, origin, .. } = sale;
    let trace_id = origin.trace.map(|trace| tracing::field::display(trace.trace_id()));
    tracing::debug!(%shop_id, %sale_id, trace_id, "accepted");
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

/// The sale that an accepted event keeps: what to publish again if it was lost on its way.
#[must_use]
pub fn republished(event: Event, attempt: u32) -> Option<AcceptedSale> {
    let Fact::Accepted(Accepted { envelope, source }) = event.fact else { return None };
    let origin = Origin { source, accepted_at: event.at, attempt, opened_with: None, trace: event.trace };
    Some(AcceptedSale { shop_id: event.shop_id, sale_id: event.sale_id, envelope, origin })
}

fn yes(sale: &AcceptedSale) -> Answer {
    match sale.envelope {
        Envelope::Classic { .. } => Answer::json(200, &json!("OK")),
        Envelope::Sealed { .. } => Answer::json(202, &json!({"sale_id": sale.sale_id, "status": "accepted"})),
    }
}
