use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use kassa_bus::message::{AcceptedSale, DecryptedSale, Reason};
use kassa_bus::{Message, SaleId, ShopId, TillId, TraceContext};
use kassa_pipeline::claim_check;
use kassa_pipeline::decrypt::Decrypt;
use kassa_pipeline::event::{Dropped, DroppedLetter, Event, Fact, Rejected};
use kassa_pipeline::process::Process;
use kassa_pipeline::unsettled::Finder;
use serde::{Deserialize, Serialize};

use super::{Progress, QuestionError, Questions};
use crate::dead_letters::{DeadLetterOffice, Given, Held, Letter, Why};

/// Whose letters, and which.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LetterFilter {
    /// All of them, if none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// All of them, if none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Why>,
}

/// Letters that are read at once.
const MOST: usize = 1_000;

impl Questions {
    /// Which queues gave up how many messages.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub async fn dead_letters(&self) -> Result<Vec<Given>, QuestionError> {
        Ok(self.books.dead_letters.queues().await?)
    }

    /// The letters of one queue, up to a thousand.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub async fn letters(&self, queue: &str) -> Result<Vec<Letter>, QuestionError> {
        let office = &*self.books.dead_letters;
        known(office, queue).await?;
        Ok(office.read(queue, MOST).await?.into_iter().map(|held| held.letter).collect())
    }

    /// Sends the letters of one queue, or of all, back to where they came from. Says how many.
    ///
    /// # Errors
    /// [`QuestionError`]; those sent by then are on their way.
    pub async fn redrive(&self, filter: &LetterFilter, progress: Progress<'_>) -> Result<u64, QuestionError> {
        let office = &*self.books.dead_letters;
        let queues = match &filter.queue {
            Some(queue) => vec![known(office, queue).await?],
            None => office.queues().await?,
        };
        let of: u64 = queues.iter().map(|given| given.letters).sum();
        let mut sent = 0;
        for given in queues.iter().filter(|given| given.letters > 0) {
            let before = sent;
            sent += office.redrive(&given.queue, &|so_far, _| progress(before + so_far, of)).await?;
        }
        Ok(sent)
    }

    /// Puts letters of a queue away for good, each only once why stands in the event store. Says how many.
    ///
    /// A sale that came to no end because of it is rejected, as `dropped`, and can be put through later.
    ///
    /// # Errors
    /// [`QuestionError`]; those dropped by then are gone, each with its event.
    pub async fn drop_letters(
        &self,
        filter: &LetterFilter,
        now: Timestamp,
        progress: Progress<'_>,
    ) -> Result<u64, QuestionError> {
        let office = &*self.books.dead_letters;
        let (Some(queue), Some(why)) = (&filter.queue, &filter.why) else {
            return Err(QuestionError::Refused("say which queue, and why".into()));
        };
        let of = known(office, queue).await?.letters;
        // One that is meant may be behind all the others.
        let all = usize::try_from(of).unwrap_or(usize::MAX).max(MOST);
        let most = if filter.id.is_some() { all } else { MOST };
        let mut dropped = 0;
        loop {
            let held = office.read(queue, most).await?;
            let meant: Vec<&Held> = held
                .iter()
                .filter(|held| filter.id.as_ref().is_none_or(|id| *id == held.letter.id))
                .collect();
            if meant.is_empty() {
                break;
            }
            for held in meant {
                self.keep_dropped(queue, held, why, now).await?;
                office.discard(queue, held).await?;
                dropped += 1;
                progress(dropped, of.max(dropped));
            }
        }
        match &filter.id {
            Some(id) if dropped == 0 => Err(QuestionError::Refused(format!(
                "{queue} has no dead letter {id}; kassa dead-letters show --queue {queue} lists them"
            ))),
            _ => Ok(dropped),
        }
    }

    /// Appends the event that says why.
    async fn keep_dropped(
        &self,
        queue: &str,
        held: &Held,
        why: &Why,
        now: Timestamp,
    ) -> Result<(), QuestionError> {
        let letter = DroppedLetter { queue: queue.to_owned(), message: held.letter.id.clone() };
        let dropped = Dropped { letter: Some(letter), why: why.as_str().to_owned(), times: None };
        let (shop_id, sale_id) = whose(&held.letter)?;
        let trace = held.message.trace();
        let event = Event { shop_id, sale_id, at: now, trace, fact: Fact::Dropped(dropped) };
        let event = self.ends(queue, &held.message, why, now).await?.unwrap_or(event);
        // If it is there, it was dropped before.
        self.books.events.append(&event).await?;
        Ok(())
    }

    /// The end of the sale, if it came to none because of this message.
    async fn ends(
        &self,
        queue: &str,
        message: &Message,
        why: &Why,
        now: Timestamp,
    ) -> Result<Option<Event>, QuestionError> {
        let Some(stuck) = Stuck::of(queue, message) else { return Ok(None) };
        let finder = Finder { store: self.books.events.clone() };
        if !finder.is_unjudged((&stuck.shop_id, &stuck.sale_id), &stuck.envelope).await? {
            return Ok(None);
        }
        let rejected = Rejected {
            reason: Reason::Dropped,
            detail: format!("given up by {queue}: {}", why.as_str()),
            sealed_with: None,
            till: stuck.till,
            envelope: stuck.envelope,
            attempt: stuck.attempt,
        };
        let Stuck { shop_id, sale_id, trace, .. } = stuck;
        Ok(Some(Event { shop_id, sale_id, at: now, trace, fact: Fact::Rejected(rejected) }))
    }
}

