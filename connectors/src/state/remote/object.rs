//! A remote store on an object store: S3 and what speaks like it.
//!
//! The fence is a conditional put: `If-None-Match: *`. A service that does not know it must not be used, and is found out when the store is
//! opened.

use std::{
    fs::File,
    io::{Read, Write},
    path::Path as LocalPath,
    sync::Arc,
    time::Duration,
};

use object_store::{
    ClientOptions, Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig,
    aws::AmazonS3Builder, path::Path,
};
use tokio::runtime::{Builder, Runtime};

use super::Remote;
use crate::state::error::{StoreError, io};

/// Bytes of a file that are on their way at once, up or down; an upload of more goes in parts of this size.
const PART_BYTES: usize = 8 << 20;
/// A request that is not answered for this long is made again: a part is on its way for a few seconds even over a slow line.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a request is repeated before the checkpoint that waits for it fails.
const RETRY_TIMEOUT: Duration = Duration::from_secs(120);
/// How often it is repeated.
const RETRIES_MAX: usize = 10;
/// A file that is there once a store was opened, to see that it is not created again.
const PROBE: &str = "conditional-writes";
const PROBE_CONTENT: &[u8] = b"Whisperer creates this file again and again, and wants to be refused.\n";

/// An object store. Calls block; they must not come from a thread that runs async code.
#[derive(Debug)]
pub struct ObjectRemote {
    url: String,
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    runtime: Runtime,
}

impl ObjectRemote {
    /// The bucket and prefix of `s3://bucket/prefix`, with settings as in the environment: `AWS_ENDPOINT`, `AWS_REGION` and so on; others
    /// are passed over.
    ///
    /// # Errors
    /// A URL or settings that cannot be used, and a bucket that cannot be reached or that overwrites what it is told not to.
    pub fn s3(url: &str, settings: impl IntoIterator<Item = (String, String)>) -> Result<ObjectRemote, StoreError> {
        let refused = |detail: String| StoreError::Url { url: url.into(), detail };
        let retry = RetryConfig { max_retries: RETRIES_MAX, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() };
        let client = ClientOptions::new().with_timeout(REQUEST_TIMEOUT);
        let mut builder = AmazonS3Builder::new().with_client_options(client).with_retry(retry).with_url(url);
        for (name, value) in settings {
            if let (true, Ok(key)) = (name.starts_with("AWS_"), name.to_ascii_lowercase().parse()) {
                builder = builder.with_config(key, value);
            }
        }
        let store = builder.build().map_err(|error| refused(error.to_string()))?;
        let prefix = url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, prefix)| prefix);
        let remote = ObjectRemote::over(url, Arc::new(store), prefix)?;
        remote.check_fence()?;
        Ok(remote)
    }

    /// Makes sure that what exists is not created again: without that there is no fence.
    fn check_fence(&self) -> Result<(), StoreError> {
        self.create(PROBE, PROBE_CONTENT)?;
        if !self.create(PROBE, PROBE_CONTENT)? {
            return Ok(());
        }
        let detail = "it overwrites what is to be created only if absent (conditional writes), so it cannot tell generations apart";
        Err(StoreError::Url { url: self.url.clone(), detail: detail.into() })
    }

    /// Any object store, below a prefix, called `url`.
    ///
    /// # Errors
    /// A prefix that cannot be one, and a machine that gives no more threads.
    pub fn over(url: &str, store: Arc<dyn ObjectStore>, prefix: &str) -> Result<ObjectRemote, StoreError> {
        let refused = |detail: String| StoreError::Url { url: url.into(), detail };
        let prefix = Path::parse(prefix).map_err(|error| refused(error.to_string()))?;
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| refused(error.to_string()))?;
        Ok(ObjectRemote { url: url.into(), store, prefix, runtime })
    }

    fn path(&self, name: &str) -> Path {
        name.split('/').fold(self.prefix.clone(), |path, part| path.join(part))
    }

    async fn put_parts(&self, path: &Path, first: Vec<u8>, file: &mut File, from: &LocalPath) -> Result<(), Failed> {
        let mut upload = self.store.put_multipart(path).await?;
        let mut part = first;
        while !part.is_empty() {
            if let Err(error) = upload.put_part(part.into()).await {
                // Parts that are not completed would be paid for. That the store does not even take this is no news.
                let _ = upload.abort().await;
                return Err(error.into());
            }
            part = read_part(file).map_err(io("read", from))?;
        }
        upload.complete().await?;
        Ok(())
    }

    async fn get_parts(&self, path: &Path, bytes: u64, to: &LocalPath) -> Result<(), Failed> {
        let mut file = File::create_new(to).map_err(io("create", to))?;
        let mut offset = 0;
        while offset < bytes {
            let until = bytes.min(offset + PART_BYTES as u64);
            let part = self.store.get_range(path, offset..until).await?;
            file.write_all(&part).map_err(io("write", to))?;
            offset = until;
        }
        Ok(file.sync_all().map_err(io("sync", to))?)
    }
}

