//! A backup of a shop on one machine: its tables as they were at one moment, its keys, and a list of what belongs to it.
//!
//! `backup` makes one of a shop that may be open and selling, `restore` makes a shop of one. Nothing else is a backup: what
//! is copied while the shop writes is of several moments at once.

/// From a shop to a backup.
mod make;
/// From a backup to a shop.
mod restore;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use make::backup;
pub use restore::restore;

use super::data::{DATABASE, DataFolder, KEYS, MANIFEST, OpenError};
use super::database::{self, DatabaseError};
use super::dynamodb::Sync;
use super::examine::examine;
use super::keys::FileKeys;
use super::store::{Store, StoreError};
use crate::custody::CustodyError;

/// Hears of how much of how much was done, in bytes.
pub type Progress<'a> = &'a (dyn Fn(Doing, u64, u64) + Send + std::marker::Sync);

/// What takes its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    Copying,
    Checking,
}

/// The form of manifests and folders that is written, and the newest that is read.
const FORMAT: u32 = 1;

/// What belongs to a backup: `backup.json`, which is written last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    /// The version of the command that made it.
    pub kassa: String,
    /// What was accepted before then is in it.
    pub at: Timestamp,
    pub files: Vec<Listed>,
}

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its path in the folder.
    pub name: String,
    pub bytes: u64,
    /// In hexadecimal digits, as sha256sum prints it.
    pub sha256: String,
}

/// Why there is no backup, or no shop made of one.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(transparent)]
    Data(#[from] OpenError),
    #[error("{} is there already; choose another folder: a backup replaces nothing", .0.display())]
    Exists(PathBuf),
    #[error(
        "{} is not empty; choose another --data, or move it away: a backup is restored where no shop is", .0.display()
    )]
    InUse(PathBuf),
    #[error("{} is no backup: it has no {MANIFEST}, which `kassa backup` writes last", .0.display())]
    NoBackup(PathBuf),
    #[error("{}: {why}", file.display())]
    Manifest { file: PathBuf, why: String },
    #[error("the backup is damaged: {} {why}; take another one", file.display())]
    Damaged { file: PathBuf, why: String },
    #[error("cannot write or read {}: {why}", path.display())]
    Io { path: PathBuf, why: std::io::Error },
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Custody(#[from] CustodyError),
}

impl BackupError {
    fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |why| Self::Io { path: path.to_owned(), why }
    }
}

/// Whether a folder is a shop that can be opened: its tables whole, its keys those that they know. Makes what it lacks, as
/// opening does.
async fn verify(folder: &Path, now: Timestamp, progress: Progress<'_>) -> Result<(), BackupError> {
    let (file, keys) = (folder.join(DATABASE), folder.join(KEYS));
    progress(Doing::Checking, 0, 0);
    database::verify(&file)?;
    let store = Store::open(Some(&file), Sync::Full).await?;
    let keys = FileKeys::open(&keys).map_err(BackupError::io(&keys))?;
    for (shop, kid) in examine(&keys, &store.registry, now).await? {
        tracing::warn!(%shop, %kid, "a key of long ago is gone, also from the shop this is of");
    }
    drop(store);
    // One file, with no log beside it.
    database::checkpoint(&file)?;
    for beside in [database::log_of(&file), database::index_of(&file)] {
        let _ = fs::remove_file(beside);
    }
    Ok(())
}

/// A folder that is being made beside the one it is to be, and is gone if that fails.
fn unfinished(to: &Path) -> Result<tempfile::TempDir, BackupError> {
    let beside = parent(to);
    fs::create_dir_all(beside).map_err(BackupError::io(beside))?;
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let (prefix, its_owners) = (format!("{name}.unfinished-"), fs::Permissions::from_mode(0o700));
    let folder = tempfile::Builder::new().prefix(&prefix).permissions(its_owners).tempdir_in(beside);
    folder.map_err(BackupError::io(beside))
}

/// Gives a folder its name, once the disk has all of it.
fn finish(folder: tempfile::TempDir, to: &Path) -> Result<(), BackupError> {
    let keys = folder.path().join(KEYS);
    for folder in
        folders(&keys).map_err(BackupError::io(&keys))?.iter().map(PathBuf::as_path).chain([folder.path()])
    {
        sync(folder)?;
    }
    fs::rename(folder.path(), to).map_err(BackupError::io(to))?;
    // What it was made as is no more.
    let _ = folder.keep();
    sync(parent(to))
}

