//! The shop on AWS, as the command sees it. Enter it by `Stage::find`.
//!
//! AWS's clients are most of what there is to compile, and one machine needs none of them: they come with the feature
//! `aws`. Without it there is the same `Stage`, of which there never is one.

/// The event store's stream on AWS.
#[cfg(feature = "aws")]
mod changes;
/// A stage's console, served here.
mod console;
/// Dead letters in SQS.
#[cfg(feature = "aws")]
mod dead_letters;
/// Keys made in KMS.
#[cfg(feature = "aws")]
mod keys;
/// What stands in a stage's place in a build for one machine.
#[cfg(not(feature = "aws"))]
mod no_stage;
/// Point-in-time recovery, rehearsed and used.
pub mod restore;
/// A deployed stage, found by its name.
#[cfg(feature = "aws")]
mod stage;

use std::fmt;
use std::str::FromStr;

#[cfg(feature = "aws")]
pub use changes::{STREAM_LAG, StreamChanges};
pub use console::StageConsole;
#[cfg(feature = "aws")]
pub use dead_letters::SqsOffice;
#[cfg(feature = "aws")]
pub use keys::KmsKeyMaker;
#[cfg(not(feature = "aws"))]
pub use no_stage::Stage;
#[cfg(feature = "aws")]
pub use stage::Stage;

/// A stage's name, as `serverless deploy --stage` takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageName(String);

impl FromStr for StageName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let right = (1..=32).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if right { Ok(Self(text.to_owned())) } else { Err("a stage is letters, digits and '-', as dev") }
    }
}

impl fmt::Display for StageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a stage cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    #[error(
        "this kassa was built for one machine and has no AWS clients; `cargo install --path . --features aws` builds one \
         that has them"
    )]
    NotBuiltIn,
    #[error(
        "there is no stack {stack} in {region}: deploy it with `npx serverless deploy --stage {stage}`, or \
         choose another --stage, AWS_PROFILE or AWS_REGION"
    )]
    NotDeployed { stack: String, stage: String, region: String },
    #[error("AWS_ENDPOINT_URL is {0:?}, which is no http or https URL; set it to one, or unset it")]
    NotAnEndpoint(String),
    #[error("no AWS region is set; set AWS_REGION, or a region in the profile")]
    NoRegion,
    #[error(
        "cannot ask AWS about {stack} (are AWS_PROFILE or AWS_ACCESS_KEY_ID, and AWS_ENDPOINT_URL, as they should be?): {why}"
    )]
    Unreachable { stack: String, why: String },
    #[error("the stack {stack} has no output {output}; deploy it again with this version")]
    NoOutput { stack: String, output: &'static str },
    #[error("the table {0} has no stream")]
    NoStream(String),
}
