//! File descriptors: a connection is one, and a shop that has none left cannot write either.

use rustix::process::{Resource, getrlimit, setrlimit};

/// As many as all connections and all files of a shop come to.
const WANTED: u64 = 4_096;

/// Allows this process as many descriptors as it may want, where that is its to say, and tells how many connections may have
/// one: three quarters of what there is.
pub fn for_connections() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(WANTED, |most| most.min(WANTED));
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = rustix::process::Rlimit { current: Some(wanted), ..limit };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => limit = raised,
            Err(error) => tracing::warn!(%error, "the limit of open files stays as it is"),
        }
    }
    let there = limit.current.unwrap_or(WANTED).min(WANTED);
    usize::try_from(there * 3 / 4).unwrap_or_default()
}
