//! What tests share: the shop in memory, the command, the emulated AWS, and what stands around a shop.
//!
//! A file of it uses others by `super::`, as benchmarks declare some of these files in their own roots.

/// The bootstraps that are deployed.
pub mod bootstraps;
/// Python with boto3.
pub mod boto;
/// The shop as `serverless deploy` puts it on an emulated AWS.
pub mod cloud;
/// A bootstrap over the stand-in of the Runtime API, and the events that AWS documents.
pub mod function;
/// A shop that an older version left.
pub mod old;
/// Whoever collects traces.
pub mod otlp;
/// A Postgres 15 of the test's own.
pub mod postgres;
/// The real command, run as a user runs it.
pub mod process;
/// A reverse proxy in front of an AWS endpoint: it counts, and injects faults.
pub mod proxy;
/// The way from the shop to the warehouse, which can be made a bad one.
pub mod road;
/// A stand-in for the Lambda Runtime API.
pub mod runtime_api;
/// A receiver on a Postgres of its own, and whoever delivers to it.
pub mod warehouse;
/// A whole shop in memory, with its messages and its clock in the test's hands.
pub mod world;

/// The `content_base64` of a classic envelope that no key opens.
pub fn unopenable() -> String {
    format!("{}QQ==", "QUFB".repeat(85))
}
