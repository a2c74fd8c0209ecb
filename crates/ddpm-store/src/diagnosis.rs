//! Explains a store's errors to the user: what is wrong, and how to fix it.

use std::{error::Error, fmt, io};

use reqwest::StatusCode;

/// Words of an outage, by which [`is_outage`] recognises it.
const NO_CONNECTION: &str = "no connection to";
const KEEPS: &str = ", and keeps doing so";

/// The provider, which decides the variables that a remedy mentions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Provider {
    S3,
    Google,
    Azure,
}

/// An error with more detail than its HTTP status.
#[derive(Debug)]
pub(crate) struct Diagnosis {
    provider: Provider,
    host: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// No connection.
    Unreachable { cause: String, failure: ConnectFailure },
    /// No credentials are set, and no service provides any.
    NoCredentials { cause: String, unread_file: Option<String> },
    /// The server's own error response.
    Refused { status: StatusCode, code: String, message: String, region: Option<String> },
    /// A web page instead of a response from the store.
    WebPage { status: StatusCode },
    /// The response to a list request is not a listing.
    NoListing { root: String },
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConnectFailure {
    UnknownName,
    Tls,
    Other,
}

impl Provider {
    /// The variables that hold the credentials.
    fn key_variables(self) -> &'static str {
        match self {
            Self::S3 => "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            Self::Google => "GOOGLE_APPLICATION_CREDENTIALS",
            Self::Azure => "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
        }
    }

    /// The variables that hold the server's address.
    fn address_variables(self) -> &'static str {
        match self {
            Self::S3 => "AWS_ENDPOINT_URL and AWS_REGION",
            Self::Google => "GOOGLE_BASE_URL",
            Self::Azure => "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ENDPOINT",
        }
    }
}

