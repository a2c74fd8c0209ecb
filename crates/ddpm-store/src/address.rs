//! Parses store addresses and builds the clients that reach them.

use std::{env, str::FromStr, sync::Arc, time::Duration};

use object_store::{
    BackoffConfig, ClientConfigKey, ClientOptions, ObjectStore, RetryConfig,
    aws::AmazonS3Builder,
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::{GoogleCloudStorageBuilder, GoogleConfigKey},
    memory::InMemory,
    path::Path,
    prefix::PrefixStore,
};

use crate::{
    certificates::trust,
    client::Connector,
    credentials::CredentialServices,
    diagnosis::Provider,
    endpoint::{check_bucket, check_encrypted, check_s3, check_variable},
};

/// Limits on one request, which with its retries ends within `retry_timeout + request_timeout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From its first byte to the last byte of the response. Connecting may take 5 s of it.
    pub request_timeout: Duration,
    /// A request that failed (no connection, timeout, 429, 5xx) is retried with jittered exponential backoff until this
    /// long after it was first sent.
    pub retry_timeout: Duration,
}

impl Limits {
    fn client(&self) -> ClientOptions {
        ClientOptions::new().with_connect_timeout(Duration::from_secs(5)).with_timeout(self.request_timeout)
    }

    /// Retries are bounded by time; the limit on their number only guards against a store that always refuses
    /// immediately.
    fn retry(&self) -> RetryConfig {
        let init_backoff = Duration::from_millis(100);
        // The time is checked before a pause, so that a long one exceeds it.
        let max_backoff = (self.retry_timeout / 6).clamp(init_backoff, Duration::from_secs(10));
        let backoff = BackoffConfig { init_backoff, max_backoff, base: 3.0 };
        RetryConfig { backoff, max_retries: 100, retry_timeout: self.retry_timeout }
    }
}

/// What an address refers to.
pub enum Location<'a> {
    /// A directory, not accessed yet.
    Directory(&'a str),
    /// An object store, ready for requests.
    Objects(Arc<dyn ObjectStore>),
}

/// The valid forms of an address, for error messages.
const FORMS: &str = "give a directory such as runs/mnist/checkpoints, or an address such as s3://bucket/prefix";

/// Parses an address without sending anything. Credentials, region and endpoint come from `env`, under the names that
/// each provider's own tools use: `AWS_*`, `GOOGLE_*`, `AZURE_*`.
///
/// # Errors
/// What is wrong with the address or the environment, and what to change: a phrase without a full stop.
pub fn resolve<'a>(uri: &'a str, limits: Limits, env: &[(String, String)]) -> Result<Location<'a>, String> {
    if let Some(path) = directory(uri) {
        return Ok(Location::Directory(path));
    }
    let (scheme, rest) = match uri.split_once("://") {
        None => return Err(format!("the path is empty; {FORMS}")),
        Some(("memory", "")) => return Ok(Location::Objects(Arc::new(InMemory::new()))),
        Some(("file", _)) => return Err("a file:// address takes an absolute path without % escapes".into()),
        Some(parts) => parts,
    };
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let connector = |provider| Connector::new(uri, provider, limits.retry_timeout, CredentialServices::of(env));
    let build = || -> Result<Arc<dyn ObjectStore>, String> {
        if ["s3", "gs", "az"].contains(&scheme) {
            check_bucket(bucket)?;
        }
        let client = trust(limits.client(), env, scheme)?;
        match scheme {
            "s3" => {
                // Path style unless AWS_VIRTUAL_HOSTED_STYLE_REQUEST says otherwise. Objects are deleted one by one: not
                // every S3-compatible store has bulk deletion.
                let builder = AmazonS3Builder::new().with_client_options(client).with_retry(limits.retry());
                let builder = builder.with_disable_bulk_delete(true).with_http_connector(connector(Provider::S3));
                let builder = configure(builder, env, "AWS_", |b, k, v| b.with_config(k, v))?;
                check_s3(&builder, bucket, env)?;
                shared(builder.with_bucket_name(bucket).build())
            }
            "gs" => {
                let builder = GoogleCloudStorageBuilder::new().with_client_options(client);
                let builder = builder.with_retry(limits.retry()).with_http_connector(connector(Provider::Google));
                let builder = configure(builder, env, "GOOGLE_", |b, k, v| b.with_config(k, v))?;
                let get = |key| builder.get_config_value(&key);
                let allowed = get(GoogleConfigKey::Client(ClientConfigKey::AllowHttp));
                check_encrypted(get(GoogleConfigKey::BaseUrl).as_deref(), allowed, "GOOGLE_ALLOW_HTTP")?;
                shared(builder.with_bucket_name(bucket).build())
            }
            "az" => {
                let builder = MicrosoftAzureBuilder::new().with_client_options(client);
                let builder = builder.with_retry(limits.retry()).with_http_connector(connector(Provider::Azure));
                let builder = configure(builder, env, "AZURE_", |b, k, v| b.with_config(k, v))?;
                let get = |key| builder.get_config_value(&key);
                let allowed = get(AzureConfigKey::Client(ClientConfigKey::AllowHttp));
                check_encrypted(get(AzureConfigKey::Endpoint).as_deref(), allowed, "AZURE_ALLOW_HTTP")?;
                shared(builder.with_container_name(bucket).build())
            }
            _ => Err(format!("its scheme is unknown; {FORMS}")),
        }
    };
    // One TLS implementation for the whole process; if one is installed already, it is used.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let objects = build()?;
    let prefix = Path::parse(prefix.trim_end_matches('/')).map_err(|e| format!("{e}; {FORMS}"))?;
    Ok(Location::Objects(Arc::new(PrefixStore::new(objects, prefix))))
}

/// The directory that an address names; `None` if it names an object store, or nothing.
pub fn directory(uri: &str) -> Option<&str> {
    match uri.split_once("://") {
        None => Some(uri).filter(|path| !path.is_empty()),
        // A path may contain a colon.
        Some((scheme, _)) if scheme.contains('/') => Some(uri),
        Some(("file", path)) => Some(path).filter(|path| path.starts_with('/') && !path.contains('%')),
        Some(_) => None,
    }
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

/// The variables of this process, for [`resolve`].
pub fn environment() -> Vec<(String, String)> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    env::vars_os().filter_map(text).collect()
}
