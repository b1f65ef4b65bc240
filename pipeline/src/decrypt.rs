use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;
use kassa_bus::message::{AcceptedSale, DecryptedSale};
use kassa_bus::{
    Failure, Intake, Message, Metrics, Publisher, Retry, Source, Subscriber, Subscription, Topic, Verdict,
    trace,
};

use crate::claim_check::claimed;
use crate::event::envelope_hash;
use crate::event_store::EventStore;
use crate::first_use::FirstUse;
use crate::opener::{Closed, Opener};
use crate::reject::{Reject, Rejectable};

/// Opens envelopes with the shop's key, and passes on what is inside.
pub struct Decrypt {
    pub store: EventStore,
    pub opener: Opener,
    pub first_use: FirstUse,
    pub publisher: Arc<dyn Publisher>,
    pub reject: Reject,
    pub metrics: Metrics,
}

impl Decrypt {
    pub const NAME: &str = "decrypt";

    #[must_use]
    pub fn subscription(self) -> Subscription {
        let subscriber = Arc::new(self);
        Subscription {
            name: Self::NAME,
            source: Source::Topic(Topic::ToDecrypt),
            batch: 10,
            workers: 16,
            intake: Intake::Pushed,
            every_minute: false,
            subscriber,
        }
    }

    /// What is to be published of a sale, and where: it opened, or was rejected.
    async fn decrypt(&self, message: &Message) -> Result<(Topic, Message), Retry> {
        let mut sale = claimed(&self.store, message.read()?).await?;
        sale.origin.trace = trace::current().or(sale.origin.trace);
        match self.opened(&sale).await {
            Ok(decrypted) => Ok((Topic::ToProcess, Message::of(&decrypted))),
            Err(Closed::Retry(why)) => Err(why),
            Err(Closed::Rejected(rejection)) => {
                let AcceptedSale { shop_id, sale_id, envelope: closed, origin } = &sale;
                let (envelope, closed) = (envelope_hash(closed), Some(closed));
                let rejectable = Rejectable { shop_id, sale_id, envelope: &envelope, closed, origin };
                Ok((Topic::DecryptErrors, self.reject.note(rejectable, rejection).await?))
            }
        }
    }

    async fn opened(&self, sale: &AcceptedSale) -> Result<DecryptedSale, Closed> {
        let decrypted = self.opener.open(sale).await?;
        self.first_use.of(&sale.envelope, &decrypted).await?;
        Ok(decrypted)
    }
}

#[async_trait]
impl Subscriber for Decrypt {
    async fn handle(&self, batch: &[Message]) -> Vec<Verdict> {
        let results = join_all(batch.iter().map(|m| trace::of_message(m, self.decrypt(m)))).await;
        let mut verdicts: Vec<Verdict> = Vec::with_capacity(batch.len());
        let (mut opened, mut rejected) = (Vec::new(), Vec::new());
        for (at, result) in results.into_iter().enumerate() {
            verdicts.push(result.map_err(Failure::from).map(|(topic, message)| match topic {
                Topic::DecryptErrors => rejected.push((at, message)),
                _ => opened.push((at, message)),
            }));
        }
        for (topic, sales) in [(Topic::ToProcess, opened), (Topic::DecryptErrors, rejected)] {
            let (places, messages): (Vec<_>, Vec<_>) = sales.into_iter().unzip();
            if messages.is_empty() {
                continue;
            }
            let answers = self.publisher.publish(topic, messages).await;
            for (at, answer) in places.into_iter().zip(answers) {
                verdicts[at] = answer.map_err(Failure::from);
            }
        }
        verdicts
    }
}
