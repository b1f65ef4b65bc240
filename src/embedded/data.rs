//! The data folder: layout, lock, and who has it open.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::database::{index_of, log_of};
use super::key_file::is_key;

/// A data folder that is ours alone while this lives.
///
/// ```text
/// kassa-data/            0700
///   shop.lock            0600  locked by whoever has it open; says where to ask
///   shop.db              the tables (SQLite, with -wal and -shm)
///   keys/AMIS1.pem       0600  private keys
/// ```
///
/// One that cannot be written to is asked by way of a copy of its tables.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    made: Made,
    /// Where the tables are, if they can only be read.
    copy: Option<TempDir>,
    /// A folder that cannot be written to may have none.
    lock: Option<File>,
}

/// What was not there before this start, and is gone after it unless the shop opens.
#[derive(Debug, Default)]
struct Made {
    files: Vec<PathBuf>,
    /// The innermost first.
    folders: Vec<PathBuf>,
}

impl Made {
    /// The folder itself, and those it is in.
    fn folder(path: &Path) -> Self {
        let folders = path.ancestors().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists());
        Self { files: Vec::new(), folders: folders.map(Path::to_owned).collect() }
    }

    /// And what will be in it, once nobody else can make any of it.
    fn with_shop(mut self, path: &Path, lock: bool) -> Self {
        let (database, keys) = (path.join(DATABASE), path.join(KEYS));
        // What a database was written is in its log, also where the one of the two is lost.
        if ![&database, &log_of(&database)].into_iter().any(|file| file.exists()) {
            self.files = vec![log_of(&database), index_of(&database), database];
        }
        if lock {
            self.files.push(path.join(LOCK));
        }
        if !keys.exists() {
            self.folders.insert(0, keys);
        }
        self
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
        for folder in &self.folders {
            // Of keys that were made for a shop that never was.
            if folder.ends_with(KEYS) {
                let _ = fs::remove_dir_all(folder);
            }
            let _ = fs::remove_dir(folder);
        }
    }
}

/// A shop's folder, if none is named.
pub const DATA: &str = "./kassa-data";

/// The tables, in a data folder and in a backup.
pub(super) const DATABASE: &str = "shop.db";

/// The folder of keys, in a data folder and in a backup.
pub(super) const KEYS: &str = "keys";

/// Whoever has locked it has the shop.
const LOCK: &str = "shop.lock";

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
    #[error("cannot look into {}: {why}; run kassa as the user whose shop it is", folder.display())]
    Unreadable { folder: PathBuf, why: std::io::Error },
    #[error("{} cannot be written to, so it can be asked, and nothing in it changed; copy it to where it can be", folder.display())]
    ReadOnly { folder: PathBuf },
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
        let (made, lock) = (Made::folder(path), !path.join(LOCK).exists());
        path.parent().map_or(Ok(()), fs::create_dir_all).map_err(io)?;
        // The mode of one that is there is its owner's affair: what is made in it is private by itself.
        match DirBuilder::new().mode(0o700).create(path) {
            Err(why) if why.kind() != ErrorKind::AlreadyExists || !path.is_dir() => return Err(io(why)),
            _ => {}
        }
        let folder = Self::lock_patiently(path).await?;
        match folder.copy {
            None => Ok(Self { made: made.with_shop(path, lock), ..folder }),
            Some(_) => Err(OpenError::ReadOnly { folder: path.to_owned() }),
        }
    }

    /// Has what was made for the shop stay: it is open.
    pub fn keep(&mut self) {
        self.made.files.clear();
        self.made.folders.clear();
    }

    /// # Errors
    /// [`OpenError::ReadOnly`] if nothing in it can be changed.
    pub fn writable(&self) -> Result<(), OpenError> {
        match self.copy {
            None => Ok(()),
            Some(_) => Err(OpenError::ReadOnly { folder: self.path.clone() }),
        }
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
        match path.join(DATABASE).try_exists() {
            Ok(true) => Ok(()),
            Ok(false) => Err(OpenError::Nothing { folder: path.to_owned() }),
            Err(why) => Err(OpenError::Unreadable { folder: path.to_owned(), why }),
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
        let file = path.join(LOCK);
        let mut writing = OpenOptions::new();
        writing.read(true).write(true).create(true).truncate(false).mode(0o600);
        let opened = match writing.open(&file) {
            // Whoever can write there may have it open all the same.
            Err(why) if is_read_only(&why) => match File::open(&file) {
                Err(why) if why.kind() == ErrorKind::NotFound => return Self::copied(path, None),
                opened => opened,
            },
            opened => opened,
        };
        let mut lock = opened.map_err(io)?;
        match lock.try_lock() {
            // Whoever had it may have failed to open it, and have removed it meanwhile.
            Ok(()) if !is_at(&lock, &file) => Err(OpenError::Busy { folder: path.to_owned() }),
            Ok(()) if !can_be_written(path) => Self::copied(path, Some(lock)),
            Ok(()) => {
                // What stands there is of somebody who is gone.
                lock.set_len(0).map_err(io)?;
                Ok(Self { path: path.to_owned(), made: Made::default(), copy: None, lock: Some(lock) })
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

    /// A folder that stays as it is: `SQLite` asks only what it can write beside.
    fn copied(path: &Path, lock: Option<File>) -> Result<Self, OpenError> {
        let copied = || {
            let copy = tempfile::Builder::new().prefix("kassa-").tempdir()?;
            let database = path.join(DATABASE);
            copy_file(&database, &copy.path().join(DATABASE))?;
            match copy_file(&log_of(&database), &log_of(&copy.path().join(DATABASE))) {
                Err(why) if why.kind() != ErrorKind::NotFound => Err(why),
                _ => Ok(copy),
            }
        };
        let copy = copied().map_err(|why| OpenError::Unreadable { folder: path.to_owned(), why })?;
        Ok(Self { path: path.to_owned(), made: Made::default(), copy: Some(copy), lock })
    }

    /// Says in the lock file where we answer.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn announce(&mut self, occupant: &Occupant) -> Result<(), OpenError> {
        let text = serde_json::to_vec(occupant).map_err(std::io::Error::other);
        let written = text.and_then(|text| {
            let Some(lock) = &mut self.lock else { return Ok(()) };
            lock.set_len(0)?;
            lock.rewind()?;
            lock.write_all(&text)
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
        self.copy.as_ref().map_or(&*self.path, TempDir::path).join(DATABASE)
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

fn is_read_only(why: &std::io::Error) -> bool {
    matches!(why.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

/// Whether a file is the one that has this name now.
fn is_at(file: &File, path: &Path) -> bool {
    let is = |about: fs::Metadata| (about.dev(), about.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(file), Ok(there)) => is(file) == is(there),
        _ => false,
    }
}

/// Whether the tables in a folder can be written, and the log beside them. What else may be wrong shows when they are opened.
fn can_be_written(path: &Path) -> bool {
    let beside = tempfile::tempfile_in(path).map(drop);
    let tables = OpenOptions::new().write(true).open(path.join(DATABASE)).map(drop);
    [beside, tables].iter().all(|tried| !matches!(tried, Err(why) if is_read_only(why)))
}

/// Copies a file into one that is its owner's only, whatever the mode of the first.
fn copy_file(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut from = File::open(from)?;
    let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    std::io::copy(&mut from, &mut to).map(drop)
}
