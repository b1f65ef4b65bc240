use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::{
    BackupError, DATABASE, DataFolder, Doing, FORMAT, KEYS, Manifest, Progress, copy, database, finish,
    folders, make_folder, read, unfinished, verify,
};
use crate::embedded::key_file::is_key;

/// How often it is begun anew because a key was being rotated.
const TRIES: u32 = 3;

/// Makes a backup of the shop in `data`, which may be open, in the folder `to`, which is not there yet.
///
/// It is made beside, checked as a shop that is to be opened, and given its name last: what has the name is whole.
///
/// # Errors
/// [`BackupError`]; nothing is left then.
pub async fn backup(
    data: &Path,
    to: &Path,
    now: Timestamp,
    progress: Progress<'_>,
) -> Result<Manifest, BackupError> {
    DataFolder::has_shop(data)?;
    if to.symlink_metadata().is_ok() {
        return Err(BackupError::Exists(to.to_owned()));
    }
    let mut tries = 1;
    let (folder, keys) = loop {
        let folder = unfinished(to)?;
        match taken(data, folder.path(), now, progress).await {
            Ok(keys) => break (folder, keys),
            Err(error) if tries == TRIES || !may_be_rotating(&error) => return Err(error),
            Err(_) => tries += 1,
        }
    };
    let names = keys.into_iter().chain([DATABASE.into()]);
    let listed = names.map(|name| read(&folder.path().join(&name), &name.to_string_lossy(), |_| Ok(())));
    let files = listed.collect::<Result<_, _>>()?;
    let manifest = Manifest { format: FORMAT, kassa: env!("CARGO_PKG_VERSION").into(), at: now, files };
    manifest.write(folder.path())?;
    finish(folder, to)?;
    Ok(manifest)
}

/// The tables are of a moment before the keys: in between, a shop may have got another key, or a key another name.
fn may_be_rotating(error: &BackupError) -> bool {
    match error {
        BackupError::Custody(_) => true,
        BackupError::Io { why, .. } => why.kind() == ErrorKind::NotFound,
        _ => false,
    }
}

/// Copies tables and keys, and looks whether they are a shop. Gives the keys, by their paths in the folder.
async fn taken(
    data: &Path,
    to: &Path,
    now: Timestamp,
    progress: Progress<'_>,
) -> Result<Vec<PathBuf>, BackupError> {
    let copied = |done, of| progress(Doing::Copying, done, of);
    database::copy(&data.join(DATABASE), &to.join(DATABASE), &copied)?;
    let keys = keys_in(data)?;
    for key in &keys {
        make_folder(to.join(key).parent().unwrap_or(to))?;
        copy(&data.join(key), &to.join(key), "", |_| {})?;
    }
    verify(to, now, progress).await?;
    Ok(keys)
}

/// The files of keys, by their paths in the data folder.
fn keys_in(data: &Path) -> Result<Vec<PathBuf>, BackupError> {
    let mut keys = Vec::new();
    let all = data.join(KEYS);
    for folder in folders(&all).map_err(BackupError::io(&all))? {
        for entry in fs::read_dir(&folder).map_err(BackupError::io(&folder))? {
            let path = entry.map_err(BackupError::io(&folder))?.path();
            keys.extend(path.strip_prefix(data).ok().filter(|path| is_key(path)).map(Path::to_owned));
        }
    }
    keys.sort();
    Ok(keys)
}
