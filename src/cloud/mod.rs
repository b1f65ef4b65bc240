/// The event store's stream on AWS.
mod changes;
/// A stage's console, served here.
mod console;
/// Dead letters in SQS.
mod dead_letters;
/// Keys made in KMS.
mod keys;
/// A deployed stage, found by its name.
mod stage;

pub use changes::StreamChanges;
pub use console::StageConsole;
pub use dead_letters::SqsOffice;
pub use keys::KmsKeyMaker;
pub use stage::{Stage, StageError, StageName};
