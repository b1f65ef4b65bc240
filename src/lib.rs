//! The command `kassa`: the whole shop on one machine, a till, and questions about both.

// A full disk and a reader that has gone are told of in one place.
#![warn(clippy::print_stdout, clippy::print_stderr)]

/// The command line: what can be said.
pub mod args;
/// The command line: what is done about it.
pub mod cli;
/// The shop on AWS, as the command sees it.
pub mod cloud;
/// What the shop is doing, in a browser.
pub mod console;
/// What AWS asks for it: measured units times list prices.
pub mod cost;
/// Whether the keys that are there are those that the registry knows.
pub mod custody;
/// What was given up by a queue, and what somebody does about it.
pub mod dead_letters;
/// The guided tour.
pub mod demo;
/// The shop on one machine: everything AWS would be, in one process.
pub mod embedded;
/// A listener that waits for nobody too long.
pub mod listener;
/// What is known of a shop's health: metrics over time, alarms, dashboards.
pub mod monitor;
/// How traces leave this machine.
pub mod otlp;
/// What is told on stdout and stderr.
pub mod output;
/// What must change for a shop to be as `shops.toml` declares it.
pub mod plan;
/// What can be asked about sales, of an open shop and of a closed one.
pub mod questions;
/// How a shop gets another key.
pub mod rotation;
/// `shops.toml`: which shops there are and what they sell.
pub mod shops;
/// Text for people: tables, colours, times.
pub mod show;
/// Whether the shop is all right, on one screen.
pub mod status;
/// What a till does: seal a sale and post it until it is accepted.
pub mod till;
/// A listener that proves who it is.
pub mod tls;
/// The warehouse's end of the webhook: a receiver that loads sales into Postgres.
pub mod warehouse;
