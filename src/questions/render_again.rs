use serde::Serialize;

use super::preview::{Preview, Previewed, RowChange, Would};
use super::reconcile::Reconciled;
use super::rejected::ShownRejection;
use crate::dead_letters::{Given, Letter};
use crate::show::{money, table};

/// What has become of sales that were put through again. Of those that were rejected again, `detail` says why.
#[derive(Debug, Default, Serialize)]
pub struct Came {
    pub recorded: Vec<ShownRejection>,
    pub rejected: Vec<ShownRejection>,
    pub pending: Vec<ShownRejection>,
}

/// Rejected sales, and how to go on. `reach` is what another command needs to be told to ask the same shop.
#[must_use]
pub fn rejected(found: &[ShownRejection], reach: &str) -> String {
    let Some(first) = found.first() else { return "No sale is rejected that is not recorded.\n".into() };
    let of = format!("--shop {} --reason {}", first.shop_id, first.reason);
    let owner = first.sealed_with.as_ref().and_then(|key| key.shop_id.as_ref());
    let with = owner.filter(|owner| **owner != first.shop_id);
    let with = with.map_or(String::new(), |owner| format!(" --opened-with {owner}"));
    format!(
        "{}\n{} in all. Once it is mended: kassa retry {of}{with} --dry-run{reach}\n\
         If it cannot be: kassa drop {of} --why …{reach}\n",
        listed(found),
        found.len()
    )
}

fn listed(found: &[ShownRejection]) -> String {
    let mut rows = table(["shop", "sale", "rejected (UTC)", "tries", "reason", "what is wrong", "from"]);
    for found in found {
        rows.add_row([
            found.shop_id.to_string(),
            found.sale_id.to_string(),
            found.rejected_at.strftime("%F %T").to_string(),
            found.attempt.to_string(),
            found.reason.to_string(),
            found.detail.clone(),
            found.source.clone(),
        ]);
    }
    rows.to_string()
}

/// What would become of rejected sales.
#[must_use]
pub fn preview(preview: &Preview) -> String {
    if preview.sales.is_empty() {
        return "No such sale is rejected.\n".into();
    }
    let mut sales = table(["sale", "would be", "what"]);
    for Previewed { rejected, would } in &preview.sales {
        let (be, what) = match would {
            Would::Recorded { lines, totals, business_date, till, signed_by } => {
                let line = |l: &kassa_bus::Line| {
                    format!("{} × {} = {}", l.gross_number, l.item_no, l.gross_turnover)
                };
                let lines: Vec<_> = lines.iter().map(line).collect();
                let till = till.as_ref().map_or(String::new(), |till| format!(" at {till}"));
                let signed = if signed_by.is_some() { "signed" } else { "not signed" };
                let total = money(totals.gross_turnover);
                let lines = lines.join("\n");
                ("recorded", format!("{lines}\ntotal {total}, booked on {business_date}{till}, {signed}"))
            }
            Would::Repeat => ("a repeat", "the same as another of these".to_owned()),
            Would::Rejected { reason, detail } => ("rejected again", format!("{reason}: {detail}")),
            Would::Unknown { why } => ("unknown", why.clone()),
        };
        sales.add_row([rejected.sale_id.to_string(), be.to_owned(), what]);
    }
    let mut rows = table(["shop", "row", "stock or sales", "turnover"]);
    for RowChange { shop_id, record_type, number, turnover } in &preview.rows {
        rows.add_row([
            shop_id.to_string(),
            record_type.clone(),
            format!("{} → {}", number[0], number[1]),
            format!("{} → {}", money(turnover[0]), money(turnover[1])),
        ]);
    }
    let rows = if preview.rows.is_empty() { String::new() } else { format!("\n{rows}\n") };
    format!("{sales}\n{rows}Nothing was changed.\n")
}

/// What became of them.
#[must_use]
pub fn came(came: &Came) -> String {
    let mut text = String::new();
    if !came.rejected.is_empty() {
        text.push_str(&format!("{}\n", listed(&came.rejected)));
    }
    let (recorded, rejected, pending) = (came.recorded.len(), came.rejected.len(), came.pending.len());
    text.push_str(&format!("{recorded} recorded, {rejected} rejected again, {pending} still on their way\n"));
    text
}

/// How much each queue gave up.
#[must_use]
pub fn dead_letters(queues: &[Given], reach: &str) -> String {
    let all: u64 = queues.iter().map(|given| given.letters).sum();
    let mut rows = table(["queue", "dead letters", "since"]);
    for Given { queue, letters, since } in queues {
        let since = since.map_or(String::new(), |since| since.strftime("%F %T").to_string());
        rows.add_row([queue.clone(), letters.to_string(), since]);
    }
    let next = if all == 0 {
        String::new()
    } else {
        format!(
            "kassa dead-letters show --queue …{reach} tells whose and why; once that is mended, kassa dead-letters redrive{reach} sends them back\n"
        )
    };
    format!("{rows}\n{next}")
}

/// A queue's dead letters.
#[must_use]
pub fn letters(queue: &str, letters: &[Letter]) -> String {
    if letters.is_empty() {
        return format!("{queue} has no dead letters.\n");
    }
    let mut rows = table(["since", "shop", "sale", "tried", "why", "id"]);
    for Letter { id, shop_id, sale_id, at, receives, why, bytes: _ } in letters {
        rows.add_row([
            at.strftime("%F %T").to_string(),
            shop_id.as_ref().map_or(String::new(), ToString::to_string),
            sale_id.as_ref().map_or(String::new(), ToString::to_string),
            receives.to_string(),
            why.as_deref().unwrap_or("in the function's log").to_owned(),
            id.clone(),
        ]);
    }
    format!("{rows}\n")
}

/// What was sent on its way.
#[must_use]
pub fn reconciled(done: &Reconciled) -> String {
    match (done.unsettled, done.published) {
        (0, _) => "Every accepted sale is recorded or rejected.\n".into(),
        (n, true) => {
            format!("{n} came to no end, and were sent on their way again; kassa check tells how they fare\n")
        }
        (n, false) => format!("{n} came to no end; none was sent on its way\n"),
    }
}
