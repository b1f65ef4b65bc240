/// A backup of a shop, and a shop of a backup.
mod backup;
/// The data folder: layout, lock, and who has it open.
mod data;
/// The file that is the shop's tables: whether it is whole, and a copy of it.
mod database;
/// Where dead letters are kept.
mod dead_letters;
/// `DynamoDB` in this process: dynoxide behind the AWS SDK.
mod dynamodb;
/// Whether the files of keys are all that the registry knows.
mod examine;
/// What a subscriber may ask of the shop.
mod host;
/// The shop's listener for tills.
mod http;
/// One private key in a file.
mod key_file;
/// RSA keys in files.
mod keys;
/// What subscribers do every minute.
mod minutes;
/// `kassa up`: from a data folder to an open shop, and back.
mod open;
/// The shop's listener for questions.
mod operator;
/// Where notices are kept that would have gone to people.
mod outbox;
/// Queues that outlive the process.
mod queues;
/// Finishing what an earlier process left.
mod recover;
/// Showing the console what was rejected.
mod shown;
/// The pipeline's stages, as they are here.
mod stages;
/// Tables, keys and stages of one data folder.
mod store;
/// The event store's stream, of which `project` lives.
mod stream;

pub use backup::{BackupError, Doing, Listed, Manifest, backup, restore};
pub use data::{DATA, DataFolder, Occupant, OpenError};
pub use database::DatabaseError;
pub use dead_letters::LocalOffice;
pub use dynamodb::{Sync, Tables};
pub use examine::examine;
pub use host::LocalHost;
pub use keys::FileKeys;
pub use open::{OpenShop, Up, UpError};
pub use stages::Stages;
pub use store::{MONITOR, OUTBOX, Store, StoreError};
pub use stream::{LocalStream, SHARD};
