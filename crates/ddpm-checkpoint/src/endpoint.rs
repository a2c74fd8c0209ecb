//! What the environment says of a server, checked before a client is made of it: the client would panic on some of it,
//! and send requests elsewhere on other.

use std::net::IpAddr;

use object_store::{ClientConfigKey, aws::AmazonS3Builder, aws::AmazonS3ConfigKey as Key};
use reqwest::Url;

/// The variables that hold a server's address.
const SERVERS: &[&str] = &[
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL_STS",
    "AWS_METADATA_ENDPOINT",
    "GOOGLE_BASE_URL",
    "AZURE_STORAGE_ENDPOINT",
    "AZURE_ENDPOINT",
    "AZURE_MSI_ENDPOINT",
];

/// The variables that are switches; object_store's message about one does not name it.
const SWITCHES: &[&str] =
    &["AWS_ALLOW_HTTP", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "AWS_SKIP_SIGNATURE", "AWS_UNSIGNED_PAYLOAD"];

/// The value of a variable as a client takes it. What it is never goes into the message unless it is an address or a
/// switch: it may be a secret.
pub(crate) fn checked(name: &str, value: &str) -> Result<String, String> {
    if value.trim() != value || value.contains(char::is_control) {
        return Err(format!("{name} has a space or a line break at its start or end; set it without"));
    }
    if SWITCHES.contains(&name) {
        let known = ["1", "true", "on", "yes", "y", "0", "false", "off", "no", "n"];
        let is_known = known.contains(&value.to_ascii_lowercase().as_str());
        return if is_known { Ok(value.into()) } else { Err(format!("{name}={value} is neither true nor false")) };
    }
    if !SERVERS.contains(&name) {
        return Ok(value.into());
    }
    let url = Url::parse(value).ok().filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
    let Some(url) = url else {
        let (host, _) = value.split_once([':', '/']).unwrap_or((value, ""));
        let scheme = if host == "localhost" || host.parse::<IpAddr>().is_ok() { "http" } else { "https" };
        let fix = Url::parse(&format!("{scheme}://{value}")).ok().filter(|_| !value.contains("//"));
        let fix = fix.map_or("write it as https://host:port".into(), |_| format!("write {name}={scheme}://{value}"));
        return Err(format!("{name}={value} is no URL; {fix}"));
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!(
            "{name} has a user or a password in it, which nobody reads; put keys in their own variables"
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("{name}={value} has more than a server's address; end it before the ? or #"));
    }
    Ok(url.as_str().trim_end_matches('/').into())
}

/// Who is asked for credentials, besides whom every machine asks.
#[derive(Debug)]
pub(crate) struct Agents {
    /// Hosts with their ports.
    pub hosts: Vec<String>,
    /// Whether an instance's metadata may be asked in the old way if the new one is refused.
    pub falls_back: bool,
}

impl Agents {
    pub fn of(env: &[(String, String)]) -> Self {
        let names = [
            "AWS_METADATA_ENDPOINT",
            "AWS_ENDPOINT_URL_STS",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "AZURE_MSI_ENDPOINT",
        ];
        let urls = env.iter().filter(|(name, _)| names.contains(&name.as_str()));
        let urls = urls.filter_map(|(_, url)| Url::parse(url).ok());
        let falls_back = env.iter().any(|(name, value)| name == "AWS_IMDSV1_FALLBACK" && is_yes(value));
        Self { hosts: urls.map(|url| url.authority().to_string()).collect(), falls_back }
    }
}

/// Whether a switch is on.
fn is_yes(value: &str) -> bool {
    ["1", "true", "on", "yes", "y"].contains(&value.to_ascii_lowercase().as_str())
}

/// Whether a bucket's name is one that a URL can hold, in all providers' rules taken together.
pub(crate) fn check_bucket(bucket: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&c);
    match bucket {
        "" => Err("it names no bucket; write s3://bucket/prefix".into()),
        _ if bucket.chars().all(fits) => Ok(()),
        _ if bucket.contains([':', '@']) => Err(format!(
            "{bucket} is no bucket's name; a server's address goes into AWS_ENDPOINT_URL, and keys into their own variables"
        )),
        _ => Err(format!("{bucket} is no bucket's name: those have letters, digits, - and . only")),
    }
}

/// What does not fit together in the settings of S3.
pub(crate) fn check_s3(builder: &AmazonS3Builder, bucket: &str) -> Result<(), String> {
    let get = |key| builder.get_config_value(&key);
    let is_on = |key| get(key).is_some_and(|value| is_yes(&value));
    match (get(Key::AccessKeyId).is_some(), get(Key::SecretAccessKey).is_some()) {
        (true, false) => return Err("AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not; set both".into()),
        (false, true) => return Err("AWS_SECRET_ACCESS_KEY is set and AWS_ACCESS_KEY_ID is not; set both".into()),
        _ => {}
    }
    let region = get(Key::Region).unwrap_or_default();
    if !region.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return Err(format!("AWS_REGION={region} is no region's name; write it as us-east-1"));
    }
    let Some(endpoint) = get(Key::S3Endpoint).or_else(|| get(Key::Endpoint)) else { return Ok(()) };
    let Ok(url) = Url::parse(&endpoint) else { return Err(format!("its endpoint {endpoint} is no URL")) };
    if url.scheme() == "http" && !is_on(Key::Client(ClientConfigKey::AllowHttp)) {
        return Err(format!(
            "its endpoint {endpoint} is not encrypted; set AWS_ALLOW_HTTP=true if everybody on that network may read the \
             checkpoints"
        ));
    }
    let (scheme, rest) = endpoint.split_once("://").unwrap_or(("https", &endpoint));
    let host = url.host_str().unwrap_or_default();
    if is_on(Key::VirtualHostedStyleRequest) {
        let has_bucket = host == bucket || host.starts_with(&format!("{bucket}."));
        return if has_bucket {
            Ok(())
        } else {
            Err(format!(
                "AWS_VIRTUAL_HOSTED_STYLE_REQUEST puts the bucket in the host's name, and {endpoint} does not begin with \
                 it; set AWS_ENDPOINT_URL={scheme}://{bucket}.{rest}, or unset AWS_VIRTUAL_HOSTED_STYLE_REQUEST"
            ))
        };
    }
    match endpoint.strip_suffix(&format!("/{bucket}")) {
        Some(server) if server.contains("://") && !server.ends_with('/') => Err(format!(
            "its endpoint {endpoint} ends with the bucket, which would be asked for twice; set AWS_ENDPOINT_URL={server}"
        )),
        _ => Ok(()),
    }
}
