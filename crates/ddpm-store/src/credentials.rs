//! Where credentials come from if the environment does not hold the keys themselves.

use std::path::Path;

use reqwest::Url;

use crate::variables::{is_true, value};

/// The sources of credentials that this environment adds to the ones every machine asks.
#[derive(Debug)]
pub(crate) struct CredentialServices {
    /// Hosts with their ports.
    pub hosts: Vec<String>,
    /// Whether to fall back to version 1 of the instance metadata service if version 2 refuses.
    pub imds_v1_fallback: bool,
    /// A file that the AWS tools would read, and this program does not.
    pub unread_file: Option<String>,
}

impl CredentialServices {
    pub fn of(env: &[(String, String)]) -> Self {
        let names = [
            "AWS_METADATA_ENDPOINT",
            "AWS_ENDPOINT_URL_STS",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "AZURE_MSI_ENDPOINT",
        ];
        let urls = names.iter().filter_map(|name| Url::parse(value(env, name)?).ok());
        let imds_v1_fallback = value(env, "AWS_IMDSV1_FALLBACK").is_some_and(is_true);
        let hosts = urls.map(|url| url.authority().to_string()).collect();
        Self { hosts, imds_v1_fallback, unread_file: unread_file(env) }
    }
}

/// The file in which the AWS tools would find credentials, if there is one.
fn unread_file(env: &[(String, String)]) -> Option<String> {
    let files = [("AWS_SHARED_CREDENTIALS_FILE", "credentials"), ("AWS_CONFIG_FILE", "config")];
    let mut paths = files.into_iter().filter_map(|(variable, name)| match value(env, variable) {
        Some(path) => Some(path.to_owned()),
        None => Some(format!("{}/.aws/{name}", value(env, "HOME")?)),
    });
    paths.find(|path| Path::new(path).is_file())
}

/// Checks that credentials for S3 are not to come from where this program does not look for them. `has_keys` says
/// whether the environment holds the keys themselves, or none are needed.
pub(crate) fn check_s3_credentials(env: &[(String, String)], has_keys: bool) -> Result<(), String> {
    // A web identity and a relative address are asked before what is checked below.
    let asked_first = ["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"];
    if has_keys || asked_first.iter().any(|variable| value(env, variable).is_some()) {
        return Ok(());
    }
    if let Some(profile) = value(env, "AWS_PROFILE") {
        return Err(format!(
            "AWS_PROFILE={profile} is set, but profiles are not read; set the keys with \
             `eval \"$(aws configure export-credentials --profile {profile} --format env)\"`, or unset AWS_PROFILE"
        ));
    }
    let uri = value(env, "AWS_CONTAINER_CREDENTIALS_FULL_URI");
    match uri.is_some() && value(env, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").is_none() {
        true => {
            Err("AWS_CONTAINER_CREDENTIALS_FULL_URI is set and AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE is not; set \
                     both, or neither"
                .into())
        }
        false => Ok(()),
    }
}
