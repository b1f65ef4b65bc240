//! What `serverless deploy` builds for AWS, with `profile.lambda`: eight minutes of building, so `make test-all` has it.
//! Everything else is tested with the bootstraps of the tests' own build, which differ in optimisation alone.

use super::common::bootstraps::artifacts;

/// What Lambda loads at a cold start, in bytes, at most.
const LARGEST: u64 = 3_500_000;

#[test]
fn a_zip_is_small_enough_to_start_fast() {
    assert!(std::env::var_os("KASSA_ARTIFACTS").is_some(), "`make test-all` builds what is deployed");
    for room in ["pipeline", "subscribers"] {
        let size = std::fs::metadata(artifacts().join(format!("{room}.zip"))).unwrap().len();
        println!("{room}.zip: {size} bytes");
        assert!(size <= LARGEST, "{room}.zip has {size} bytes");
    }
}
