use std::sync::Arc;

use futures::stream::{self, StreamExt};
use kassa_bus::message::{AcceptedSale, Envelope, Origin};
use kassa_bus::publish::publish_one;
use kassa_bus::{
    ClientAddress, Clock, Dimension, Metric, Metrics, PublishError, Publisher, Retry, SaleId, ShopId, Topic,
    TraceContext, trace,
};
use serde_json::{Value, json};

use crate::claim_check;
use crate::envelope_limit::{Entry, EnvelopeLimit};
use crate::event::{Accepted, Event, Fact, RECORDED, envelope_hash};
use crate::event_store::{Appended, Bodies, EventStore};
use crate::outcome::{FirstEvents, Outcome};
use crate::pending_rows::PendingRows;
use crate::problem::{Answer, Problem};
use crate::rates::Rates;
use crate::request::{self, Member, Posted, Posts};
use crate::sweep;
use crate::tries::Known;
use kassa_bus::keys::{KeyError, ShopKeys};
use kassa_bus::registry::{Registry, Shop};
use kassa_bus::table::TableError;

/// Takes a sale at the door: checks its form, keeps the closed envelope, passes it on, answers.
///
/// It has no private key and cannot see into an envelope.
pub struct Accept {
    pub store: EventStore,
    pub registry: Registry,
    pub keys: Arc<dyn ShopKeys>,
    pub publisher: Arc<dyn Publisher>,
    pub rates: Rates,
    pub limit: EnvelopeLimit,
    /// Of sales whose ids are of days that nobody looks at.
    pub pending: PendingRows,
    pub clock: Clock,
    pub metrics: Metrics,
}

/// A `POST /shop`, its body decoded if it came in base64.
pub struct Post<'a> {
    pub body: &'a [u8],
    pub client: ClientAddress,
    /// What the request says of the trace it belongs to.
    pub trace: Option<TraceContext>,
}

/// Seconds a till may keep a public key.
const KEY_MAX_AGE: u32 = 3600;

