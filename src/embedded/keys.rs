//! RSA keys in files.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use async_trait::async_trait;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{
    KeyPair, KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey,
    PublicKeyComponents,
};
use aws_lc_rs::signature::KeyPair as _;
use kassa_bus::keys::{KeyError, PublicKey, ShopKeys};
use kassa_bus::{ShopId, Thumbprint};
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

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

struct Key {
    private: OaepPrivateDecryptingKey,
    public: PublicKey,
}

const PEM: &str = "PRIVATE KEY";

/// How the files of keys end that are not disabled.
const ENDING: &str = "pem";

/// And those that are.
const RETIRED: &str = "retired";

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

/// Whether a file is a shop's key by its name, not one that is still being made.
pub(super) fn is_key(file: &Path) -> bool {
    file.extension().is_some_and(|ending| ending == ENDING || ending == RETIRED)
}

fn private_folder(folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
}

/// Has the disk know what is in a folder.
fn sync(folder: &Path) -> std::io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

fn rename(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::rename(from, to)?;
    to.parent().map_or(Ok(()), sync)
}

/// Makes a key in a file that has no name yet, so that a crash leaves no half one.
fn write_new_key(file: &Path) -> std::io::Result<()> {
    let key = PrivateDecryptingKey::generate(KeySize::Rsa2048)
        .map_err(|_| std::io::Error::other("no randomness"))?;
    let der: Pkcs8V1Der = key.as_der().map_err(|_| std::io::Error::other("the key cannot be encoded"))?;
    let text = Zeroizing::new(pem::encode(&pem::Pem::new(PEM, der.as_ref())));
    // Of whoever was killed while writing it.
    let _ = fs::remove_file(file);
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(file)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
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

impl Key {
    fn decrypt(&self, ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let mut plaintext = Zeroizing::new(vec![0; self.private.min_output_size()]);
        let decrypted = self.private.decrypt(&OAEP_SHA256_MGF1SHA256, ciphertext, &mut plaintext, None);
        let length = decrypted.map_err(|_| KeyError::DoesNotOpen)?.len();
        plaintext.truncate(length);
        Ok(plaintext)
    }
}

fn unusable(path: &Path, why: &str) -> KeyError {
    KeyError::unavailable(format!("{} {why}", path.display()))
}

fn load(path: &Path) -> Result<Key, KeyError> {
    let unavailable = |why: &str| unusable(path, why);
    let text = match fs::read_to_string(path) {
        Ok(text) => Zeroizing::new(text),
        Err(e) if e.kind() == ErrorKind::NotFound => return Err(KeyError::NoSuchKey),
        Err(e) => return Err(unavailable(&format!("cannot be read: {e}"))),
    };
    let mode =
        fs::metadata(path).map_err(|e| unavailable(&format!("cannot be read: {e}")))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(unavailable("can be read by others; run chmod 600 on it"));
    }
    let not_a_key = |()| unavailable("is not an RSA private key in PKCS#8 PEM");
    let pem = pem::parse(text.as_bytes()).map_err(|_| not_a_key(()))?;
    let der = Zeroizing::new(pem.into_contents());
    let pair = KeyPair::from_pkcs8(&der).map_err(|_| not_a_key(()))?;
    let components = PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
    let private = PrivateDecryptingKey::from_pkcs8(&der).map_err(|_| not_a_key(()))?;
    Ok(Key {
        private: OaepPrivateDecryptingKey::new(private).map_err(|_| not_a_key(()))?,
        public: PublicKey::new(&components.n, &components.e).map_err(|_| not_a_key(()))?,
    })
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
