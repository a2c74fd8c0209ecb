//! The HTTP client underneath object_store's: it sees each request before retries hide what is wrong.
//!
//! Permanent errors are not retried: a host that does not exist, missing credentials, a request that was refused.
//! Retries are logged, and at once if somebody waits; so is a server that is silent. And a response is accepted only if
//! it comes from an object store: object_store parses any XML as an empty listing, even a list of buckets or an error
//! page.

use std::{
    collections::BTreeSet,
    io,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
    },
};
use reqwest::{
    Method, StatusCode,
    header::{CONTENT_TYPE, HeaderMap},
};
use tokio::time::timeout;

use crate::{
    credentials::CredentialServices,
    diagnosis::{Diagnosis, Provider, deepest},
    patience::is_interactive,
};

/// Consecutive failures count as an outage once they have lasted this long, and so does a single one that took
/// [`SINGLE_FAILURE`]. An outage is logged then, and again every [`REPORT_INTERVAL`].
const OUTAGE: Duration = Duration::from_secs(1);
const SINGLE_FAILURE: Duration = Duration::from_secs(4);
const REPORT_INTERVAL: Duration = Duration::from_secs(30);
/// If somebody waits, failures count as an outage after this long, and so does silence after [`SILENCE`].
const PROMPT: Duration = Duration::from_millis(300);
const SILENCE: Duration = Duration::from_millis(1500);
/// The least time that a silent server is given: connecting may take as long.
const LEAST_PATIENCE: Duration = Duration::from_secs(5);

/// Builds the HTTP clients of one store.
#[derive(Clone, Debug)]
pub(crate) struct Connector(Arc<Watch>);

/// What is known about a store's servers.
#[derive(Debug)]
struct Watch {
    uri: String,
    provider: Provider,
    retry_timeout: Duration,
    services: CredentialServices,
    interactive: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The failures since the last successful request.
    outage: Option<Outage>,
    /// The hosts that have responded at least once.
    responding: BTreeSet<String>,
}

#[derive(Debug)]
struct Outage {
    since: Instant,
    failures: u32,
    /// When it was last logged.
    reported: Option<Instant>,
}

#[derive(Debug)]
struct Client {
    inner: HttpClient,
    watch: Arc<Watch>,
}

impl Connector {
    /// For the store at `uri`, whose requests are retried for `retry_timeout` and whose credentials come from `services`.
    pub fn new(uri: &str, provider: Provider, retry_timeout: Duration, services: CredentialServices) -> Self {
        let (uri, interactive, state) = (uri.into(), is_interactive(), Mutex::default());
        Self(Arc::new(Watch { uri, provider, retry_timeout, services, interactive, state }))
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Client { inner, watch: Arc::clone(&self.0) }))
    }
}

impl HttpService for Client {
    fn call<'a, 'b>(
        &'a self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(self.send(request))
    }
}

impl Client {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let started = Instant::now();
        let host = request.uri().authority().map_or(String::new(), |host| host.to_string());
        let (watch, service) = (&self.watch, self.watch.credential_service(&host));
        let lists = request.method() == Method::GET && is_listing(request.uri().query().unwrap_or_default());
        let response = match self.execute(request, started, &host).await {
            Ok(response) => response,
            Err(error) => {
                let diagnosis = match service {
                    Some(CredentialService::Metadata) => watch.no_credentials(host.clone(), deepest(&error)),
                    Some(CredentialService::Token) | None => {
                        Diagnosis::unreachable(watch.provider, host.clone(), &error)
                    }
                };
                // A server that has responded before may come back; one that never has is misspelt or does not exist.
                let kind = match diagnosis.is_permanent() && !watch.has_responded(&host) {
                    true => HttpErrorKind::Unknown,
                    false => error.kind(),
                };
                if kind != HttpErrorKind::Unknown {
                    watch.record_failure(started, &diagnosis);
                }
                return Err(HttpError::new(kind, diagnosis));
            }
        };
        watch.mark_responding(host.clone());
        let status = response.status();
        let busy = [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT];
        if status.is_server_error() || busy.contains(&status) {
            let (parts, body) = response.into_parts();
            let diagnosis = Diagnosis::refused(watch.provider, host, status, &body.bytes().await?, None);
            watch.record_failure(started, &diagnosis);
            return Ok(HttpResponse::from_parts(parts, diagnosis.summary().into()));
        }
        match service {
            Some(CredentialService::Metadata) => {
                let can_fall_back = status == StatusCode::FORBIDDEN && watch.services.imds_v1_fallback;
                return match status.is_client_error() && !can_fall_back {
                    true => Err(permanent(watch.no_credentials(host, status.to_string()))),
                    false => Ok(response),
                };
            }
            Some(CredentialService::Token) if status.is_client_error() => {
                let body = response.into_parts().1.bytes().await?;
                return Err(permanent(Diagnosis::refused(watch.provider, host, status, &body, None)));
            }
            Some(CredentialService::Token) => return Ok(response),
            None => {}
        }
        watch.record_success();
        let is_text = declares_web_page(response.headers());
        if status.is_success() && !lists && !is_text {
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        let body = body.bytes().await?;
        if is_text && is_web_page(&body) {
            return Err(permanent(Diagnosis::web_page(watch.provider, host, status)));
        }
        if status.is_success() {
            return match lists.then(|| Diagnosis::no_listing(watch.provider, host, &body)).flatten() {
                Some(diagnosis) => Err(permanent(diagnosis)),
                None => Ok(HttpResponse::from_parts(parts, body.into())),
            };
        }
        let region = parts.headers.get("x-amz-bucket-region").and_then(|region| region.to_str().ok());
        let diagnosis = Diagnosis::refused(watch.provider, host, status, &body, region);
        // The protocol handles these responses itself.
        let absent = status == StatusCode::NOT_FOUND && !lists && !diagnosis.is_about_the_bucket();
        let conditions = [StatusCode::NOT_MODIFIED, StatusCode::CONFLICT, StatusCode::PRECONDITION_FAILED];
        match absent || conditions.contains(&status) {
            true => Ok(HttpResponse::from_parts(parts, body.into())),
            false => Err(permanent(diagnosis)),
        }
    }

