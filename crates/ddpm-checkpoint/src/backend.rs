//! Parses store addresses and builds the clients that reach them.

use std::{str::FromStr, sync::Arc, time::Duration};

use object_store::{
    BackoffConfig, ClientOptions, ObjectStore, RetryConfig, aws::AmazonS3Builder, azure::MicrosoftAzureBuilder,
    gcp::GoogleCloudStorageBuilder, memory::InMemory, path::Path, prefix::PrefixStore,
};

use crate::{
    CheckpointError,
    client::Connector,
    diagnosis::Provider,
    endpoint::{CredentialServices, check_bucket, check_s3, check_variable},
};

/// The smallest part size of a multipart upload that every store accepts, including R2, which wants parts of equal
/// size.
pub(crate) const MIN_PART: usize = 8 << 20;

/// Limits on the requests to a store. One request with its retries ends within `retry_timeout + request_timeout`; an
/// operation takes a handful of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// Bytes per part of an upload and per request of a download: a multiple of 4, and 8 MiB (the default) or more.
    pub part_bytes: usize,
    /// Parts, or requests, in flight at once; one upload holds at most `concurrency + 1` parts in memory. Default: 4.
    pub concurrency: usize,
    /// Time limit of one request, from its first byte to the last byte of the response. A request transfers at most one
    /// part, so the default of 60 s lets four parts of 8 MiB share a link of 600 kB/s. Connecting may take 5 s of it.
    pub request_timeout: Duration,
    /// A request that failed (no connection, timeout, 429, 5xx) is retried with jittered exponential backoff until this
    /// long after it was first sent. Default: 60 s.
    pub retry_timeout: Duration,
}

impl Default for StoreOptions {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self { part_bytes: MIN_PART, concurrency: 4, request_timeout: minute, retry_timeout: minute }
    }
}

impl StoreOptions {
    /// Checks the options; an error says what is wrong.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self { concurrency: 0, .. } => Err("a store needs at least one request in flight".into()),
            Self { part_bytes, .. } if *part_bytes < MIN_PART || part_bytes % 4 != 0 => {
                Err(format!("parts of {part_bytes} bytes are not a multiple of 4 of at least {MIN_PART}"))
            }
            _ => Ok(()),
        }
    }

    fn client(&self) -> ClientOptions {
        ClientOptions::new().with_connect_timeout(Duration::from_secs(5)).with_timeout(self.request_timeout)
    }

    /// Retries are bounded by time; the limit on their number only guards against a store that always refuses
    /// immediately.
    fn retry(&self) -> RetryConfig {
        let backoff =
            BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(10), base: 3.0 };
        RetryConfig { backoff, max_retries: 100, retry_timeout: self.retry_timeout }
    }
}

/// What an address refers to.
pub(crate) enum Location<'a> {
    /// A directory, not accessed yet.
    Directory(&'a str),
    /// An object store, ready for requests.
    Objects(Arc<dyn ObjectStore>),
}

/// The valid forms of an address, for error messages.
const FORMS: &str = "give a directory such as runs/mnist/checkpoints, or an address such as s3://bucket/prefix";

/// Parses an address without sending anything. Credentials, region and endpoint come from `env`, under the names that
/// each provider's own tools use: `AWS_*`, `GOOGLE_*`, `AZURE_*`.
pub(crate) fn resolve<'a>(
    uri: &'a str,
    options: &StoreOptions,
    env: &[(String, String)],
) -> Result<Location<'a>, CheckpointError> {
    let address = |reason: String| CheckpointError::Address { uri: uri.into(), reason };
    let (scheme, rest) = match uri.split_once("://") {
        None if uri.is_empty() => return Err(address(format!("the path is empty; {FORMS}"))),
        // A path may contain a colon.
        Some((scheme, _)) if scheme.contains('/') => return Ok(Location::Directory(uri)),
        None => return Ok(Location::Directory(uri)),
        Some(("memory", "")) => return Ok(Location::Objects(Arc::new(InMemory::new()))),
        Some(("file", path)) if path.starts_with('/') && !path.contains('%') => return Ok(Location::Directory(path)),
        Some(("file", _)) => return Err(address("a file:// address takes an absolute path without % escapes".into())),
        Some(parts) => parts,
    };
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let connector = |provider| Connector::new(uri, provider, options.retry_timeout, CredentialServices::of(env));
    let build = || -> Result<Arc<dyn ObjectStore>, String> {
        if ["s3", "gs", "az"].contains(&scheme) {
            check_bucket(bucket)?;
        }
        match scheme {
            "s3" => {
                // Path style unless AWS_VIRTUAL_HOSTED_STYLE_REQUEST says otherwise. Objects are deleted one by one: not
                // every S3-compatible store has bulk deletion.
                let builder = AmazonS3Builder::new().with_client_options(options.client()).with_retry(options.retry());
                let builder = builder.with_disable_bulk_delete(true).with_http_connector(connector(Provider::S3));
                let builder = configure(builder, env, "AWS_", |b, k, v| b.with_config(k, v))?;
                check_s3(&builder, bucket)?;
                shared(builder.with_bucket_name(bucket).build())
            }
            "gs" => {
                let builder = GoogleCloudStorageBuilder::new().with_client_options(options.client());
                let builder = builder.with_retry(options.retry()).with_http_connector(connector(Provider::Google));
                let builder = configure(builder, env, "GOOGLE_", |b, k, v| b.with_config(k, v))?;
                shared(builder.with_bucket_name(bucket).build())
            }
            "az" => {
                let builder = MicrosoftAzureBuilder::new().with_client_options(options.client());
                let builder = builder.with_retry(options.retry()).with_http_connector(connector(Provider::Azure));
                let builder = configure(builder, env, "AZURE_", |b, k, v| b.with_config(k, v))?;
                shared(builder.with_container_name(bucket).build())
            }
            _ => Err(format!("its scheme is unknown; {FORMS}")),
        }
    };
    let objects = build().map_err(address)?;
    let prefix = Path::parse(prefix.trim_end_matches('/')).map_err(|e| address(format!("{e}; {FORMS}")))?;
    Ok(Location::Objects(Arc::new(PrefixStore::new(objects, prefix))))
}

/// Applies `with` to every variable that starts with `prefix` and that the builder knows.
fn configure<B, K: FromStr>(
    builder: B,
    env: &[(String, String)],
    prefix: &str,
    with: fn(B, K, String) -> B,
) -> Result<B, String> {
    let mut ours = env.iter().filter(|(name, value)| name.starts_with(prefix) && !value.is_empty());
    ours.try_fold(builder, |builder, (name, value)| match name.to_ascii_lowercase().parse() {
        Ok(key) => Ok(with(builder, key, check_variable(name, value)?)),
        Err(_) => Ok(builder),
    })
}

fn shared<T: ObjectStore>(built: object_store::Result<T>) -> Result<Arc<dyn ObjectStore>, String> {
    built
        .map(|objects| Arc::new(objects) as _)
        .map_err(|e| format!("{e}; see the manual for the provider's environment variables"))
}