/// A stranger posts under a sale's id, and this may be its till.
const COME_AGAIN: Problem = Problem::TooMany {
    retry_after: 1,
    detail: "other envelopes came under this sale's id and are not judged yet; send it again with the same message_id",
};

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
        let origin =
            Origin { source: post.client.into(), accepted_at: now, attempt: 1, opened_with: None, trace };
        let posts = request::parse(post.body)?;
        let shop = self.shop(posts.shop_id()).await?;
        if !self.publisher.has_room(Topic::ToDecrypt, &shop.shop_id) {
            return Err(Problem::BUSY);
        }
        let _in_hand = self.rates.enter(&shop.shop_id, post.body.len())?;
        let answer = match posts {
            Posts::One(posted) => self.one(&shop, posted, post.client, origin).await?,
            Posts::Batch(_, members) => self.batch(&shop, members, post.client, &origin).await?,
        };
        Ok(Answer { key: shop.present_key().map(|key| key.kid.clone()), ..answer })
    }

    async fn one(
        &self,
        shop: &Shop,
        posted: Posted,
        client: ClientAddress,
        origin: Origin,
    ) -> Result<Answer, Problem> {
        let taken = self.take(shop, posted, client, origin).await?;
        let took_some = taken.to_publish().is_some();
        if let Taken::New(sale) = &taken {
            let message = claim_check::message(sale);
            let published = publish_one(&*self.publisher, Topic::ToDecrypt, message).await;
            published.map_err(|error| try_again(sale, error))?;
            self.published(sale);
        }
        Ok(Answer { took_some, ..yes(taken.sale()) })
    }

    /// Takes each sale of a batch for itself: what one is refused for is no matter of the others.
    async fn batch(
        &self,
        shop: &Shop,
        members: Vec<Member>,
        client: ClientAddress,
        origin: &Origin,
    ) -> Result<Answer, Problem> {
        let each = members.into_iter().map(|member| async move {
            let posted = member?;
            let id = posted.sale_id.clone();
            self.take(shop, posted, client, origin.clone()).await.map_err(|problem| (id, problem))
        });
        let taken: Vec<_> = stream::iter(each).buffered(AT_ONCE).collect().await;
        let new = taken.iter().flatten().filter_map(Taken::to_publish);
        let messages: Vec<_> = new.map(claim_check::message).collect();
        let took_some = !messages.is_empty();
        let mut published = self.publisher.publish(Topic::ToDecrypt, messages).await.into_iter();
        let outcomes = taken.into_iter().map(|taken: Result<Taken, _>| {
            let sale = match taken? {
                Taken::Repeated(sale) => return Ok(sale.sale_id),
                Taken::New(sale) => sale,
            };
            let lost = || PublishError { topic: Topic::ToDecrypt.name(), why: "no answer".into() };
            match published.next().unwrap_or_else(|| Err(lost())) {
                Ok(()) => {
                    self.published(&sale);
                    Ok(sale.sale_id)
                }
                Err(error) => Err((Some(sale.sale_id.clone()), try_again(&sale, error))),
            }
        });
        let outcomes: Vec<Answered> = outcomes.collect();
        let refused = |outcome: &&Answered| matches!(outcome, Err((_, problem)) if !problem.is_ours());
        self.metrics.count(Metric::Refused, outcomes.iter().filter(refused).count() as u64);
        Ok(Answer { took_some, ..batch_answer(&outcomes)? })
    }

    async fn shop(&self, shop_id: &ShopId) -> Result<Arc<Shop>, Problem> {
        trace::note("kassa.shop_id", shop_id.as_str());
        let shop = self.registry.shop(shop_id).await.map_err(|error| no_registry(shop_id, &error))?;
        shop.ok_or(Problem::UnknownShop)
    }

    /// Takes a sale of a registered shop, so that it is accepted. What repeats is not published again once it is on its way,
    /// or settled.
    async fn take(
        &self,
        shop: &Shop,
        posted: Posted,
        client: ClientAddress,
        origin: Origin,
    ) -> Result<Taken, Problem> {
        let sale_id = posted.sale_id.unwrap_or_else(|| SaleId::new(origin.accepted_at));
        let mut sale = AcceptedSale { shop_id: posted.shop_id, sale_id, envelope: posted.envelope, origin };
        trace::note("kassa.sale_id", sale.sale_id.as_str());
        self.rates.admit(&sale.shop_id, client)?;
        let (id, envelope) = ((&sale.shop_id, &sale.sale_id), envelope_hash(&sale.envelope));
        if self.enter(&sale, &envelope).await? == Entry::Known {
            self.metrics.count(Metric::Duplicates, 1);
            return Ok(Taken::Repeated(sale));
        }
        let failed = |error: TableError| try_again(&sale, error);
        let appended = async {
            let revocations = self.registry.tills.revocations(&sale.shop_id).await?;
            self.store.append(&accepted(&sale, revocations)).await
        };
        match appended.await.inspect_err(|_| self.limit.remove(id, &envelope)) {
            Ok(Appended::New) => {
                let shop = &[(Dimension::Shop, sale.shop_id.as_str())];
                self.metrics.count_of(Metric::Accepted, shop, 1);
            }
            Ok(Appended::Exists(there)) => {
                self.metrics.count(Metric::Duplicates, 1);
                if self.is_settled(id, &envelope).await.map_err(failed)? {
                    self.limit.settled(id, &envelope, self.clock.now());
                    return Ok(Taken::Repeated(sale));
                }
                // When it came first is what counts, for whatever ended in between.
                sale.origin.accepted_at = there.at;
            }
            Err(error) => return Err(failed(error)),
        }
        self.note(shop, &sale).await.map_err(|error| try_again(&sale, error))?;
        Ok(Taken::New(sale))
    }

    /// Has a row say that a sale is there which no look would meet.
    async fn note(&self, shop: &Shop, sale: &AcceptedSale) -> Result<(), TableError> {
        let AcceptedSale { shop_id, sale_id, origin, .. } = sale;
        if sweep::meets(sale_id, self.clock.now(), &shop.zone()) {
            return Ok(());
        }
        let known = Known { accepted_at: origin.accepted_at, found_at: origin.accepted_at };
        self.pending.put(shop_id, sale_id, known).await
    }

    /// Gives the envelope a place among those of its sale.
    async fn enter(&self, sale: &AcceptedSale, envelope: &str) -> Result<Entry, Problem> {
        let id = (&sale.shop_id, &sale.sale_id);
        let now = self.clock.now();
        let mut entry = self.limit.enter(id, envelope, now);
        if let Entry::Full(taken) = entry {
            for other in taken {
                let judged = self.store.is_rejected(id, &other).await;
                if judged.map_err(|error| try_again(sale, error))? {
                    self.limit.settled(id, &other, now);
                }
            }
            entry = self.limit.enter(id, envelope, now);
        }
        match entry {
            Entry::In | Entry::Known => Ok(entry),
            Entry::Full(_) | Entry::ComeAgain => Err(COME_AGAIN),
        }
    }

    /// Whether nothing is left to do for an envelope that was accepted.
    async fn is_settled(&self, sale: (&ShopId, &SaleId), envelope: &str) -> Result<bool, TableError> {
        Ok(self.store.has(sale, RECORDED).await? || self.store.is_rejected(sale, envelope).await?)
    }

    fn published(&self, sale: &AcceptedSale) {
        let AcceptedSale { shop_id, sale_id, envelope, origin } = sale;
        self.limit.published((shop_id, sale_id), &envelope_hash(envelope), self.clock.now());
        let trace_id = origin.trace.map(|trace| tracing::field::display(trace.trace_id()));
        tracing::debug!(%shop_id, %sale_id, trace_id, "accepted");
    }

    /// Answers a `GET /shop/{shop_id}/sales/{sale_id}`: what became of a sale that was accepted, with nothing of what was sold.
    /// Asking is bounded as selling is.
    pub async fn outcome(&self, shop_id: &str, sale_id: &str, client: ClientAddress) -> Answer {
        let Ok(shop_id) = shop_id.parse() else { return Problem::UnknownShop.answer() };
        let Ok(sale_id) = sale_id.parse() else { return Problem::UnknownSale.answer() };
        let told = async {
            self.shop(&shop_id).await?;
            self.rates.admit(&shop_id, client)?;
            let outcome = self.outcome_of((&shop_id, &sale_id)).await.map_err(|error| {
                tracing::error!(%shop_id, %sale_id, %error, "a sale's events cannot be read");
                Problem::Unavailable { retry_after: 1, detail: "the sale's events cannot be read now" }
            })?;
            outcome.ok_or(Problem::UnknownSale)
        };
        match told.await {
            Ok(outcome) => Answer::json(200, &outcome.document(&sale_id)),
            Err(problem) => problem.answer(),
        }
    }

    /// Reads what became of a sale. Anybody may ask, so it reads no more than a few pages.
    async fn outcome_of(&self, sale: (&ShopId, &SaleId)) -> Result<Option<Outcome>, TableError> {
        let (mut events, mut cursor) = (FirstEvents::default(), None);
        for _ in 0..PAGES {
            let page = self.store.of_sale(sale, "", Bodies::Without, cursor).await?;
            page.events.into_iter().for_each(|event| events.take(event));
            cursor = page.next;
            if cursor.is_none() {
                return Ok(events.outcome());
            }
        }
        Ok(Some(Outcome::of_many(self.store.has(sale, RECORDED).await?)))
    }

    /// Answers a `GET /shop/{shop_id}/key`: the public key as a JWK (RFC 7517). Whoever makes names up asks no key of KMS.
    pub async fn key(&self, shop_id: &str) -> Answer {
        let Ok(shop_id) = shop_id.parse() else { return Problem::UnknownShop.answer() };
        match self.registry.shop(&shop_id).await {
            Ok(Some(_)) => {}
            Ok(None) => return Problem::UnknownShop.answer(),
            // It is there, and has a key.
            Err(error) if error.is_unreadable() => tracing::error!(%error, %shop_id, "in the registry"),
            Err(error) => return no_registry(&shop_id, &error).answer(),
        }
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

/// Pages of a sale's events, each of 1 MB at most, that are read for one answer.
const PAGES: usize = 4;

fn no_registry(shop_id: &ShopId, error: &TableError) -> Problem {
    tracing::error!(%shop_id, %error, "the registry cannot be read");
    Problem::Unavailable { retry_after: 1, detail: "the registry cannot be read now; send it again" }
}

/// Appends of one batch at once.
const AT_ONCE: usize = 25;

/// A sale that is accepted.
enum Taken {
    /// It is to be published.
    New(AcceptedSale),
    /// It is on its way already, or settled.
    Repeated(AcceptedSale),
}

impl Taken {
    fn sale(&self) -> &AcceptedSale {
        let (Self::New(sale) | Self::Repeated(sale)) = self;
        sale
    }

    fn to_publish(&self) -> Option<&AcceptedSale> {
        if let Self::New(sale) = self { Some(sale) } else { None }
    }
}

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
fn accepted(sale: &AcceptedSale, revocations: Option<u64>) -> Event {
    Event {
        shop_id: sale.shop_id.clone(),
        sale_id: sale.sale_id.clone(),
        at: sale.origin.accepted_at,
        trace: sale.origin.trace,
        fact: Fact::Accepted(Accepted {
            envelope: sale.envelope.clone(),
            source: sale.origin.source,
            revocations,
        }),
    }
}

/// The sale that an accepted event keeps: what to publish again if it was lost on its way.
#[must_use]
pub fn republished(event: Event, attempt: u32) -> Option<AcceptedSale> {
    let Fact::Accepted(Accepted { envelope, source, .. }) = event.fact else { return None };
    let origin = Origin { source, accepted_at: event.at, attempt, opened_with: None, trace: event.trace };
    Some(AcceptedSale { shop_id: event.shop_id, sale_id: event.sale_id, envelope, origin })
}

fn yes(sale: &AcceptedSale) -> Answer {
    match sale.envelope {
        Envelope::Classic { .. } => Answer::json(200, &json!("OK")),
        Envelope::Sealed { .. } => Answer::json(202, &json!({"sale_id": sale.sale_id, "status": "accepted"})),
    }
}
