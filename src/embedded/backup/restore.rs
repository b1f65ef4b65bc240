use std::fs;
use std::path::Path;

use jiff::Timestamp;

use super::{BackupError, Doing, Manifest, Progress, copy, finish, make_folder, unfinished, verify};

/// Makes a shop in `data`, where there is nothing yet, of the backup in `from`, which stays as it is.
///
/// It is made beside, checked against the backup's list and as a shop that is to be opened, and given its name last.
///
/// # Errors
/// [`BackupError`]; nothing is left then.
pub async fn restore(
    from: &Path,
    data: &Path,
    now: Timestamp,
    progress: Progress<'_>,
) -> Result<Manifest, BackupError> {
    let manifest = Manifest::read(from)?;
    // An empty folder gives its place to what is renamed to it.
    match fs::read_dir(data).map(|mut entries| entries.next().is_none()) {
        Ok(true) => {}
        Ok(false) => return Err(BackupError::InUse(data.to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(why) => return Err(BackupError::Io { path: data.to_owned(), why }),
    }
    let folder = unfinished(data)?;
    let (of, mut done) = (manifest.bytes(), 0);
    for listed in &manifest.files {
        let (source, target) = (from.join(&listed.name), folder.path().join(&listed.name));
        let damaged = |why: &str| BackupError::Damaged { file: source.clone(), why: why.into() };
        if !source.is_file() {
            return Err(damaged("is missing"));
        }
        make_folder(target.parent().unwrap_or(folder.path()))?;
        let copied = copy(&source, &target, &listed.name, |bytes| {
            done += bytes;
            progress(Doing::Copying, done, of);
        })?;
        if copied != *listed {
            return Err(damaged("is not as it was written"));
        }
    }
    verify(folder.path(), now, progress).await?;
    finish(folder, data)?;
    Ok(manifest)
}
