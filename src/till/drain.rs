use std::time::{Duration, Instant};

use futures::future::try_join_all;
use kassa_bus::limits::{MAX_BATCH, MAX_BATCH_BODY};
use kassa_bus::{SaleId, ShopId};
use rand::Rng;
use serde::Serialize;

use super::answer::{Answered, Away, Refused};
use super::journal::{Journal, JournalError, Refusal};
use super::{Member, Prepared, Till};

/// Bytes of sales in one request: what the shop takes, less what is around them.
const BATCH_BYTES: usize = MAX_BATCH_BODY - 4 * 1024;

/// How long the shop is left alone at first, and at most, of the till's own accord.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The request of a batch, if all of these are sealed.
fn batch(shop: &ShopId, sales: &[Prepared]) -> Option<String> {
    #[derive(Serialize)]
    struct Batch<'a> {
        shop_id: &'a ShopId,
        sales: Vec<Member<'a>>,
    }
    let members = sales.iter().map(Prepared::member);
    serde_json::to_string(&Batch { shop_id: shop, sales: members.collect::<Option<_>>()? }).ok()
}

/// Sends what waits in a journal, the oldest first.
pub struct Drain<'a> {
    pub till: &'a Till,
    pub journal: &'a Journal,
    /// Sales a second, at most.
    pub rate: f64,
}

/// Where draining stands.
pub enum Step {
    /// These were answered for good, and not before.
    Sent(Sent),
    /// Nothing waits.
    Empty,
    /// The shop cannot be reached, or wants it to be later.
    Away(Away),
}

/// Sales that were answered for good.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sent {
    pub accepted: Vec<SaleId>,
    pub refused: Vec<Refused>,
}

impl Sent {
    #[must_use]
    pub fn count(&self) -> usize {
        self.accepted.len() + self.refused.len()
    }
}

impl Drain<'_> {
    /// Sends the oldest sales that wait, in one request.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn step(&self) -> Result<Step, JournalError> {
        let oldest = self.journal.oldest(MAX_BATCH, BATCH_BYTES)?;
        let Some(first) = oldest.first() else { return Ok(Step::Empty) };
        let sealed = oldest.iter().take_while(|sale| sale.member().is_some()).count();
        let answered = match self.batch(&oldest[..sealed]).await {
            Ok(Some(answered)) => Ok(answered),
            Ok(None) => self.till.post_once(first).await.map(|answered| vec![answered]),
            Err(away) => Err(away),
        };
        let answered = match answered {
            Ok(answered) => answered,
            Err(away) => return Ok(Step::Away(away)),
        };
        // At once, so that they are written together.
        let answers = || oldest.iter().zip(&answered);
        let settled =
            try_join_all(answers().map(|(sale, answer)| settle(self.journal, &sale.sale_id, answer)));
        let (settled, for_good) = (settled.await?, answered.iter().any(|answer| *answer != Answered::Later));
        let mut sent = Sent::default();
        for ((sale, answered), _) in answers().zip(settled).filter(|(_, first)| *first) {
            match answered {
                Answered::Accepted => sent.accepted.push(sale.sale_id.clone()),
                Answered::Refused(refused) => sent.refused.push(refused.clone()),
                Answered::Later => {}
            }
        }
        if answered.first().is_some_and(|answer| *answer != Answered::Later)
            && sent.count() == 0
            && self.journal.oldest(1, 0)?.iter().any(|still| still.sale_id == first.sale_id)
        {
            // It would be sent for ever.
            return Err(self.journal.damaged());
        }
        if !for_good {
            let why = "the shop takes none of these sales now".to_owned();
            return Ok(Step::Away(Away { why, at_least: Duration::from_secs(1) }));
        }
        #[expect(clippy::cast_precision_loss, reason = "a hundred, at most")]
        tokio::time::sleep(Duration::from_secs_f64(sent.count() as f64 / self.rate)).await;
        Ok(Step::Sent(sent))
    }

    /// What is answered to these in one request; nothing if they are to be posted one by one.
    async fn batch(&self, sales: &[Prepared]) -> Result<Option<Vec<Answered>>, Away> {
        match batch(&self.till.shop, sales) {
            Some(body) if sales.len() > 1 => self.till.post_batch(&body, sales).await,
            _ => Ok(None),
        }
    }

    /// Goes on until nothing waits, or nothing was sent for as long as the till has patience.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn until_empty(
        &self,
        sent: &mut (dyn FnMut(Sent) + Send),
        away: &mut (dyn FnMut(&Away) + Send),
    ) -> Result<(), JournalError> {
        let (mut last, mut backoff) = (Instant::now(), FIRST_WAIT);
        loop {
            match self.step().await? {
                Step::Empty => return Ok(()),
                Step::Sent(some) => {
                    (last, backoff) = (Instant::now(), FIRST_WAIT);
                    sent(some);
                }
                Step::Away(told) => {
                    away(&told);
                    let wait = told.at_least.max(backoff.mul_f64(rand::rng().random_range(0.5..1.0)));
                    if last.elapsed() + wait > self.till.patience {
                        return Ok(());
                    }
                    tokio::time::sleep(wait).await;
                    backoff = (backoff * 2).min(LONGEST_WAIT);
                }
            }
        }
    }
}

/// Writes an answer down, and says whether it was the first one for good.
///
/// # Errors
/// [`JournalError`].
pub async fn settle(journal: &Journal, sale: &SaleId, answered: &Answered) -> Result<bool, JournalError> {
    match answered {
        Answered::Accepted => journal.accepted(sale).await,
        Answered::Refused(Refused { status, detail }) => {
            journal.refused(sale, Refusal { status: *status, detail: detail.clone() }).await
        }
        Answered::Later => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_holds_sealed_sales_only() {
        let sale =
            |body: &str| Prepared { seq: 1, sale_id: "1-20261122".parse().unwrap(), body: body.into() };
        let sealed = sale(r#"{"shop_id":"A","message_id":"x","sealed":"y"}"#);
        let shop = "A".parse().unwrap();
        let request = batch(&shop, &[sealed.clone(), sealed.clone()]).unwrap();
        assert_eq!(
            request,
            r#"{"shop_id":"A","sales":[{"message_id":"x","sealed":"y"},{"message_id":"x","sealed":"y"}]}"#
        );
        let classic = sale(r#"{"shop_id":"A","message_id":"x","content_base64":"y"}"#);
        assert!(batch(&shop, &[sealed, classic]).is_none());
    }
}
