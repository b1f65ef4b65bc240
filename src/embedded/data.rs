//! The data folder: layout, lock, and who has it open.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::key_file::is_key;

/// A data folder that is ours alone while this lives.
///
/// ```text
/// kassa-data/            0700
///   shop.lock            0600  locked by whoever has it open; says where to ask
///   shop.db              the tables (SQLite, with -wal and -shm)
///   keys/AMIS1.pem       0600  private keys
/// ```
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    lock: File,
}

/// A shop's folder, if none is named.
pub const DATA: &str = "./kassa-data";

/// The tables, in a data folder and in a backup.
pub(super) const DATABASE: &str = "shop.db";

/// The folder of keys, in a data folder and in a backup.
pub(super) const KEYS: &str = "keys";

/// What a backup has and a shop has not.
pub(super) const MANIFEST: &str = "backup.json";

/// Whoever has a data folder open, and where it answers questions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occupant {
    pub pid: u32,
    /// Where tills post.
    pub url: String,
    /// Where questions are answered.
    pub operator_url: String,
    /// What a question must carry: the lock file is its owner's to read.
    pub token: String,
}

/// Why a data folder cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the shop in {} is open already (process {}, {}); stop it first, or choose another --data", folder.display(), by.pid, by.url)]
    Open { folder: PathBuf, by: Box<Occupant> },
    #[error("another kassa has {} open but does not say where; wait for it to end, or choose another --data", folder.display())]
    Busy { folder: PathBuf },
    #[error("there is no shop in {}; `kassa up --data {0}` opens one", folder.display())]
    Nothing { folder: PathBuf },
    #[error("{} is a backup, and stays as it is; `kassa restore {0}` makes a shop of it", folder.display())]
    Backup { folder: PathBuf },
    #[error("cannot use {} as data folder: {why}", folder.display())]
    Io { folder: PathBuf, why: std::io::Error },
}

/// How long whoever has the folder is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

impl DataFolder {
    /// Takes the folder for ourselves, making it if need be.
    ///
    /// # Errors
    /// [`OpenError::Open`] or [`OpenError::Busy`] if somebody else has it.
    pub async fn create(path: &Path) -> Result<Self, OpenError> {
        let io = |why| OpenError::Io { folder: path.to_owned(), why };
        no_backup(path)?;
        fs::create_dir_all(path).map_err(io)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(io)?;
        Self::lock_patiently(path).await
    }

    /// Takes a folder that has a shop in it.
    ///
    /// # Errors
    /// As [`DataFolder::create`], and [`OpenError::Nothing`].
    pub async fn existing(path: &Path) -> Result<Self, OpenError> {
        Self::has_shop(path)?;
        Self::lock_patiently(path).await
    }

    /// Whether there is a shop in a folder, open or closed.
    ///
    /// # Errors
    /// [`OpenError::Nothing`], or [`OpenError::Backup`].
    pub fn has_shop(path: &Path) -> Result<(), OpenError> {
        no_backup(path)?;
        if path.join(DATABASE).exists() {
            Ok(())
        } else {
            Err(OpenError::Nothing { folder: path.to_owned() })
        }
    }

    /// Who has it and does not say where is just opening it, or asks a closed shop something: soon that is over.
    async fn lock_patiently(path: &Path) -> Result<Self, OpenError> {
        let begun = Instant::now();
        loop {
            match Self::lock(path) {
                Err(OpenError::Busy { .. }) if begun.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                outcome => return outcome,
            }
        }
    }

    fn lock(path: &Path) -> Result<Self, OpenError> {
        let io = |why| OpenError::Io { folder: path.to_owned(), why };
        let file = path.join("shop.lock");
        let options =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(file);
        let mut lock = options.map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {
                // What stands there is of somebody who is gone.
                lock.set_len(0).map_err(io)?;
                Ok(Self { path: path.to_owned(), lock })
            }
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                lock.read_to_string(&mut text).map_err(io)?;
                let folder = path.to_owned();
                Err(match serde_json::from_str(&text) {
                    Ok(by) => OpenError::Open { folder, by: Box::new(by) },
                    Err(_) => OpenError::Busy { folder },
                })
            }
            Err(TryLockError::Error(why)) => Err(io(why)),
        }
    }

    /// Says in the lock file where we answer.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn announce(&mut self, occupant: &Occupant) -> Result<(), OpenError> {
        let text = serde_json::to_vec(occupant).map_err(std::io::Error::other);
        let written = text.and_then(|text| {
            self.lock.set_len(0)?;
            self.lock.rewind()?;
            self.lock.write_all(&text)
        });
        written.map_err(|why| OpenError::Io { folder: self.path.clone(), why })
    }

    /// Whether there are keys and no tables: a shop that was never opened has neither.
    #[must_use]
    pub fn lost_its_database(&self) -> bool {
        let keys = fs::read_dir(self.keys()).into_iter().flatten().flatten();
        let is_empty = fs::metadata(self.database()).map_or(true, |database| database.len() == 0);
        is_empty && keys.into_iter().any(|entry| is_key(&entry.path()))
    }

    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    #[must_use]
    pub fn keys(&self) -> PathBuf {
        self.path.join(KEYS)
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn no_backup(path: &Path) -> Result<(), OpenError> {
    if path.join(MANIFEST).exists() { Err(OpenError::Backup { folder: path.to_owned() }) } else { Ok(()) }
}
