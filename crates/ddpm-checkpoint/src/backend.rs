//! Addresses of stores, and the clients that reach them.

use std::{str::FromStr, sync::Arc, time::Duration};

use object_store::{
    BackoffConfig, ClientOptions, ObjectStore, RetryConfig, aws::AmazonS3Builder, azure::MicrosoftAzureBuilder,
    gcp::GoogleCloudStorageBuilder, memory::InMemory, path::Path, prefix::PrefixStore,
};

use crate::{
    CheckpointError,
    client::Connector,
    endpoint::{Agents, check_bucket, check_s3, checked},
    trouble::Provider,
};

/// The least part of a multipart upload that every store takes, R2's rule of equal parts included.
pub(crate) const MIN_PART: usize = 8 << 20;

/// How a store is talked to. One request and its repetitions end within `retry_timeout + request_timeout`; an operation
/// is a handful of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// Bytes per part of an upload and per request of a download: a multiple of 4, and 8 MiB (the default) or more.
    pub part_bytes: usize,
    /// Parts, or requests, in flight at once; one upload holds at most `concurrency + 1` parts in memory. Default: 4.
    pub concurrency: usize,
    /// Time for one request, from its first byte to the answer's last. A request moves one part at most, so the default
    /// of 60 s lets four parts of 8 MiB share a line of 600 kB/s. Connecting may take 5 s of it.
    pub request_timeout: Duration,
    /// A request that failed (no connection, time-out, 429, 5xx) is tried again, with growing and jittered pauses, until
    /// this long after it was first sent. Default: 60 s.
    pub retry_timeout: Duration,
}

impl Default for StoreOptions {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self { part_bytes: MIN_PART, concurrency: 4, request_timeout: minute, retry_timeout: minute }
    }
}

impl StoreOptions {
    /// What is wrong with the options, if anything is.
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

    /// Bounded by time; the number of retries only guards against a store that refuses at once, for ever.
    fn retry(&self) -> RetryConfig {
        let backoff =
            BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(10), base: 3.0 };
        RetryConfig { backoff, max_retries: 100, retry_timeout: self.retry_timeout }
    }
}

/// What an address stands for.
pub(crate) enum Place<'a> {
    /// A directory, not looked at yet.
    Directory(&'a str),
    /// Anything else, ready to be asked.
    Objects(Arc<dyn ObjectStore>),
}

/// What to write in place of an address that is none.
const FORMS: &str = "give a directory such as runs/mnist/checkpoints, or an address such as s3://bucket/prefix";

/// Understands an address. Nothing is sent. Credentials, region and endpoint come from `env`, in the spelling of each
/// provider's own tools: `AWS_*`, `GOOGLE_*`, `AZURE_*`.
pub(crate) fn place<'a>(
    uri: &'a str,
    options: &StoreOptions,
    env: &[(String, String)],
) -> Result<Place<'a>, CheckpointError> {
    let address = |reason: String| CheckpointError::Address { uri: uri.into(), reason };
    let (scheme, rest) = match uri.split_once("://") {
        None if uri.is_empty() => return Err(address(format!("the path is empty; {FORMS}"))),
        // A path may have a colon in it.
        Some((scheme, _)) if scheme.contains('/') => return Ok(Place::Directory(uri)),
        None => return Ok(Place::Directory(uri)),
        Some(("memory", "")) => return Ok(Place::Objects(Arc::new(InMemory::new()))),
        Some(("file", path)) if path.starts_with('/') && !path.contains('%') => return Ok(Place::Directory(path)),
        Some(("file", _)) => return Err(address("a file:// address takes an absolute path without % escapes".into())),
        Some(parts) => parts,
    };
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let connector = |provider| Connector::new(uri, provider, options.retry_timeout, Agents::of(env));
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
    Ok(Place::Objects(Arc::new(PrefixStore::new(objects, prefix))))
}

/// Hands every variable that starts with `prefix` and that the builder knows to `with`.
fn configure<B, K: FromStr>(
    builder: B,
    env: &[(String, String)],
    prefix: &str,
    with: fn(B, K, String) -> B,
) -> Result<B, String> {
    let mut ours = env.iter().filter(|(name, value)| name.starts_with(prefix) && !value.is_empty());
    ours.try_fold(builder, |builder, (name, value)| match name.to_ascii_lowercase().parse() {
        Ok(key) => Ok(with(builder, key, checked(name, value)?)),
        Err(_) => Ok(builder),
    })
}

fn shared<T: ObjectStore>(built: object_store::Result<T>) -> Result<Arc<dyn ObjectStore>, String> {
    built
        .map(|objects| Arc::new(objects) as _)
        .map_err(|e| format!("{e}; see the variables of its provider in the manual"))
}
