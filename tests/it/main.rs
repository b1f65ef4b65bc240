//! What the shop promises, held by tests: one program, as linking is most of what a test program costs.
//!
//! Modules stand below in the order a sale meets them: the pipeline's rules in memory, the shop on one machine, tills,
//! subscribers, the warehouse, those who watch over it all, the shop on AWS; then whatever breaks all of that; last the
//! project itself. `cargo nextest run --all-features --test it rules::` runs one of them, and `.config/nextest.toml` says which ones
//! need AWS's emulator or a browser.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

// A sale, from the till's request to the read models: a shop in memory, its messages and its clock in the test's hands.
mod again; // what was left behind is sent on its way again, what was rejected is put through
mod attention; // what was rejected needs attention until it is booked or given up
mod batch; // many sales in one request: each is answered for itself
mod counted; // what is counted, is counted once
mod outcome; // what a till is told of what became of its sale
mod replayed; // an envelope that names no sale is one sale, under whatever ids it comes
mod rotation; // a shop gets another key while its tills go on selling
mod rules; // every rule of the pipeline
mod signed;
mod sizes; // the largest sale goes through whole, what is larger is told so // what tills sign, what nobody signed, and what somebody forged

// The shop on one machine, through the command.
mod backup; // a backup of a shop that sells, and a shop of a backup
mod edge; // whoever wants to do harm: slow, large, malformed, too many; and TLS
mod local_bus; // the bus in one process: what each subscription may rely on
mod lost; // a key or a database that is lost or damaged is named, and replaced by nothing
mod opening; // killed at its first start, with a table missing, or left by an older version, a shop opens
mod shop; // the shop as its users have it

// Tills.
mod clients; // clients that share no code with us
mod impostor; // whatever answers in the shop's place is not believed
mod journals; // what a till's journal goes through: old ones, damaged ones, doubled ones
mod offline; // a till that is cut off loses nothing
mod sell; // `kassa sell`, as whoever types it has it
mod till; // a till against a shop that misbehaves

// Subscribers.
mod alerter; // what people hear of rejected sales
mod auditor; // whose key it was, what it looks like, what to do
mod conformance; // what every queue does sooner or later, done to every subscriber
mod documents; // a subscriber's documents, and any number of functions at once
mod subscribers; // subscribers in the shop on one machine
mod webhook; // what the warehouse gets, and what becomes of a sale it does not take

// The warehouse, with a real Postgres.
mod bounds; // what shop, webhook, warehouse and shops.toml take is the same
mod warehouse; // the receiver: every sale exactly once
mod warehouse_end_to_end; // from the till to the fact table, whatever fails between them
mod warehouse_process; // `kassa warehouse`: killed, stopped, and with TLS
mod warehouse_sns; // sales straight from a topic of SNS

// Those who watch over it.
mod alarms; // which alarms go off when, in simulated days
mod cloudwatch; // CloudWatch as a monitor: pages and refusals
mod console; // the console, in a browser and without one
mod dashboards; // dashboards, alarms and runbook say what there is
mod dead_letters; // what queues gave up: shown, sent back, dropped with a reason
mod emitted; // a busy shop says all of the catalogue
mod logs; // what functions write: little, and nothing of a sale
mod status; // whether the shop is all right, on one screen
mod traces; // one trace per sale
mod watch; // what is told once a minute
mod watched; // the shop on one machine watches itself

// The shop on AWS.
mod as_deployed; // what is built for it: how large
mod bootstraps; // the real bootstraps over a stand-in of the Runtime API
mod contracts; // one suite per port, over each of its adapters
mod deployed; // the shop on an emulated AWS, through its own HTTP API
mod deployed_dashboards; // its dashboards and alarms
mod deployed_restore; // its tables as they were: rehearsed, and put back
mod deployed_status; // its `kassa status`
mod deployed_subscribers; // its subscribers: functions, queues, tables, rights
mod deployed_upgrade; // a stage that an earlier version wrote
mod template; // the compiled template: what the emulator ignores

// Whatever breaks all of that.
mod chaos; // rounds in which everything fails that can
mod kill; // kill -9 at any moment
mod properties;
mod rows; // amounts at their ends, rows and events nobody can read, rebuilds that fail // any interleaving, repetition, loss, retry and crash

// The project.
mod fourth; // a fourth subscriber touches its own folder only
mod tidy; // the invariants of the README