impl Diagnosis {
    /// `host` could not be reached because of `error`.
    pub fn unreachable(provider: Provider, host: String, error: &(dyn Error + 'static)) -> Self {
        let (causes, cause) = (causes(error), deepest(error));
        let unknown = ["Name or service not known", "No address associated", "Name does not resolve"];
        let failure = if causes.iter().any(|cause| cause.is::<rustls::Error>()) {
            ConnectFailure::Tls
        } else if unknown.iter().any(|phrase| cause.contains(phrase)) {
            ConnectFailure::UnknownName
        } else {
            ConnectFailure::Other
        };
        Self { provider, host, kind: Kind::Unreachable { cause, failure } }
    }

    /// No credentials are set, and `host`, which serves them, has none; `unread_file` may hold some.
    pub fn no_credentials(provider: Provider, host: String, cause: String, unread_file: Option<String>) -> Self {
        Self { provider, host, kind: Kind::NoCredentials { cause, unread_file } }
    }

    /// `host` responded with `status` and an explanation.
    pub fn refused(provider: Provider, host: String, status: StatusCode, body: &[u8], region: Option<&str>) -> Self {
        let text = String::from_utf8_lossy(body);
        let code = element(&text, "Code").unwrap_or_default();
        // Some servers send plain text.
        let plain = || match text.trim_start().starts_with('<') {
            true => String::new(),
            false => text.trim().trim_end_matches('.').into(),
        };
        let message = element(&text, "Message").unwrap_or_else(plain);
        let region = region.map(Into::into).or_else(|| element(&text, "Region"));
        Self { provider, host, kind: Kind::Refused { status, code, message, region } }
    }

    /// `host` responded with a web page.
    pub fn web_page(provider: Provider, host: String, status: StatusCode) -> Self {
        Self { provider, host, kind: Kind::WebPage { status } }
    }

    /// Checks the response to a list request; returns what is wrong if it is not a listing.
    pub fn no_listing(provider: Provider, host: String, body: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(body);
        let mut tags = text.split('<').skip(1).filter(|tag| !tag.starts_with(['?', '!']));
        let root = tags.next().and_then(|tag| tag.split(['>', ' ', '/', '\n', '\t', '\r']).next()).unwrap_or_default();
        let listing = match provider {
            Provider::S3 | Provider::Google => "ListBucketResult",
            Provider::Azure => "EnumerationResults",
        };
        (root != listing).then(|| Self { provider, host, kind: Kind::NoListing { root: clip(root) } })
    }

    /// Whether a retry is pointless, given that the server has never responded.
    pub fn is_permanent(&self) -> bool {
        match &self.kind {
            Kind::Unreachable { failure, .. } => *failure != ConnectFailure::Other,
            _ => true,
        }
    }

    /// Whether the bucket is missing rather than an object in it.
    pub fn is_about_the_bucket(&self) -> bool {
        matches!(&self.kind, Kind::Refused { code, .. } if ["NoSuchBucket", "ContainerNotFound"].contains(&code.as_str()))
    }

    /// What is wrong.
    pub fn summary(&self) -> String {
        let host = &self.host;
        match &self.kind {
            Kind::Unreachable { failure: ConnectFailure::UnknownName, .. } => format!("there is no host {host}"),
            Kind::Unreachable { cause, failure: ConnectFailure::Tls } => {
                format!("no encrypted connection to {host} ({})", clip(cause))
            }
            Kind::Unreachable { cause, .. } => format!("{NO_CONNECTION} {host} ({})", clip(cause)),
            Kind::NoCredentials { cause, .. } => {
                format!("no credentials: {} not set, and {host} has none ({})", self.are_keys(), clip(cause))
            }
            Kind::WebPage { status } => {
                format!("{host} responds with a web page ({status}), which is not an object store")
            }
            Kind::NoListing { root } if root.is_empty() => {
                format!("the response of {host} is not a listing of the bucket")
            }
            Kind::NoListing { root } => format!("{host} responds with <{root}>, which is not a listing of the bucket"),
            Kind::Refused { status, code, message, region } => {
                let phrase = match (code.as_str(), region) {
                    ("NoSuchBucket" | "ContainerNotFound", _) => format!("{host} has no such bucket"),
                    ("InvalidAccessKeyId", _) => format!("{host} does not know the access key"),
                    ("SignatureDoesNotMatch", _) => format!("for {host}, the secret key does not match the access key"),
                    ("ExpiredToken" | "TokenRefreshRequired" | "RequestExpired", _) => {
                        "the credentials have expired".into()
                    }
                    ("RequestTimeTooSkewed", _) => "the clock of this machine differs from the server's".into(),
                    ("InvalidToken" | "InvalidClientTokenId", _) => "the session token is not valid".into(),
                    (_, Some(region)) if self.is_elsewhere() => format!("the bucket is in the region {region}"),
                    ("", _) if message.is_empty() => return format!("{host} responds {status}"),
                    ("", _) => return format!("{host} responds {status}: {}", clip(message)),
                    (code, _) if message.is_empty() => return format!("{host} responds {status}, {code}"),
                    (code, _) => return format!("{host} responds {status}, {code}: {}", clip(message)),
                };
                if code.is_empty() { phrase } else { format!("{phrase} ({code})") }
            }
        }
    }

    /// How to fix it.
    fn remedy(&self) -> String {
        let (keys, address) = (self.provider.key_variables(), self.provider.address_variables());
        let s3 = self.provider == Provider::S3;
        match &self.kind {
            Kind::Unreachable { cause, failure: ConnectFailure::Tls } if cause.contains("InvalidContentType") => {
                "The server does not seem to use TLS: write http:// in its address and set AWS_ALLOW_HTTP=true".into()
            }
            Kind::Unreachable { failure: ConnectFailure::Tls, .. } => {
                let variable = if s3 { "AWS_CA_BUNDLE" } else { "SSL_CERT_FILE" };
                format!(
                    "Set {variable} to a file with the certificate of the server's authority, and check the address"
                )
            }
            Kind::Unreachable { cause, .. } if cause.contains("reset by peer") => {
                format!("Check {address}, that the server is running, and whether it expects https:// in its address")
            }
            Kind::Unreachable { .. } => format!("Check {address}, that the server is running, and the network"),
            Kind::NoCredentials { unread_file: Some(file), .. } if s3 => format!(
                "Set {keys}; {file} is not read, but `eval \"$(aws configure export-credentials --format env)\"` sets \
                 both from it"
            ),
            Kind::NoCredentials { .. } => format!("Set {keys}"),
            Kind::WebPage { .. } => {
                format!(
                    "Check {address}: the port may belong to a web console; if a proxy responds instead, set no_proxy"
                )
            }
            Kind::NoListing { .. } if s3 => {
                "Check AWS_ENDPOINT_URL, and AWS_VIRTUAL_HOSTED_STYLE_REQUEST, which puts the bucket in the host name"
                    .into()
            }
            Kind::NoListing { .. } => format!("Check {address}"),
            Kind::Refused { message, .. } if message.contains("HTTPS") => "Write https:// in its address".into(),
            Kind::Refused { status, code, region, .. } => match (code.as_str(), region) {
                ("NoSuchBucket" | "ContainerNotFound", _) => format!("Create it, or check its name, {address}"),
                ("InvalidAccessKeyId" | "SignatureDoesNotMatch", _) => {
                    format!("Check {keys}, and that they are for {address}")
                }
                ("ExpiredToken" | "TokenRefreshRequired" | "RequestExpired", _) => {
                    format!("Set new values of {keys}{}", if s3 { ", and AWS_SESSION_TOKEN" } else { "" })
                }
                ("InvalidToken" | "InvalidClientTokenId", _) => {
                    "Set AWS_SESSION_TOKEN to the one that came with the keys, or unset it".into()
                }
                ("RequestTimeTooSkewed", _) => "Set the clock".into(),
                (_, Some(region)) if self.is_elsewhere() => format!("Set AWS_REGION={region}"),
                _ if status.is_redirection() => format!("Check {address}"),
                _ if [StatusCode::FORBIDDEN, StatusCode::UNAUTHORIZED].contains(status) => {
                    "Use credentials that may list, read, write and delete below this address".into()
                }
                _ if *status == StatusCode::INSUFFICIENT_STORAGE || code.contains("Quota") || code.contains("Full") => {
                    "Free space there".into()
                }
                _ if status.is_server_error() => "Check the server, and try again".into(),
                _ => format!("Check {address}, and that the server speaks this protocol"),
            },
        }
    }

    /// Whether the bucket is in another region.
    fn is_elsewhere(&self) -> bool {
        let codes = ["AuthorizationHeaderMalformed", "IllegalLocationConstraintException"];
        matches!(&self.kind, Kind::Refused { status, code, .. }
            if status.is_redirection() || codes.contains(&code.as_str()))
    }

    fn are_keys(&self) -> String {
        let keys = self.provider.key_variables();
        format!("{keys} {}", if keys.contains(" and ") { "are" } else { "is" })
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary())
    }
}

