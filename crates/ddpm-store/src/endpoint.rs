//! Checks the environment's server settings before a client is built from them: the client would panic on some
//! mistakes, and send requests elsewhere on others.

use std::net::IpAddr;

use object_store::{ClientConfigKey, aws::AmazonS3Builder, aws::AmazonS3ConfigKey as Key};
use reqwest::Url;

use crate::{
    credentials::check_s3_credentials,
    variables::{is_true, value},
};

/// The variables that hold a server address.
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

/// Boolean variables; object_store's error message about one does not name it.
const SWITCHES: &[&str] = &[
    "AWS_ALLOW_HTTP",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
    "AWS_SKIP_SIGNATURE",
    "AWS_UNSIGNED_PAYLOAD",
    "AWS_SSE_BUCKET_KEY_ENABLED",
    "GOOGLE_ALLOW_HTTP",
    "GOOGLE_SKIP_SIGNATURE",
    "AZURE_ALLOW_HTTP",
    "AZURE_SKIP_SIGNATURE",
];

/// The value of a variable in the form that a client accepts. An error message quotes the value only if it is an
/// address or a boolean: anything else may be a secret.
pub(crate) fn check_variable(name: &str, value: &str) -> Result<String, String> {
    if value.trim() != value || value.contains(char::is_control) {
        return Err(format!("{name} has a space or a line break at its start or end; remove it"));
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
        return Err(format!("{name}={value} is not a URL; {fix}"));
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!(
            "{name} contains a user or a password, which is not used; put keys in their own variables"
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("{name}={value} contains more than a server address; end it before the ? or #"));
    }
    Ok(url.as_str().trim_end_matches('/').into())
}

/// Checks that a bucket name is one that a URL can hold, by the rules of all providers taken together.
pub(crate) fn check_bucket(bucket: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&c);
    match bucket {
        "" => Err("the bucket name is missing; write s3://bucket/prefix".into()),
        _ if bucket.chars().all(fits) => Ok(()),
        _ if bucket.contains([':', '@']) => Err(format!(
            "{bucket} is not a bucket name; a server address goes into AWS_ENDPOINT_URL, and keys into their own variables"
        )),
        _ => Err(format!("{bucket} is not a bucket name: those contain only letters, digits, - and .")),
    }
}

/// Checks that the server at `endpoint`, if it is not the provider's own, encrypts what is sent, or that the variable
/// `switch`, whose value is `allowed`, says that it need not.
pub(crate) fn check_encrypted(endpoint: Option<&str>, allowed: Option<String>, switch: &str) -> Result<(), String> {
    match endpoint {
        Some(endpoint) if endpoint.starts_with("http://") && !allowed.as_deref().is_some_and(is_true) => Err(format!(
            "its endpoint {endpoint} is not encrypted; set {switch}=true if everyone on that network may read what is \
                 stored there"
        )),
        _ => Ok(()),
    }
}

/// Checks that the requested server-side encryption exists, and that no key is set without it.
fn check_encryption(env: &[(String, String)]) -> Result<(), String> {
    let variable = "AWS_SERVER_SIDE_ENCRYPTION";
    match value(env, variable) {
        Some("AES256" | "aws:kms" | "aws:kms:dsse" | "sse-c") => Ok(()),
        Some(other) => Err(format!("{variable}={other} is unknown; it can be AES256, aws:kms, aws:kms:dsse or sse-c")),
        None => {
            let keys = [("AWS_SSE_KMS_KEY_ID", "aws:kms"), ("AWS_SSE_CUSTOMER_KEY_BASE64", "sse-c")];
            match keys.into_iter().find(|(key, _)| value(env, key).is_some()) {
                Some((key, kind)) => Err(format!("{key} is set and {variable} is not; set {variable}={kind}")),
                None => Ok(()),
            }
        }
    }
}

/// Checks that the S3 settings are consistent.
pub(crate) fn check_s3(builder: &AmazonS3Builder, bucket: &str, env: &[(String, String)]) -> Result<(), String> {
    let get = |key| builder.get_config_value(&key);
    let is_on = |key| get(key).is_some_and(|value| is_true(&value));
    match (get(Key::AccessKeyId).is_some(), get(Key::SecretAccessKey).is_some()) {
        (true, false) => return Err("AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not; set both".into()),
        (false, true) => return Err("AWS_SECRET_ACCESS_KEY is set and AWS_ACCESS_KEY_ID is not; set both".into()),
        (has_keys, _) => check_s3_credentials(env, has_keys || is_on(Key::SkipSignature))?,
    }
    check_encryption(env)?;
    let region = get(Key::Region).unwrap_or_default();
    if !region.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return Err(format!("AWS_REGION={region} is not a region name; write it like us-east-1"));
    }
    let Some(endpoint) = get(Key::S3Endpoint).or_else(|| get(Key::Endpoint)) else { return Ok(()) };
    let Ok(url) = Url::parse(&endpoint) else { return Err(format!("its endpoint {endpoint} is not a URL")) };
    check_encrypted(Some(&endpoint), get(Key::Client(ClientConfigKey::AllowHttp)), "AWS_ALLOW_HTTP")?;
    let (scheme, rest) = endpoint.split_once("://").unwrap_or(("https", &endpoint));
    let host = url.host_str().unwrap_or_default();
    if is_on(Key::VirtualHostedStyleRequest) {
        let has_bucket = host == bucket || host.starts_with(&format!("{bucket}."));
        return if has_bucket {
            Ok(())
        } else {
            Err(format!(
                "AWS_VIRTUAL_HOSTED_STYLE_REQUEST puts the bucket in the host name, and {endpoint} does not begin with \
                 it; set AWS_ENDPOINT_URL={scheme}://{bucket}.{rest}, or unset AWS_VIRTUAL_HOSTED_STYLE_REQUEST"
            ))
        };
    }
    match endpoint.strip_suffix(&format!("/{bucket}")) {
        Some(server) if server.contains("://") && !server.ends_with('/') => Err(format!(
            "its endpoint {endpoint} ends with the bucket, which would then appear twice; set AWS_ENDPOINT_URL={server}"
        )),
        _ => Ok(()),
    }
}