/// Makes a folder that its owner alone may look into, if it is not there.
fn make_folder(folder: &Path) -> Result<(), BackupError> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(BackupError::io(folder))
}

fn parent(of: &Path) -> &Path {
    of.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Has the disk know what is in a folder.
fn sync(folder: &Path) -> Result<(), BackupError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(BackupError::io(folder))
}

/// A folder, and those in it; nothing, if it is not there.
fn folders(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut found = vec![folder.to_owned()];
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;

/// Reads a file of a backup, and says what it was. `each` gets its parts.
fn read(
    file: &Path,
    name: &str,
    mut each: impl FnMut(&[u8]) -> Result<(), BackupError>,
) -> Result<Listed, BackupError> {
    let mut source = File::open(file).map_err(BackupError::io(file))?;
    let (mut hash, mut bytes, mut chunk) = (Context::new(&SHA256), 0, vec![0; CHUNK]);
    loop {
        let read = source.read(&mut chunk).map_err(BackupError::io(file))?;
        let Some(part @ [_, ..]) = chunk.get(..read) else { break };
        hash.update(part);
        each(part)?;
        bytes += read as u64;
    }
    let sha256 = hash.finish().as_ref().iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    Ok(Listed { name: name.to_owned(), bytes, sha256 })
}

/// Copies a file to the disk, readable by its owner only, and says what it was. `progress` hears of each part's bytes.
fn copy(from: &Path, to: &Path, name: &str, mut progress: impl FnMut(u64)) -> Result<Listed, BackupError> {
    let target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
    let mut target = target.map_err(BackupError::io(to))?;
    let listed = read(from, name, |part| {
        progress(part.len() as u64);
        target.write_all(part).map_err(BackupError::io(to))
    })?;
    target.sync_all().map_err(BackupError::io(to))?;
    Ok(listed)
}

/// Of a manifest, what any form of it has.
#[derive(Deserialize)]
struct Form {
    format: u32,
}

impl Manifest {
    /// The manifest of a backup, if this folder is one.
    fn read(folder: &Path) -> Result<Self, BackupError> {
        let file = folder.join(MANIFEST);
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(BackupError::NoBackup(folder.to_owned()));
            }
            Err(why) => return Err(BackupError::Io { path: file, why }),
        };
        let wrong = |why: String| BackupError::Manifest { file: file.clone(), why };
        let unreadable =
            |e: serde_json::Error| wrong(format!("the manifest is damaged ({e}); take another backup"));
        let Form { format } = serde_json::from_slice(&text).map_err(unreadable)?;
        if format > FORMAT {
            return Err(wrong(format!(
                "the backup was made by a newer kassa (form {format}); use that, or a later one"
            )));
        }
        let manifest: Self = serde_json::from_slice(&text).map_err(unreadable)?;
        match manifest.files.iter().find(|file| !file.belongs()) {
            Some(listed) => Err(wrong(format!("it lists {:?}, which is no part of a shop", listed.name))),
            None => Ok(manifest),
        }
    }

    fn write(&self, folder: &Path) -> Result<(), BackupError> {
        let file = folder.join(MANIFEST);
        let written = serde_json::to_vec_pretty(self).map_err(std::io::Error::other).and_then(|text| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file)?;
            file.write_all(&text)?;
            file.write_all(b"\n")?;
            file.sync_all()
        });
        written.map_err(BackupError::io(&file))
    }

    /// All of its files together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

impl Listed {
    /// Whether it is the database, or in the folder of keys.
    fn belongs(&self) -> bool {
        let mut parts = Path::new(&self.name).components();
        let normal = parts.clone().all(|part| matches!(part, Component::Normal(_)));
        normal && (self.name == DATABASE || parts.next() == Some(Component::Normal(KEYS.as_ref())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_lists_nothing_outside_a_shop() {
        let belongs = |name: &str| Listed { name: name.into(), bytes: 0, sha256: String::new() }.belongs();
        for name in ["shop.db", "keys/AMIS1.pem", "keys/AMIS1/A.pem"] {
            assert!(belongs(name), "{name}");
        }
        for name in ["", "/etc/passwd", "../keys/AMIS1.pem", "keys/../../x", "shop.lock", "shop.db/x"] {
            assert!(!belongs(name), "{name}");
        }
    }
}
