use std::sync::Arc;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp, Unit};
use kassa_bus::amount::Amount;
use kassa_bus::business_date::business_date;
use kassa_bus::message::{DecryptedSale, Reason};
use kassa_bus::subscriber::each;
use kassa_bus::{
    Clock, Dimension, Intake, Message, Metric, Metrics, Source, Subscriber, Subscription, Topic, Totals,
    Verdict, trace,
};

use crate::event::{Event, Fact, Recorded, content_hash};
use crate::event_store::{Appended, EventStore};
use crate::reject::{Reject, Rejectable, Rejection};
use kassa_bus::registry::{Registry, Shop};
use kassa_bus::tills::Unsigned;

/// Records sales: one append each, conditional on the sale not being recorded.
pub struct Process {
    pub store: EventStore,
    pub registry: Registry,
    pub reject: Reject,
    pub clock: Clock,
    pub metrics: Metrics,
}

impl Process {
    pub const NAME: &str = "process";

    #[must_use]
    pub fn subscription(self) -> Subscription {
        let subscriber = Arc::new(self);
        Subscription {
            name: Self::NAME,
            source: Source::Topic(Topic::ToProcess),
            batch: 10,
            workers: 16,
            intake: Intake::Pushed,
            every_minute: false,
            subscriber,
        }
    }

    async fn process(&self, message: &Message) -> Verdict {
        let mut sale: DecryptedSale = message.read()?;
        sale.origin.trace = trace::current().or(sale.origin.trace);
        let DecryptedSale { shop_id, sale_id, envelope, origin, .. } = &sale;
        let rejectable = Rejectable { shop_id, sale_id, envelope, closed: None, origin };
        let Some(shop) = self.registry.shop(shop_id).await? else {
            let unknown = Rejection::because(Reason::UnknownShop, "no shop of this id is registered");
            return Ok(self.reject.reject(rejectable, unknown.of(sale.till_id())).await?);
        };
        let Some(recorded) = record(&sale, &shop, message.sent) else {
            let too_much =
                Rejection::because(Reason::InvalidSale, "its lines add up to more than a row holds");
            return Ok(self.reject.reject(rejectable, too_much.of(sale.till_id())).await?);
        };
        let turnover = recorded.totals.gross_turnover;
        let content = recorded.content.clone();
        let event = Event {
            shop_id: shop_id.clone(),
            sale_id: sale_id.clone(),
            at: self.clock.now(),
            trace: origin.trace,
            fact: Fact::Recorded(recorded),
        };
        match self.store.append(&event).await? {
            Appended::New => {
                self.count(&sale, &shop, turnover, event.at);
                Ok(())
            }
            Appended::Exists(there) if there.recorded()?.content == content => {
                self.metrics.count(Metric::Duplicates, 1);
                Ok(())
            }
            Appended::Exists(_) => {
                let conflict = Rejection::because(Reason::Conflict, "another sale is recorded under this id");
                Ok(self.reject.reject(rejectable, conflict.of(sale.till_id())).await?)
            }
        }
    }
}

impl Process {
    fn count(&self, sale: &DecryptedSale, shop: &Shop, turnover: Amount, recorded_at: Timestamp) {
        let flagged = shop.unsigned == Unsigned::Flag && sale.signed_by.is_none();
        let shop = &[(Dimension::Shop, sale.shop_id.as_str())];
        self.metrics.count_of(Metric::UnsignedSales, shop, u64::from(flagged));
        self.metrics.count_of(Metric::Recorded, shop, 1);
        self.metrics.count_of(Metric::Lines, shop, sale.lines.len() as u64);
        self.metrics.count_of(Metric::Refunds, shop, u64::from(turnover.is_negative()));
        self.metrics.count_of(Metric::SuspiciousClocks, shop, u64::from(clock_is_suspicious(sale)));
        let took = recorded_at.duration_since(sale.origin.accepted_at).as_secs_f64() * 1_000.0;
        self.metrics.observe(Metric::Latency, &[], took.max(0.0));
    }
}

#[async_trait]
impl Subscriber for Process {
    async fn handle(&self, batch: &[Message]) -> Vec<Verdict> {
        each(batch, |message| self.process(message)).await
    }
}

/// What is recorded of a sale. A late sale is booked on its own day. It was sent on as soon as it was decrypted. Nothing
/// if its lines add up to more than an amount can be, which those of an envelope do not.
#[must_use]
pub fn record(sale: &DecryptedSale, shop: &Shop, sent: Option<Timestamp>) -> Option<Recorded> {
    Some(Recorded {
        totals: Totals::of(&sale.lines)?,
        business_date: business_date(sale.sold_at, &sale.sale_id, sale.origin.accepted_at, &shop.zone()),
        content: content_hash(&sale.lines, sale.till.as_deref(), sale.seq, sale.sold_at),
        lines: sale.lines.clone(),
        till: sale.till.clone(),
        seq: sale.seq,
        sold_at: sale.sold_at,
        // Digits beyond would only be kept.
        decrypted_at: sent.and_then(|at| at.round(Unit::Millisecond).ok()),
        key: sale.key.clone(),
        signed_by: sale.signed_by.clone(),
        opened_with: sale.origin.opened_with.clone(),
        attempt: Some(sale.origin.attempt).filter(|attempt| *attempt > 1),
        envelope: sale.envelope.clone(),
    })
}

/// A till's clock more than a day ahead of ours, or a year behind, is likely wrong. Within what
/// [`business_date`] believes, the sale is booked where the till says all the same: we do not know better.
fn clock_is_suspicious(sale: &DecryptedSale) -> bool {
    const AHEAD: SignedDuration = SignedDuration::from_hours(24);
    const BEHIND: SignedDuration = SignedDuration::from_hours(-24 * 365);
    let off = |at: Timestamp| at.duration_since(sale.origin.accepted_at);
    let suspicious = |at: Timestamp| off(at) > AHEAD || off(at) < BEHIND;
    let said = [sale.sold_at, sale.sale_id.instant()];
    match said.into_iter().flatten().next() {
        Some(_) => said.into_iter().flatten().any(suspicious),
        // A classic id says a day only: its noon is within half a day of it.
        None => sale
            .sale_id
            .utc_date()
            .at(12, 0, 0, 0)
            .in_tz("UTC")
            .is_ok_and(|noon| suspicious(noon.timestamp())),
    }
}
