//! RSA keys in files.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use async_trait::async_trait;
use kassa_bus::keys::{KeyError, PublicKey, ShopKeys};
use kassa_bus::{ShopId, Thumbprint};
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use super::key_file::{ENDING, Key, RETIRED, load, unusable, write_new_key};
use crate::custody::KeepKeys;
use crate::plan::MakeKeys;
use crate::rotation::RotateKeys;

/// The shops' private keys, one PKCS#8 PEM file each, readable by their owner only: `<shop>.pem` is a shop's present
/// one, and `<shop>/<kid>.pem` each that a shop has or had once it got a second one.
pub struct FileKeys {
    folder: PathBuf,
    loaded: RwLock<HashMap<Name, Arc<Key>>>,
    jobs: mpsc::Sender<Job>,
}

/// Whose key, and which, if not just the present one is wanted.
type Name = (ShopId, Option<Thumbprint>);

/// A private key's work takes a core for a third of a millisecond. It is done by threads of its own,
/// so that it neither blocks the others' nor waits for a thread to wake between two ciphertexts.
struct Job {
    key: Arc<Key>,
    ciphertext: Vec<u8>,
    done: oneshot::Sender<Result<Zeroizing<Vec<u8>>, KeyError>>,
}

impl FileKeys {
    /// Keys in this folder, which is made if it is not there.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn open(folder: &Path) -> std::io::Result<Self> {
        private_folder(folder)?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..rsa_threads() {
            let queue = Arc::clone(&queue);
            std::thread::Builder::new().name("rsa".into()).spawn(move || work(&queue))?;
        }
        Ok(Self { folder: folder.to_owned(), loaded: RwLock::default(), jobs })
    }

    /// Makes the shop's key if it has none, and says whether it did.
    ///
    /// # Errors
    /// If the file cannot be written, or there is no randomness.
    pub fn ensure(&self, shop: &ShopId) -> std::io::Result<bool> {
        let path = self.path(shop);
        if path.exists() {
            return Ok(false);
        }
        let beside = path.with_extension("new");
        write_new_key(&beside)?;
        rename(&beside, &path)?;
        Ok(true)
    }

    fn path(&self, shop: &ShopId) -> PathBuf {
        self.folder.join(format!("{shop}.pem"))
    }

    /// Where a shop's keys are by their names. No shop's id ends in what a present key's file ends in.
    fn named(&self, shop: &ShopId) -> PathBuf {
        self.folder.join(shop.as_str())
    }

    fn path_of(&self, shop: &ShopId, kid: &Thumbprint) -> PathBuf {
        self.named(shop).join(format!("{kid}.{ENDING}"))
    }

    fn present(&self, shop: &ShopId) -> Result<Arc<Key>, KeyError> {
        self.load_once((shop.clone(), None), || load(&self.path(shop)))
    }

    fn key(&self, shop: &ShopId, kid: Option<&Thumbprint>) -> Result<Arc<Key>, KeyError> {
        let present = self.present(shop)?;
        match kid {
            Some(kid) if present.public.kid() != kid => {
                let named = self.load_once((shop.clone(), Some(kid.clone())), || {
                    let path = self.path_of(shop, kid);
                    load(&path).and_then(|key| match key.public.kid() {
                        there if there == kid => Ok(key),
                        there => Err(unusable(&path, &format!("is the key {there}"))),
                    })
                });
                named.map_err(|error| match error {
                    // The shop has a key, only not this one.
                    KeyError::NoSuchKey => KeyError::DoesNotOpen,
                    error => error,
                })
            }
            _ => Ok(present),
        }
    }

    /// Whether the key of this name is there, and can be used.
    ///
    /// # Errors
    /// [`KeyError::Unavailable`] if it is there, and cannot.
    pub fn has(&self, shop: &ShopId, kid: &Thumbprint) -> Result<bool, KeyError> {
        match self.key(shop, Some(kid)) {
            Ok(_) => Ok(true),
            Err(KeyError::NoSuchKey | KeyError::DoesNotOpen) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn load_once(
        &self,
        name: Name,
        load: impl FnOnce() -> Result<Key, KeyError>,
    ) -> Result<Arc<Key>, KeyError> {
        if let Some(key) = self.loaded.read().unwrap_or_else(PoisonError::into_inner).get(&name) {
            return Ok(Arc::clone(key));
        }
        let key = Arc::new(load()?);
        self.loaded.write().unwrap_or_else(PoisonError::into_inner).insert(name, Arc::clone(&key));
        Ok(key)
    }

    /// Files have changed: what was read of this shop's is read again.
    fn forget(&self, shop: &ShopId) {
        self.loaded.write().unwrap_or_else(PoisonError::into_inner).retain(|(of, _), _| of != shop);
    }

    fn name_present(&self, shop: &ShopId) -> std::io::Result<()> {
        let present = self.present(shop).map_err(std::io::Error::other)?;
        let named = self.path_of(shop, present.public.kid());
        if named.exists() {
            return Ok(());
        }
        private_folder(&self.named(shop))?;
        fs::hard_link(self.path(shop), named)?;
        sync(&self.named(shop))
    }

    /// The name of a file in a shop's folder that is none of these keys'.
    fn left(&self, shop: &ShopId, known: &[Thumbprint]) -> std::io::Result<Option<Thumbprint>> {
        for file in fs::read_dir(self.named(shop))? {
            let name = file?.file_name();
            let name =
                name.to_str().and_then(|name| name.strip_suffix(ENDING)?.strip_suffix('.')?.parse().ok());
            if let Some(kid) = name.filter(|kid| !known.contains(kid)) {
                return Ok(Some(kid));
            }
        }
        Ok(None)
    }

    fn make_next(&self, shop: &ShopId, known: &[Thumbprint]) -> std::io::Result<Thumbprint> {
        private_folder(&self.named(shop))?;
        if let Some(left) = self.left(shop, known)? {
            return Ok(left);
        }
        let beside = self.named(shop).join("new");
        write_new_key(&beside)?;
        let kid = load(&beside).map_err(std::io::Error::other)?.public.kid().clone();
        rename(&beside, &self.path_of(shop, &kid))?;
        Ok(kid)
    }

    fn promote(&self, shop: &ShopId, kid: &Thumbprint) -> std::io::Result<()> {
        // Linked beside and renamed, so that there is a present key at any moment.
        let beside = self.path(shop).with_extension("new");
        let _ = fs::remove_file(&beside);
        fs::hard_link(self.path_of(shop, kid), &beside)?;
        rename(&beside, &self.path(shop))?;
        // Of two names of one file, rename leaves both.
        let _ = fs::remove_file(&beside);
        self.forget(shop);
        Ok(())
    }

    fn disable(&self, shop: &ShopId, kid: &Thumbprint) -> std::io::Result<()> {
        let path = self.path_of(shop, kid);
        match fs::rename(&path, path.with_extension(RETIRED)) {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            renamed => renamed.and_then(|()| sync(&self.named(shop)))?,
        }
        self.forget(shop);
        Ok(())
    }
}

/// Made, if it is not there; the files in it are private by themselves.
fn private_folder(folder: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Has the disk know what is in a folder.
fn sync(folder: &Path) -> std::io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

fn rename(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::rename(from, to)?;
    to.parent().map_or(Ok(()), sync)
}

/// As many as there are cores: more would only take turns.
fn rsa_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Ciphertexts that wait at most; beyond it, callers wait.
const QUEUE: usize = 256;

/// Ends when the keys are dropped.
fn work(queue: &Mutex<mpsc::Receiver<Job>>) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        let Some(Job { key, ciphertext, done }) = job else { return };
        // Whoever asked may have gone away.
        let _ = done.send(key.decrypt(&ciphertext));
    }
}

