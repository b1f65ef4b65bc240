//! What a till's journal tells people.

use jiff::{SignedDuration, Timestamp};
use kassa_bus::SaleId;
use serde::Serialize;

use super::journal::{Refused, State};
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
    /// Refused, and neither sent again nor dropped.
    pub refusals: u64,
    /// The first thousand of those.
    pub refused: Vec<Refused>,
    /// Refused, and given up by somebody.
    pub dropped: u64,
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
        let oldest = state.oldest.as_ref().map(|oldest| Oldest {
            sale_id: oldest.sale_id.clone(),
            rung_up_at: oldest.at,
            waited_seconds: now.duration_since(oldest.at).as_secs().max(0),
        });
        Self {
            shop,
            till,
            address,
            journalled: state.journalled,
            sent: state.sent,
            waiting: state.waiting,
            oldest,
            refusals: state.refusals,
            refused: state.refused.clone(),
            dropped: state.dropped,
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
            till.refusals.to_string(),
        ]);
        for Refused { sale_id, refusal, kept } in &till.refused {
            let gone = if *kept { "" } else { "; its body is gone" };
            more.push_str(&format!(
                "{} {}: sale {sale_id} was refused: {} {}{gone}\n",
                till.shop, till.till, refusal.status, refusal.detail
            ));
        }
        if till.refusals > 0 {
            let which = format!("--shop {} --till {}", till.shop, till.till);
            more.push_str(&format!(
                "Refused sales are kept: kassa till retry {which} sends them again, kassa till drop {which} --why … gives them up\n"
            ));
        }
    }
    format!("{rows}\n{more}")
}
