//! What a till keeps on its disk.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use kassa_bus::jws::Signer;
use kassa_bus::{ShopId, TillId};
use zeroize::Zeroizing;

use super::url::ShopUrl;

/// What a till keeps on its disk: `<folder>/<shop>/<till>`, for its owner only.
#[derive(Debug, Clone)]
pub struct TillFolder {
    path: PathBuf,
    /// What it can be enrolled as, if its name allows that.
    till: Option<TillId>,
}

/// What is wrong with a till's folder.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("{path}: {why}")]
    Io { path: String, why: std::io::Error },
    #[error("{0}: others can read this key; run chmod 600 on it")]
    Readable(String),
    #[error("{0} is not an Ed25519 private key in PKCS#8 PEM")]
    NotAKey(String),
    #[error("no key could be made: there is no randomness")]
    NoRandomness,
}

const KEY: &str = "till.key";
const JWK: &str = "till.jwk";
const SHOP_KEY: &str = "shop.jwk";
const PEM: &str = "PRIVATE KEY";

impl TillFolder {
    #[must_use]
    pub fn new(tills: &Path, shop: &ShopId, till: &TillId) -> Self {
        Self { path: tills.join(shop.as_str()).join(till.as_str()), till: Some(till.clone()) }
    }

    /// Of a till of any name. One that could not be enrolled has a folder whose name says so, in hexadecimal.
    #[must_use]
    pub fn named(tills: &Path, shop: &ShopId, name: &str) -> Self {
        let hex = || name.bytes().fold(String::from("~"), |hex, byte| format!("{hex}{byte:02x}"));
        match name.parse() {
            Ok(till) => Self::new(tills, shop, &till),
            Err(_) => Self {
                path: tills.join(shop.as_str()).join(hex().get(..200).map_or_else(hex, str::to_owned)),
                till: None,
            },
        }
    }

    /// Where the journal is of sales that go to this URL. What is sealed for one shop at one address is no other's.
    #[must_use]
    pub fn journal(&self, url: &ShopUrl) -> PathBuf {
        let url = url.to_string();
        let address = url.split_once("://").map_or(&*url, |(_, rest)| rest);
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        let name: String = address.chars().take(200).map(|c| if plain(c) { c } else { '_' }).collect();
        self.path.join(name.trim_start_matches('.'))
    }

    /// Where the public key is kept that the shop at this URL has.
    #[must_use]
    pub fn key_file(&self, url: &ShopUrl) -> PathBuf {
        self.journal(url).join(SHOP_KEY)
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the folder, if it is not there.
    ///
    /// # Errors
    /// [`FolderError::Io`].
    pub fn make(&self) -> Result<(), FolderError> {
        fs::create_dir_all(&self.path)
            .and_then(|()| fs::set_permissions(&self.path, fs::Permissions::from_mode(0o700)))
            .map_err(|why| failed(&self.path, why))
    }

    /// What the till signs with, if it has a key.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn signer(&self) -> Result<Option<Signer>, FolderError> {
        let Some(till) = &self.till else { return Ok(None) };
        let path = self.path.join(KEY);
        let shown = || path.display().to_string();
        let text = match fs::read_to_string(&path) {
            Ok(text) => Zeroizing::new(text),
            Err(why) if why.kind() == ErrorKind::NotFound => return Ok(None),
            Err(why) => return Err(failed(&path, why)),
        };
        let mode = fs::metadata(&path).map_err(|why| failed(&path, why))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(FolderError::Readable(shown()));
        }
        let pem = pem::parse(text.as_bytes()).map_err(|_| FolderError::NotAKey(shown()))?;
        let pkcs8 = Zeroizing::new(pem.into_contents());
        Signer::new(till, &pkcs8).map(Some).map_err(|_| FolderError::NotAKey(shown()))
    }

    /// What the till signs with, made if it has none. One that is there is never replaced.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn make_signer(&self) -> Result<Signer, FolderError> {
        if let Some(signer) = self.signer()? {
            return Ok(signer);
        }
        self.make()?;
        let pkcs8 = Signer::new_key().map_err(|_| FolderError::NoRandomness)?;
        let text = Zeroizing::new(pem::encode(&pem::Pem::new(PEM, pkcs8.as_slice())));
        self.write_once(KEY, &text)?;
        self.signer()?.ok_or_else(|| FolderError::NotAKey(self.path.join(KEY).display().to_string()))
    }

    /// Writes the key also as a JWK, which clients in other languages take, and says where.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn make_jwk(&self) -> Result<PathBuf, FolderError> {
        let jwk = self.make_signer()?.private_jwk().map_err(|_| FolderError::NoRandomness)?;
        let (path, beside) = (self.path.join(JWK), self.path.join(format!("{JWK}.{}", std::process::id())));
        let _ = fs::remove_file(&beside);
        let written = write_new(&beside, &jwk).and_then(|()| fs::rename(&beside, &path));
        written.map_err(|why| failed(&path, why))?;
        Ok(path)
    }

    /// Written beside and linked: a crash leaves no half file, and of two who make one, one stays.
    fn write_once(&self, name: &str, text: &str) -> Result<(), FolderError> {
        let path = self.path.join(name);
        let beside = self.path.join(format!("{name}.{}", std::process::id()));
        let written = || {
            let _ = fs::remove_file(&beside);
            write_new(&beside, text)?;
            let linked = fs::hard_link(&beside, &path);
            fs::remove_file(&beside)?;
            fs::File::open(&self.path)?.sync_all()?;
            match linked {
                Err(why) if why.kind() == ErrorKind::AlreadyExists => Ok(()),
                linked => linked,
            }
        };
        written().map_err(|why| failed(&path, why))
    }
}

/// Writes a file that nobody else may read.
fn write_new(file: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(file)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn failed(path: &Path, why: std::io::Error) -> FolderError {
    FolderError::Io { path: path.display().to_string(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_for_its_owner_only() {
        let tills = tempfile::tempdir().unwrap();
        let folder = TillFolder::new(tills.path(), &"AMIS1".parse().unwrap(), &"till-1".parse().unwrap());
        assert!(folder.signer().unwrap().is_none());
        let made = folder.make_signer().unwrap().key();
        assert_eq!(folder.make_signer().unwrap().key(), made);
        let file = folder.path().join(KEY);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        // when others may read it, it is no secret any more
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(folder.signer().err().unwrap().to_string().contains("chmod 600"));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&file, "rubbish").unwrap();
        assert!(folder.make_signer().err().unwrap().to_string().contains("is not an Ed25519"));
    }
}