impl Error for Diagnosis {}

/// Explains a store's error and how to fix it: two sentences, without the final full stop.
pub fn explain(error: &(dyn Error + 'static)) -> String {
    let causes = causes(error);
    if let Some(diagnosis) = causes.iter().find_map(|cause| cause.downcast_ref::<Diagnosis>()) {
        return format!("{}. {}", diagnosis.summary(), diagnosis.remedy());
    }
    let whole = error.to_string();
    // The last of several retries; the body was written by our own client.
    if let Some((_, answer)) = whole.split_once("Server returned non-2xx status code: ") {
        let answer = answer.split_once(": ").map_or(answer, |(_, text)| text);
        let answer = element(answer, "Code").unwrap_or_else(|| clip(answer));
        return format!("{answer}{KEEPS}. Check the server, and try again");
    }
    let whole =
        whole.split_once(" error: ").filter(|(start, _)| start.starts_with("Generic ")).map_or(&*whole, |(_, w)| w);
    let kind = causes.iter().find_map(|cause| Some(cause.downcast_ref::<io::Error>()?.kind()));
    let remedy = match kind {
        Some(io::ErrorKind::PermissionDenied) => "Give this user access to it, or use another folder",
        Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => "Free space there, or use another folder",
        Some(io::ErrorKind::ReadOnlyFilesystem) => "Use a folder that is writable",
        _ => "Check that it is reachable, grants access and has space",
    };
    format!("{}. {remedy}", clip(whole.trim_end_matches('.')))
}

/// Whether a message says, in the words of [`explain`], that a store could not be reached or kept refusing, which may
/// end by itself.
pub fn is_outage(message: &str) -> bool {
    [NO_CONNECTION, KEEPS].iter().any(|words| message.contains(words))
}

/// The root cause of an error.
pub(crate) fn deepest(error: &(dyn Error + 'static)) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}

/// An error and its chain of sources, root cause last. The error inside an I/O error is not reported by `source`, so it
/// is added here.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> Vec<&'a (dyn Error + 'static)> {
    let mut all = vec![error];
    while let Some(&last) = all.last() {
        let inner = last.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let inner = inner.map(|inner| inner as &(dyn Error + 'static));
        match inner.or_else(|| last.source()) {
            Some(next) => all.push(next),
            None => break,
        }
    }
    all
}

/// The text of an XML element.
fn element(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (content, _) = rest.split_once(&format!("</{name}>"))?;
    Some(content.trim().trim_end_matches('.').into())
}

/// The first line of a text without its full stop, shortened to 200 characters.
fn clip(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default().trim_end_matches('.');
    match line.char_indices().nth(200) {
        Some((end, _)) => format!("{} …", &line[..end]),
        None => line.into(),
    }
}
