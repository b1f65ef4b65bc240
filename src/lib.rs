//! The command `kassa`: the whole shop on one machine, a till, and questions about both.

/// `shops.toml`: which shops there are and what they sell.
pub mod shops;
/// The shop on one machine: everything AWS would be, in one process.
pub mod embedded;
/// What a till does: seal a sale and post it until it is accepted.
pub mod till;
/// What can be asked about sales, of an open shop and of a closed one.
pub mod questions;
/// Text for people: tables, colours, times.
pub mod show;
/// The guided tour.
pub mod demo;
/// The command line.
pub mod cli;