impl KeepKeys for FileKeys {
    fn place(&self, shop: &ShopId) -> String {
        self.path(shop).display().to_string()
    }

    fn put_back(&self, _: &ShopId) -> String {
        "Put it back from a backup: there, the folder `keys` has the same files".into()
    }
}

#[async_trait]
impl MakeKeys for FileKeys {
    async fn make(&self, shop: &ShopId) -> Result<(), KeyError> {
        self.ensure(shop).map(|_| ()).map_err(KeyError::unavailable)
    }
}

#[async_trait]
impl RotateKeys for FileKeys {
    async fn name_present(&self, shop: &ShopId) -> Result<Thumbprint, KeyError> {
        self.name_present(shop).map_err(KeyError::unavailable)?;
        Ok(self.present(shop)?.public.kid().clone())
    }

    async fn make_next(&self, shop: &ShopId, known: &[Thumbprint]) -> Result<Thumbprint, KeyError> {
        self.make_next(shop, known).map_err(KeyError::unavailable)
    }

    async fn promote(&self, shop: &ShopId, kid: &Thumbprint) -> Result<(), KeyError> {
        self.promote(shop, kid).map_err(KeyError::unavailable)
    }

    async fn disable(&self, shop: &ShopId, kid: &Thumbprint) -> Result<(), KeyError> {
        self.disable(shop, kid).map_err(KeyError::unavailable)
    }
}

#[async_trait]
impl ShopKeys for FileKeys {
    async fn decrypt(
        &self,
        shop: &ShopId,
        kid: Option<&Thumbprint>,
        ciphertext: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let key = self.key(shop, kid)?;
        let (done, decrypted) = oneshot::channel();
        let job = Job { key, ciphertext: ciphertext.to_vec(), done };
        self.jobs.send(job).await.map_err(|_| KeyError::unavailable("the RSA threads are gone"))?;
        decrypted.await.map_err(KeyError::unavailable)?
    }

    async fn public_key(&self, shop: &ShopId) -> Result<PublicKey, KeyError> {
        Ok(self.present(shop)?.public.clone())
    }
}
