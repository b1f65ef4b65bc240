use jiff::{SignedDuration, Timestamp};
use kassa_bus::SaleId;
use serde::Serialize;

use super::journal::{Refusal, State};
use crate::show::table;

/// How a till's journal stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JournalStatus {
    pub shop: String,
    pub till: String,
    /// Where its sales go.
    pub address: String,
    /// Rung up so far.
    pub journalled: u64,
    /// Answered with yes.
    pub sent: u64,
    /// Not answered yet.
    pub waiting: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest: Option<Oldest>,
    pub refused: Vec<Refusal>,
    /// Bytes at the end that were being written when the till died; they were not rung up.
    pub torn_bytes: u64,
    /// Entries that the disk has lost.
    pub damaged: usize,
}

/// The sale that has waited longest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Oldest {
    pub sale_id: SaleId,
    pub rung_up_at: Timestamp,
    pub waited_seconds: i64,
}

impl JournalStatus {
    #[must_use]
    pub fn of([shop, till, address]: [String; 3], state: &State, now: Timestamp) -> Self {
        let oldest = state.oldest().map(|oldest| Oldest {
            sale_id: oldest.sale_id.clone(),
            rung_up_at: oldest.at,
            waited_seconds: now.duration_since(oldest.at).as_secs().max(0),
        });
        Self {
            shop,
            till,
            address,
            journalled: state.journalled,
            sent: state.accepted,
            waiting: state.waiting.len() as u64,
            oldest,
            refused: state.refused.clone(),
            torn_bytes: state.torn,
            damaged: state.damaged,
        }
    }
}

/// As people read it.
#[must_use]
pub fn text(tills: &[JournalStatus]) -> String {
    if tills.is_empty() {
        return "No till of this machine has a journal.\n".into();
    }
    let mut rows = table(["shop", "till", "at", "journalled", "sent", "wait", "the oldest for", "refused"]);
    let mut more = String::new();
    for till in tills {
        let waited = till.oldest.as_ref().map_or(String::new(), |oldest| {
            format!("{:#}", SignedDuration::from_secs(oldest.waited_seconds))
        });
        rows.add_row([
            till.shop.clone(),
            till.till.clone(),
            till.address.clone(),
            till.journalled.to_string(),
            till.sent.to_string(),
            till.waiting.to_string(),
            waited,
            till.refused.len().to_string(),
        ]);
        for Refusal { sale_id, status, detail } in &till.refused {
            more.push_str(&format!(
                "{} {}: sale {sale_id} was refused: {status} {detail}\n",
                till.shop, till.till
            ));
        }
        if till.torn_bytes > 0 {
            more.push_str(&format!(
                "{} {}: a sale was being written when the till stopped; it was not rung up\n",
                till.shop, till.till
            ));
        }
        if till.damaged > 0 {
            more.push_str(&format!(
                "{} {}: the disk has lost {} entries\n",
                till.shop, till.till, till.damaged
            ));
        }
    }
    format!("{rows}\n{more}")
}
