//! What is wrong with a store, in words: what it is, and what to do about it.

use std::{error::Error, fmt, io};

use reqwest::StatusCode;

/// Whose store it is, by which names the remedies go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Provider {
    S3,
    Google,
    Azure,
}

/// A failure that says more than its HTTP status.
#[derive(Debug)]
pub(crate) struct Trouble {
    provider: Provider,
    host: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// No connection.
    Unreachable { cause: String, obstacle: Obstacle },
    /// Nobody gave credentials, and there is no service that would.
    NoCredentials { cause: String },
    /// The server's own answer.
    Refused { status: StatusCode, code: String, message: String, region: Option<String> },
    /// Something else than the server's interface answered.
    WebPage { status: StatusCode },
    /// The answer to a listing is none.
    NoListing { root: String },
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Obstacle {
    UnknownName,
    Tls,
    Other,
}

impl Provider {
    /// The variables that hold the credentials.
    fn keys(self) -> &'static str {
        match self {
            Self::S3 => "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            Self::Google => "GOOGLE_APPLICATION_CREDENTIALS",
            Self::Azure => "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
        }
    }

    /// The variables that say where the server is.
    fn place(self) -> &'static str {
        match self {
            Self::S3 => "AWS_ENDPOINT_URL and AWS_REGION",
            Self::Google => "GOOGLE_BASE_URL",
            Self::Azure => "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ENDPOINT",
        }
    }
}

impl Trouble {
    /// `error` stood in the way to `host`.
    pub fn unreachable(provider: Provider, host: String, error: &(dyn Error + 'static)) -> Self {
        let (causes, cause) = (causes(error), deepest(error));
        let unknown = ["Name or service not known", "No address associated", "Name does not resolve"];
        let obstacle = if causes.iter().any(|cause| cause.is::<rustls::Error>()) {
            Obstacle::Tls
        } else if unknown.iter().any(|words| cause.contains(words)) {
            Obstacle::UnknownName
        } else {
            Obstacle::Other
        };
        Self { provider, host, kind: Kind::Unreachable { cause, obstacle } }
    }

    /// Nobody gave credentials, and `host`, which would, has none.
    pub fn no_credentials(provider: Provider, host: String, cause: String) -> Self {
        Self { provider, host, kind: Kind::NoCredentials { cause } }
    }

    /// `host` answered with `status` and an explanation.
    pub fn refused(provider: Provider, host: String, status: StatusCode, body: &[u8], region: Option<&str>) -> Self {
        let text = String::from_utf8_lossy(body);
        let code = element(&text, "Code").unwrap_or_default();
        // Some say in plain words what is wrong.
        let plain = || match text.trim_start().starts_with('<') {
            true => String::new(),
            false => text.trim().trim_end_matches('.').into(),
        };
        let message = element(&text, "Message").unwrap_or_else(plain);
        let region = region.map(Into::into).or_else(|| element(&text, "Region"));
        Self { provider, host, kind: Kind::Refused { status, code, message, region } }
    }

    /// `host` answered for people.
    pub fn web_page(provider: Provider, host: String, status: StatusCode) -> Self {
        Self { provider, host, kind: Kind::WebPage { status } }
    }

    /// What is wrong with the answer to a listing, if it is none.
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

    /// Whether asking again would help no more, as long as the server has never answered.
    pub fn is_final(&self) -> bool {
        match &self.kind {
            Kind::Unreachable { obstacle, .. } => *obstacle != Obstacle::Other,
            _ => true,
        }
    }

    /// Whether it is the bucket that is not there, and not an object in it.
    pub fn is_about_the_bucket(&self) -> bool {
        matches!(&self.kind, Kind::Refused { code, .. } if ["NoSuchBucket", "ContainerNotFound"].contains(&code.as_str()))
    }

    /// What is wrong.
    pub fn words(&self) -> String {
        let host = &self.host;
        match &self.kind {
            Kind::Unreachable { obstacle: Obstacle::UnknownName, .. } => format!("there is no host {host}"),
            Kind::Unreachable { cause, obstacle: Obstacle::Tls } => {
                format!("no encrypted connection to {host} ({})", clip(cause))
            }
            Kind::Unreachable { cause, .. } => format!("no connection to {host} ({})", clip(cause)),
            Kind::NoCredentials { cause } => {
                format!("no credentials: {} not set, and {host} has none ({})", self.are_keys(), clip(cause))
            }
            Kind::WebPage { status } => format!("{host} answers with a web page ({status}), as no store does"),
            Kind::NoListing { root } if root.is_empty() => format!("what {host} answers is no listing of the bucket"),
            Kind::NoListing { root } => format!("{host} answers with <{root}>, which is no listing of the bucket"),
            Kind::Refused { status, code, message, region } => {
                let phrase = match (code.as_str(), region) {
                    ("NoSuchBucket" | "ContainerNotFound", _) => format!("{host} has no such bucket"),
                    ("InvalidAccessKeyId", _) => format!("{host} does not know the access key"),
                    ("SignatureDoesNotMatch", _) => format!("to {host}, the secret key does not fit the access key"),
                    ("ExpiredToken" | "TokenRefreshRequired" | "RequestExpired", _) => {
                        "the credentials have expired".into()
                    }
                    ("RequestTimeTooSkewed", _) => "the clock of this machine differs from the server's".into(),
                    ("InvalidToken" | "InvalidClientTokenId", _) => "the session token is not valid".into(),
                    (_, Some(region)) if self.is_elsewhere() => format!("the bucket is in the region {region}"),
                    ("", _) if message.is_empty() => return format!("{host} answers {status}"),
                    ("", _) => return format!("{host} answers {status}: {}", clip(message)),
                    (code, _) if message.is_empty() => return format!("{host} answers {status}, {code}"),
                    (code, _) => return format!("{host} answers {status}, {code}: {}", clip(message)),
                };
                if code.is_empty() { phrase } else { format!("{phrase} ({code})") }
            }
        }
    }

    /// What to do about it.
    fn fix(&self) -> String {
        let (keys, place) = (self.provider.keys(), self.provider.place());
        let s3 = self.provider == Provider::S3;
        match &self.kind {
            Kind::Unreachable { cause, obstacle: Obstacle::Tls } if cause.contains("InvalidContentType") => {
                "The server seems not to use TLS: write http:// in its address and set AWS_ALLOW_HTTP=true".into()
            }
            Kind::Unreachable { obstacle: Obstacle::Tls, .. } => {
                "Set SSL_CERT_FILE to the certificate of the server's authority, and check the address".into()
            }
            Kind::Unreachable { cause, .. } if cause.contains("reset by peer") => {
                format!("Check {place}, that the server runs, and whether it wants https:// in its address")
            }
            Kind::Unreachable { .. } => format!("Check {place}, that the server runs, and the network"),
            Kind::NoCredentials { .. } if s3 => format!(
                "Set {keys}; the files in ~/.aws are not read, but `eval \"$(aws configure export-credentials --format \
                 env)\"` sets both from them"
            ),
            Kind::NoCredentials { .. } => format!("Set {keys}"),
            Kind::WebPage { .. } => {
                format!(
                    "Check {place}: the port may be that of a console; or a proxy answers instead, which no_proxy avoids"
                )
            }
            Kind::NoListing { .. } if s3 => {
                "Check AWS_ENDPOINT_URL, and AWS_VIRTUAL_HOSTED_STYLE_REQUEST, which puts the bucket in the host's name"
                    .into()
            }
            Kind::NoListing { .. } => format!("Check {place}"),
            Kind::Refused { message, .. } if message.contains("HTTPS") => "Write https:// in its address".into(),
            Kind::Refused { status, code, region, .. } => match (code.as_str(), region) {
                ("NoSuchBucket" | "ContainerNotFound", _) => format!("Create it, or check its name, {place}"),
                ("InvalidAccessKeyId" | "SignatureDoesNotMatch", _) => {
                    format!("Check {keys}, and that they are for {place}")
                }
                ("ExpiredToken" | "TokenRefreshRequired" | "RequestExpired", _) => {
                    format!("Set {keys} anew{}", if s3 { ", and AWS_SESSION_TOKEN" } else { "" })
                }
                ("InvalidToken" | "InvalidClientTokenId", _) => {
                    "Set AWS_SESSION_TOKEN to the one that came with the keys, or unset it".into()
                }
                ("RequestTimeTooSkewed", _) => "Set the clock".into(),
                (_, Some(region)) if self.is_elsewhere() => format!("Set AWS_REGION={region}"),
                _ if status.is_redirection() => format!("Check {place}"),
                _ if [StatusCode::FORBIDDEN, StatusCode::UNAUTHORIZED].contains(status) => {
                    "Use credentials that may list, read, write and delete below this address".into()
                }
                _ if *status == StatusCode::INSUFFICIENT_STORAGE || code.contains("Quota") || code.contains("Full") => {
                    "Free space there".into()
                }
                _ if status.is_server_error() => "See what ails the server, and try again".into(),
                _ => format!("Check {place}, and that this is a server of that kind"),
            },
        }
    }

    /// Whether another region's server should have been asked.
    fn is_elsewhere(&self) -> bool {
        let codes = ["AuthorizationHeaderMalformed", "IllegalLocationConstraintException"];
        matches!(&self.kind, Kind::Refused { status, code, .. }
            if status.is_redirection() || codes.contains(&code.as_str()))
    }

    fn are_keys(&self) -> String {
        let keys = self.provider.keys();
        format!("{keys} {}", if keys.contains(" and ") { "are" } else { "is" })
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words())
    }
}

