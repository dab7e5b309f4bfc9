//! The file system as the library writes summaries of logs to it: whole and synced, as everything here is.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use deltalake_core::{
    Path,
    logstore::object_store::{
        CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
        PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, local::LocalFileSystem,
    },
};
use futures::stream::BoxStream;

use crate::{
    durable::{write_new, write_whole},
    error::SinkError,
};

/// The local file system, from its root.
#[derive(Debug)]
pub(super) struct DurableFolder {
    inner: Arc<LocalFileSystem>,
}

impl DurableFolder {
    pub(super) fn new() -> DurableFolder {
        DurableFolder { inner: Arc::new(LocalFileSystem::new()) }
    }
}

impl fmt::Display for DurableFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("local files, synced")
    }
}

#[async_trait]
impl ObjectStore for DurableFolder {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let path = self.inner.path_to_filesystem(location)?;
        let bytes: Vec<u8> = payload.iter().flat_map(|part| part.iter().copied()).collect();
        let failed = |error: SinkError| Error::Generic { store: "local", source: Box::new(error) };
        match opts.mode {
            PutMode::Overwrite => write_whole(&path, &bytes).map_err(failed)?,
            PutMode::Create => {
                let writer = format!("{}-put", std::process::id());
                if !write_new(&path, &bytes, &writer).map_err(failed)? {
                    let source = Box::new(std::io::Error::from(std::io::ErrorKind::AlreadyExists));
                    return Err(Error::AlreadyExists { path: location.to_string(), source });
                }
            }
            PutMode::Update(_) => return Err(not_here("conditional updates")),
        }
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(not_here("uploads in parts"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(not_here("copies"))
    }
}

fn not_here(operation: &str) -> Error {
    Error::NotImplemented { operation: operation.into(), implementer: "local files, synced".into() }
}