    /// Sends the request. If somebody waits, silence is reported, and ends with the time for retries: the limit on the
    /// whole request is meant for the transfer of a large part.
    async fn execute(&self, request: HttpRequest, started: Instant, host: &str) -> Result<HttpResponse, HttpError> {
        // A server responds to a request with a body only once it has the body.
        let awaited = self.watch.interactive && request.body().content_length() == 0;
        let mut response = pin!(self.inner.execute(request));
        if !awaited {
            return response.await;
        }
        if let Ok(response) = timeout(SILENCE, &mut response).await {
            return response;
        }
        let patience = self.watch.record_silence(started, host);
        timeout(patience.saturating_sub(SILENCE), response).await.unwrap_or_else(|_| {
            let silent = format!("no response within {:.0} s", started.elapsed().as_secs_f64());
            Err(HttpError::new(HttpErrorKind::Timeout, io::Error::new(io::ErrorKind::TimedOut, silent)))
        })
    }
}

/// Where credentials come from that are not in the environment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CredentialService {
    /// The machine's or container's own; where it does not exist, there are simply no credentials.
    Metadata,
    /// One on the network that exchanges an identity for credentials, as reliable as a store: it may be busy, or refuse.
    Token,
}

impl Watch {
    /// What a host that serves credentials is; none if it does not.
    fn credential_service(&self, host: &str) -> Option<CredentialService> {
        let is = |known: &[&str]| known.iter().any(|start| host.starts_with(start));
        if is(&["169.254.", "[fd00:ec2", "metadata.google.internal"]) || self.services.hosts.iter().any(|a| a == host) {
            Some(CredentialService::Metadata)
        } else if is(&["sts.", "oauth2.google", "login.microsoft"]) {
            Some(CredentialService::Token)
        } else {
            None
        }
    }

    /// `host`, which serves credentials, has none, because of `cause`.
    fn no_credentials(&self, host: String, cause: String) -> Diagnosis {
        Diagnosis::no_credentials(self.provider, host, cause, self.services.unread_file.clone())
    }

    fn record_failure(&self, started: Instant, diagnosis: &Diagnosis) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let outage = state.outage.get_or_insert(Outage { since: started, failures: 0, reported: None });
        outage.failures += 1;
        let least = match outage.failures {
            _ if self.interactive => PROMPT,
            1 => SINGLE_FAILURE,
            _ => OUTAGE,
        };
        if outage.since.elapsed() >= least {
            self.report(outage, &diagnosis.summary());
        }
    }

    /// Reports that a request has had no response yet; returns how long it may take in all.
    fn record_silence(&self, started: Instant, host: &str) -> Duration {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let outage = state.outage.get_or_insert(Outage { since: started, failures: 0, reported: None });
        self.report(outage, &format!("no response from {host} yet"));
        let before = started.saturating_duration_since(outage.since);
        self.retry_timeout.saturating_sub(before).max(LEAST_PATIENCE)
    }

    fn report(&self, outage: &mut Outage, what: &str) {
        if outage.reported.is_none_or(|reported| reported.elapsed() >= REPORT_INTERVAL) {
            outage.reported = Some(Instant::now());
            tracing::warn!("{}: {what}; retrying for up to {:?}", self.uri, self.retry_timeout);
        }
    }

    fn record_success(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Outage { since, reported: Some(_), .. }) = state.outage.take() {
            tracing::info!("{} responds again after {:.0} s", self.uri, since.elapsed().as_secs_f64());
        }
    }

    fn has_responded(&self, host: &str) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).responding.contains(host)
    }

    fn mark_responding(&self, host: String) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).responding.insert(host);
    }
}

/// A permanent error: a retry would get the same response.
fn permanent(diagnosis: Diagnosis) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, diagnosis)
}

/// Whether a query requests a listing: S3's and Google's form, or Azure's.
fn is_listing(query: &str) -> bool {
    query.split('&').any(|pair| ["list-type=2", "comp=list"].contains(&pair))
}

/// Whether the headers declare a web page; some servers declare everything as one.
fn declares_web_page(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.starts_with("text/html") || kind.starts_with("application/xhtml")
}

/// Whether the body is a web page.
fn is_web_page(body: &[u8]) -> bool {
    let start = body.trim_ascii_start();
    ["<!doctype html", "<html"]
        .iter()
        .any(|tag| start.len() >= tag.len() && start[..tag.len()].eq_ignore_ascii_case(tag.as_bytes()))
}