/// A sale on its way, as a message of the core says.
struct Stuck {
    shop_id: ShopId,
    sale_id: SaleId,
    /// Hash of the envelope.
    envelope: String,
    till: Option<TillId>,
    attempt: u32,
    trace: Option<TraceContext>,
}

impl Stuck {
    fn of(queue: &str, message: &Message) -> Option<Self> {
        let (shop_id, sale_id, envelope, till, origin) = match queue {
            Decrypt::NAME => {
                let AcceptedSale { shop_id, sale_id, envelope, origin } = message.read().ok()?;
                (shop_id, sale_id, claim_check::hash(envelope), None, origin)
            }
            Process::NAME => {
                let sale: DecryptedSale = message.read().ok()?;
                let till = sale.till_id();
                let DecryptedSale { shop_id, sale_id, envelope, origin, .. } = sale;
                (shop_id, sale_id, envelope, till, origin)
            }
            // Whoever else hears of a sale does not decide what becomes of it.
            _ => return None,
        };
        Some(Self { shop_id, sale_id, envelope, till, attempt: origin.attempt, trace: origin.trace })
    }
}

/// Under which sale a letter's event stands. What names none stands by itself, under the shop `none`.
fn whose(letter: &Letter) -> Result<(ShopId, SaleId), QuestionError> {
    if let (Some(shop), Some(sale)) = (&letter.shop_id, &letter.sale_id) {
        return Ok((shop.clone(), sale.clone()));
    }
    let none = "none";
    let hash = digest(&SHA256, letter.id.as_bytes());
    let number = hash.as_ref().iter().take(7).fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    let day = letter.at.to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y%m%d");
    let sale = format!("{number}-{day}").parse().unwrap_or_else(|_| SaleId::new(letter.at));
    let shop = none.parse().map_err(|why| QuestionError::NotAShopId(none.into(), why))?;
    Ok((shop, sale))
}

async fn known(office: &dyn DeadLetterOffice, queue: &str) -> Result<Given, QuestionError> {
    let mut queues = office.queues().await?;
    if let Some(at) = queues.iter().position(|given| given.queue == queue) {
        return Ok(queues.swap_remove(at));
    }
    let names: Vec<&str> = queues.iter().map(|given| &*given.queue).collect();
    Err(QuestionError::Refused(format!("there is no queue {queue}; there are: {}", names.join(", "))))
}
