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
use kassa_bus::ShopId;
use kassa_bus::keys::{KeyError, PublicKey, ShopKeys};
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use crate::plan::MakeKeys;

/// The shops' private keys, one PKCS#8 PEM file each, readable by their owner only.
pub struct FileKeys {
    folder: PathBuf,
    loaded: RwLock<HashMap<ShopId, Arc<Key>>>,
    jobs: mpsc::Sender<Job>,
}

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

impl FileKeys {
    /// Keys in this folder, which is made if it is not there.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn open(folder: &Path) -> std::io::Result<Self> {
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
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
        let key = PrivateDecryptingKey::generate(KeySize::Rsa2048)
            .map_err(|_| std::io::Error::other("no randomness"))?;
        let der: Pkcs8V1Der = key.as_der().map_err(|_| std::io::Error::other("the key cannot be encoded"))?;
        let text = Zeroizing::new(pem::encode(&pem::Pem::new(PEM, der.as_ref())));
        // Written beside and renamed, so that a crash leaves no half key.
        let beside = path.with_extension("new");
        let mut file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        fs::File::open(&self.folder)?.sync_all()?;
        Ok(true)
    }

    fn path(&self, shop: &ShopId) -> PathBuf {
        self.folder.join(format!("{shop}.pem"))
    }

    fn key(&self, shop: &ShopId) -> Result<Arc<Key>, KeyError> {
        if let Some(key) = self.loaded.read().unwrap_or_else(PoisonError::into_inner).get(shop) {
            return Ok(Arc::clone(key));
        }
        let key = Arc::new(load(&self.path(shop))?);
        self.loaded.write().unwrap_or_else(PoisonError::into_inner).insert(shop.clone(), Arc::clone(&key));
        Ok(key)
    }
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

fn load(path: &Path) -> Result<Key, KeyError> {
    let unavailable = |why: &str| KeyError::unavailable(format!("{}: {why}", path.display()));
    let text = match fs::read_to_string(path) {
        Ok(text) => Zeroizing::new(text),
        Err(e) if e.kind() == ErrorKind::NotFound => return Err(KeyError::NoSuchKey),
        Err(e) => return Err(unavailable(&e.to_string())),
    };
    let mode = fs::metadata(path).map_err(|e| unavailable(&e.to_string()))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(unavailable("others can read this key; run chmod 600 on it"));
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

#[async_trait]
impl MakeKeys for FileKeys {
    async fn make(&self, shop: &ShopId) -> Result<(), KeyError> {
        self.ensure(shop).map(|_| ()).map_err(KeyError::unavailable)
    }
}

#[async_trait]
impl ShopKeys for FileKeys {
    async fn decrypt(&self, shop: &ShopId, ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let key = self.key(shop)?;
        let (done, decrypted) = oneshot::channel();
        let job = Job { key, ciphertext: ciphertext.to_vec(), done };
        self.jobs.send(job).await.map_err(|_| KeyError::unavailable("the RSA threads are gone"))?;
        decrypted.await.map_err(KeyError::unavailable)?
    }

    async fn public_key(&self, shop: &ShopId) -> Result<PublicKey, KeyError> {
        Ok(self.key(shop)?.public.clone())
    }
}
