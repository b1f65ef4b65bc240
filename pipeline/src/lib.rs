//! The core of Kassa. A sale meets these modules from top to bottom.

#![warn(clippy::print_stdout, clippy::print_stderr)]

/// Stage one: take the envelope, keep it, pass it on, answer.
pub mod accept;
/// Which rejected sales need attention.
pub mod attention;
/// Whether events and read models agree.
pub mod check;
/// Envelopes that are too large for a message.
pub mod claim_check;
/// Which events the read models contain.
pub mod contained;
/// What is inside an envelope, once it is open.
pub mod content;
/// Stage two: open the envelope.
pub mod decrypt;
/// How many envelopes of one sale's id are let in.
pub mod envelope_limit;
/// Whether an envelope that names no sale came before, as another.
pub mod first_use;
/// `accept` behind API Gateway.
#[cfg(feature = "lambda")]
pub mod gateway;
/// Opening an envelope, with whichever of its shop's keys it is under.
pub mod opener;
/// What a till is told of what became of its sale.
pub mod outcome;
/// One shop's pending sales, from one minute to the next.
pub mod pending;
/// RFC 9457 answers to a till.
pub mod problem;
/// By which of them a till decides.
pub mod problem_type;
/// Stage three: record the sale, once.
pub mod process;
/// Stage four: keep stock and turnover.
pub mod project;
/// How many sales are let in.
pub mod rates;
/// Read models anew from the events, while sales go on.
pub mod rebuild;
/// Once a minute: what came to no end is sent on its way again.
pub mod reconcile;
/// How a sale is rejected, by whichever stage.
pub mod reject;
/// `POST /shop`: from the request's bytes to an envelope.
pub mod request;
/// Whose word a sale is.
mod signature;
/// When it was sold, as its till writes it.
mod sold_at;
/// Once a minute: what is pending, which shop is silent, today against last week.
pub mod watch;

/// How far a projection has come, as its row says.
pub mod checkpoint;
/// The facts about a sale, and how old versions of them are read.
pub mod event;
/// The append-only table of events.
pub mod event_store;
/// Concurrent appends in one transaction.
pub mod group_commit;
/// A rebuild's right to write rows, for a while.
pub mod hold;
/// When a day's last sale was recorded, and when that is believed.
pub mod last_at;
/// How many sales a silent shop would have had.
pub mod overdue;
/// Which items have rows of their own.
pub mod own_rows;
/// Sales that no look would find again.
pub mod pending_rows;
/// Which rows a sale changes, by how much; and how far a projection has come.
pub mod posting;
/// How far in time something has come.
pub mod progress_row;
/// Stock and turnover: the table they are in.
pub mod read_model;
/// Its rows as questions show them.
pub mod row;
/// How a sale stands: settled or pending.
pub mod settlement;
/// One write for all who wait for the same.
pub mod shared_write;
/// When which sales are looked at.
pub mod sweep;
/// When what came to no end is tried again.
pub mod tries;
/// Finding those among all sales.
pub mod unsettled;