/// What failed: the object store, or the disk.
enum Failed {
    Object(Error),
    Store(StoreError),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed::Object(error)
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Failed {
        Failed::Store(error)
    }
}

impl Failed {
    fn store(self, doing: &'static str, name: &str) -> StoreError {
        match self {
            Failed::Object(error) => remote(doing, name)(error),
            Failed::Store(error) => error,
        }
    }
}

fn remote(doing: &'static str, name: &str) -> impl FnOnce(Error) -> StoreError {
    move |source| StoreError::Remote { doing, name: name.into(), source: source.into() }
}

fn read_part(file: &mut File) -> std::io::Result<Vec<u8>> {
    let mut part = Vec::new();
    file.take(PART_BYTES as u64).read_to_end(&mut part)?;
    Ok(part)
}

impl Remote for ObjectRemote {
    fn url(&self) -> &str {
        &self.url
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let listed = self.runtime.block_on(self.store.list_with_delimiter(Some(&self.path(folder))));
        let objects = listed.map_err(remote("list", folder))?.objects;
        let mut names: Vec<String> =
            objects.iter().filter_map(|object| object.location.filename().map(String::from)).collect();
        names.sort_unstable();
        Ok(names)
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let read = async { self.store.get(&self.path(name)).await?.bytes().await };
        match self.runtime.block_on(read) {
            Ok(bytes) => Ok(Some(bytes.to_vec())),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(remote("read", name)(error)),
        }
    }

    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, StoreError> {
        let (path, payload) = (self.path(name), PutPayload::from(bytes.to_vec()));
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.runtime.block_on(self.store.put_opts(&path, payload, options)) {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
            Err(error) => Err(remote("create", name)(error)),
        }
    }

    fn upload(&self, name: &str, from: &LocalPath) -> Result<(), StoreError> {
        let mut file = File::open(from).map_err(io("open", from))?;
        let first = read_part(&mut file).map_err(io("read", from))?;
        let path = self.path(name);
        self.runtime
            .block_on(async {
                if first.len() < PART_BYTES {
                    self.store.put(&path, first.into()).await?;
                    return Ok(());
                }
                self.put_parts(&path, first, &mut file, from).await
            })
            .map_err(|failed: Failed| failed.store("upload", name))
    }

    fn download(&self, name: &str, to: &LocalPath) -> Result<bool, StoreError> {
        let path = self.path(name);
        self.runtime
            .block_on(async {
                let bytes = match self.store.head(&path).await {
                    Err(Error::NotFound { .. }) => return Ok(false),
                    head => head?.size,
                };
                self.get_parts(&path, bytes, to).await.map(|()| true)
            })
            .map_err(|failed: Failed| failed.store("download", name))
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        match self.runtime.block_on(self.store.delete(&self.path(name))) {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(remote("remove", name)(error)),
        }
    }
}
