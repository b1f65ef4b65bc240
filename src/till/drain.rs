use std::time::{Duration, Instant};

use kassa_bus::{SaleId, ShopId};
use kassa_pipeline::request::{MAX_BATCH, MAX_BATCH_BODY};
use rand::Rng;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::journal::{Journal, JournalError};
use super::{Away, Prepared, Till, TillError};

/// Bytes of sales in one request: what the shop takes, less what is around them.
const BATCH_BYTES: usize = MAX_BATCH_BODY - 4 * 1024;

/// The most that is waited before the shop is tried again.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// What became of a sale, as far as the shop said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answered {
    Accepted,
    Refused {
        status: u16,
        detail: String,
    },
    /// It may be taken later.
    Later,
}

/// What is sent of a sale in a batch.
#[derive(Serialize, Deserialize)]
struct Member<'a> {
    #[serde(borrow)]
    message_id: &'a RawValue,
    #[serde(borrow)]
    sealed: &'a RawValue,
}

/// The request of a batch, if all of these are sealed.
fn batch(shop: &ShopId, sales: &[Prepared]) -> Option<String> {
    #[derive(Serialize)]
    struct Batch<'a> {
        shop_id: &'a ShopId,
        sales: Vec<Member<'a>>,
    }
    let members = sales.iter().map(|sale| serde_json::from_str(&sale.body).ok());
    serde_json::to_string(&Batch { shop_id: shop, sales: members.collect::<Option<_>>()? }).ok()
}

/// What the answer to a batch says of each of its sales, in their order.
fn answers(body: &Value, count: usize) -> Vec<Answered> {
    let answer = |n: usize| {
        let sale = &body["sales"][n];
        match sale["status"].as_str() {
            Some("accepted") => Answered::Accepted,
            Some("refused") => Answered::Refused {
                status: sale["problem"]["status"].as_u64().and_then(|s| u16::try_from(s).ok()).unwrap_or(400),
                detail: sale["problem"]["detail"].as_str().unwrap_or("without saying why").to_owned(),
            },
            // Whatever is not said is asked again.
            _ => Answered::Later,
        }
    };
    (0..count).map(answer).collect()
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
    /// So many sales were answered for good.
    Sent(u64),
    /// Nothing waits.
    Empty,
    /// The shop cannot be reached, or wants it to be later.
    Away(Away),
}

impl Drain<'_> {
    /// Sends the oldest sales that wait, in one request.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn step(&self) -> Result<Step, JournalError> {
        let oldest = self.journal.oldest(MAX_BATCH, BATCH_BYTES)?;
        let Some(first) = oldest.first() else { return Ok(Step::Empty) };
        let is_sealed = |sale: &&Prepared| serde_json::from_str::<Member>(&sale.body).is_ok();
        let sealed = oldest.iter().take_while(is_sealed).count();
        let answered = match self.batch(&oldest[..sealed]).await {
            Some(answered) => answered,
            None => self.till.post_once(first).await.map(|answered| vec![answered]),
        };
        let answered = match answered {
            Ok(answered) => answered,
            Err(away) => return Ok(Step::Away(away)),
        };
        let (mut sent, mut for_good) = (0, false);
        for (sale, answered) in oldest.iter().zip(answered) {
            for_good |= answered != Answered::Later;
            sent += u64::from(settle(self.journal, &sale.sale_id, answered).await?);
        }
        if !for_good {
            let why = "the shop takes none of these sales now".to_owned();
            return Ok(Step::Away(Away { why, at_least: Duration::from_secs(1) }));
        }
        #[expect(clippy::cast_precision_loss, reason = "a hundred, at most")]
        tokio::time::sleep(Duration::from_secs_f64(sent as f64 / self.rate)).await;
        Ok(Step::Sent(sent))
    }

    /// What is answered to these in one request; nothing if they are to be posted one by one.
    async fn batch(&self, sales: &[Prepared]) -> Option<Result<Vec<Answered>, Away>> {
        if sales.len() < 2 {
            return None;
        }
        match self.till.send(&batch(&self.till.shop, sales)?, None).await {
            Ok((_, answer)) => Some(Ok(answers(&answer, sales.len()))),
            // Whoever refuses the request says nothing of each sale: an older shop knows no batches.
            Err(TillError::Refused { .. }) => None,
            Err(TillError::Away(away)) => Some(Err(away)),
            Err(other) => Some(Err(Away { why: other.to_string(), at_least: Duration::ZERO })),
        }
    }

    /// Goes on until nothing waits, or nothing was sent for so long.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn until_empty(
        &self,
        patience: Duration,
        sent: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), JournalError> {
        let (mut last, mut backoff) = (Instant::now(), FIRST_WAIT);
        loop {
            match self.step().await? {
                Step::Empty => return Ok(()),
                Step::Sent(count) => {
                    (last, backoff) = (Instant::now(), FIRST_WAIT);
                    sent(count);
                }
                Step::Away(away) => {
                    let wait = away.at_least.max(backoff.mul_f64(rand::rng().random_range(0.5..1.0)));
                    if last.elapsed() + wait > patience {
                        return Ok(());
                    }
                    tokio::time::sleep(wait).await;
                    backoff = (backoff * 2).min(LONGEST_WAIT);
                }
            }
        }
    }
}

/// How long the shop is left alone at first.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// Writes an answer down, and says whether it was the first one for good.
///
/// # Errors
/// [`JournalError`].
pub async fn settle(journal: &Journal, sale: &SaleId, answered: Answered) -> Result<bool, JournalError> {
    match answered {
        Answered::Accepted => journal.accepted(sale).await,
        Answered::Refused { status, detail } => journal.refused(sale, status, &detail).await,
        Answered::Later => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_batch_holds_sealed_sales_only_and_its_answers_are_each_sales() {
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
        let said = json!({"sales": [{"status": "accepted"}, {"status": "refused", "problem": {"status": 400, "detail": "no"}}, {"status": "unavailable"}]});
        let refused = Answered::Refused { status: 400, detail: "no".into() };
        assert_eq!(answers(&said, 4), [Answered::Accepted, refused, Answered::Later, Answered::Later]);
    }
}