impl Error for Trouble {}

/// What went wrong with a store, and what to do about it: two sentences, without the last full stop.
pub(crate) fn explain(error: &(dyn Error + 'static)) -> String {
    let causes = causes(error);
    if let Some(trouble) = causes.iter().find_map(|cause| cause.downcast_ref::<Trouble>()) {
        return format!("{}. {}", trouble.words(), trouble.fix());
    }
    let whole = error.to_string();
    // What repetitions ended in; the body is ours: see the client.
    if let Some((_, answer)) = whole.split_once("Server returned non-2xx status code: ") {
        let answer = answer.split_once(": ").map_or(answer, |(_, words)| words);
        return format!("{}, and kept doing so. See what ails the server, and try again", clip(answer));
    }
    let whole =
        whole.split_once(" error: ").filter(|(start, _)| start.starts_with("Generic ")).map_or(&*whole, |(_, w)| w);
    let kind = causes.iter().find_map(|cause| Some(cause.downcast_ref::<io::Error>()?.kind()));
    let fix = match kind {
        Some(io::ErrorKind::PermissionDenied) => "Give this user access to it, or name another folder",
        Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => "Free space there, or name another folder",
        Some(io::ErrorKind::ReadOnlyFilesystem) => "Name a folder that can be written",
        _ => "Check that it is reachable, grants access and has space",
    };
    format!("{}. {fix}", clip(whole.trim_end_matches('.')))
}

/// What is behind an error, in the end.
pub(crate) fn deepest(error: &(dyn Error + 'static)) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}

/// An error and all that is behind it, the deepest last. The one inside an I/O error is no source of it.
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

/// The first line of a text, not too much of it.
fn clip(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(200) {
        Some((end, _)) => format!("{} …", &line[..end]),
        None => line.into(),
    }
}
