use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use kassa_bus::error::chain;
use kassa_bus::webhook::{InvalidSecret, Secret};
use zeroize::Zeroizing;

/// The secrets a delivery may be signed with: one, or two while it is being replaced.
pub struct Secrets {
    file: Option<PathBuf>,
    known: Mutex<Known>,
}

struct Known {
    secrets: Arc<[Secret]>,
    /// The file's, when it was read.
    modified: Option<SystemTime>,
}

/// Why there are no secrets to check with.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    #[error(transparent)]
    Invalid(#[from] InvalidSecret),
    #[error("there is no webhook secret in the file")]
    None,
    #[error("cannot read the file with the webhook secret")]
    Unreadable(#[from] std::io::Error),
}

impl Secrets {
    /// Secrets separated by white space. None at all is a warehouse that SNS alone delivers to.
    ///
    /// # Errors
    /// [`SecretsError::Invalid`].
    pub fn given(text: &str) -> Result<Self, SecretsError> {
        let known = Known { secrets: parse(text)?, modified: None };
        Ok(Self { file: None, known: Mutex::new(known) })
    }

    /// Secrets of a file, read again when it changes.
    ///
    /// # Errors
    /// [`SecretsError`].
    pub fn of_file(file: PathBuf) -> Result<Self, SecretsError> {
        let modified = fs::metadata(&file)?.modified().ok();
        let secrets = read(&file)?;
        Ok(Self { file: Some(file), known: Mutex::new(Known { secrets, modified }) })
    }

    /// Whether there is none, so that no delivery could be verified.
    #[must_use]
    pub fn none(&self) -> bool {
        self.live().is_empty()
    }

    /// Those that hold now. A file that cannot be used changes nothing, so that a slip while replacing a
    /// secret does not shut the door.
    pub(super) fn live(&self) -> Arc<[Secret]> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &self.file {
            let modified = fs::metadata(file).and_then(|metadata| metadata.modified()).ok();
            if modified != known.modified {
                known.modified = modified;
                match read(file) {
                    Ok(secrets) => known.secrets = secrets,
                    Err(error) => tracing::error!(why = chain(&error), "the secrets of before are kept"),
                }
            }
        }
        Arc::clone(&known.secrets)
    }
}

fn read(file: &PathBuf) -> Result<Arc<[Secret]>, SecretsError> {
    let text = Zeroizing::new(fs::read_to_string(file)?);
    let secrets = parse(&text)?;
    if secrets.is_empty() { Err(SecretsError::None) } else { Ok(secrets) }
}

fn parse(text: &str) -> Result<Arc<[Secret]>, SecretsError> {
    Ok(text.split_whitespace().map(str::parse).collect::<Result<_, InvalidSecret>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const NEW: &str = "whsec_3q2+796tvu/erb7v3q2+796tvu/erb7v3q2+796tvu8=";

    fn write(file: &std::path::Path, text: &str, at: u64) {
        fs::write(file, text).unwrap();
        let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(at);
        fs::File::open(file).unwrap().set_modified(at).unwrap();
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        write(&file, OLD, 1);
        let secrets = Secrets::of_file(file.clone()).unwrap();
        assert_eq!(secrets.live().len(), 1);
        write(&file, &format!("{NEW}\n{OLD}\n"), 2);
        assert_eq!(secrets.live().len(), 2);
        for (at, broken) in [(3, ""), (4, "not a secret")] {
            write(&file, broken, at);
            assert_eq!(secrets.live().len(), 2);
        }
        fs::remove_file(&file).unwrap();
        assert_eq!(secrets.live().len(), 2);
        write(&file, NEW, 5);
        assert_eq!(secrets.live().len(), 1);
    }

    #[test]
    fn what_is_no_secret_is_told_at_the_start() {
        assert!(matches!(Secrets::given("whsec_AAAA"), Err(SecretsError::Invalid(_))));
        assert_eq!(Secrets::given("").unwrap().live().len(), 0);
        assert!(matches!(Secrets::of_file("/nowhere".into()), Err(SecretsError::Unreadable(_))));
    }
}
