//! The HTTP client below a store's: it sees each request before its repetitions hide what is wrong.
//!
//! What can be known at once is not repeated: a host that does not exist, credentials that are not there, a request that
//! was refused. What is repeated is reported. And an answer counts only if it is one of a store: object_store takes any
//! XML for an empty listing, a list of buckets or an error page included.

use std::{
    collections::BTreeSet,
    pin::Pin,
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

use crate::{
    endpoint::Agents,
    trouble::{Provider, Trouble, deepest},
};

/// Failures in a row are an outage once they have lasted so long, and so is a single one that took [`LONG`]. It is
/// reported then, and every [`AGAIN`].
const OUTAGE: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(4);
const AGAIN: Duration = Duration::from_secs(30);

/// Makes the clients of one store.
#[derive(Clone, Debug)]
pub(crate) struct Connector(Arc<Watch>);

/// What is known of a store's servers.
#[derive(Debug)]
struct Watch {
    uri: String,
    provider: Provider,
    retry_timeout: Duration,
    agents: Agents,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The failures since a request last succeeded.
    outage: Option<Outage>,
    /// The hosts that have answered.
    met: BTreeSet<String>,
}

#[derive(Debug)]
struct Outage {
    since: Instant,
    failures: u32,
    /// When it was last reported.
    reported: Option<Instant>,
}

#[derive(Debug)]
struct Client {
    below: HttpClient,
    watch: Arc<Watch>,
}

impl Connector {
    /// For the store at `uri`, whose requests are repeated for `retry_timeout`, and for whose credentials `agents` are
    /// asked.
    pub fn new(uri: &str, provider: Provider, retry_timeout: Duration, agents: Agents) -> Self {
        Self(Arc::new(Watch { uri: uri.into(), provider, retry_timeout, agents, state: Mutex::default() }))
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let below = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Client { below, watch: Arc::clone(&self.0) }))
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
        Box::pin(self.ask(request))
    }
}

impl Client {
    async fn ask(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let begun = Instant::now();
        let host = request.uri().authority().map_or(String::new(), |host| host.to_string());
        let (watch, credentials) = (&self.watch, self.watch.asks_for_credentials(&host));
        let lists = request.method() == Method::GET && is_listing(request.uri().query().unwrap_or_default());
        let answer = match self.below.execute(request).await {
            Ok(answer) => answer,
            Err(error) => {
                let trouble = match credentials {
                    true => Trouble::no_credentials(watch.provider, host.clone(), deepest(&error)),
                    false => Trouble::unreachable(watch.provider, host.clone(), &error),
                };
                // A server that has answered before may come back; one that never has is misspelt or not there.
                let kind = match trouble.is_final() && !watch.has_met(&host) {
                    true => HttpErrorKind::Unknown,
                    false => error.kind(),
                };
                if kind != HttpErrorKind::Unknown {
                    watch.failed(begun, &trouble);
                }
                return Err(HttpError::new(kind, trouble));
            }
        };
        watch.meets(host.clone());
        let status = answer.status();
        if credentials {
            let older = status == StatusCode::FORBIDDEN && watch.agents.falls_back;
            return match status.is_client_error() && !older {
                true => Err(refused(Trouble::no_credentials(watch.provider, host, status.to_string()))),
                false => Ok(answer),
            };
        }
        let busy = [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT];
        if status.is_server_error() || busy.contains(&status) {
            let (parts, body) = answer.into_parts();
            let trouble = Trouble::refused(watch.provider, host, status, &body.bytes().await?, None);
            watch.failed(begun, &trouble);
            return Ok(HttpResponse::from_parts(parts, trouble.words().into()));
        }
        watch.succeeded();
        let is_text = is_text_for_people(answer.headers());
        if status.is_success() && !lists && !is_text {
            return Ok(answer);
        }
        let (parts, body) = answer.into_parts();
        let body = body.bytes().await?;
        if is_text && is_web_page(&body) {
            return Err(refused(Trouble::web_page(watch.provider, host, status)));
        }
        if status.is_success() {
            return match lists.then(|| Trouble::no_listing(watch.provider, host, &body)).flatten() {
                Some(trouble) => Err(refused(trouble)),
                None => Ok(HttpResponse::from_parts(parts, body.into())),
            };
        }
        let region = parts.headers.get("x-amz-bucket-region").and_then(|region| region.to_str().ok());
        let trouble = Trouble::refused(watch.provider, host, status, &body, region);
        // These are answers that the protocol knows what to do with.
        let absent = status == StatusCode::NOT_FOUND && !lists && !trouble.is_about_the_bucket();
        let conditions = [StatusCode::NOT_MODIFIED, StatusCode::CONFLICT, StatusCode::PRECONDITION_FAILED];
        match absent || conditions.contains(&status) {
            true => Ok(HttpResponse::from_parts(parts, body.into())),
            false => Err(refused(trouble)),
        }
    }
}

impl Watch {
    /// Whether a host is where credentials come from: an instance's metadata, a container's agent, a token service.
    fn asks_for_credentials(&self, host: &str) -> bool {
        let known = ["169.254.", "[fd00:ec2", "metadata.google.internal", "sts.", "oauth2.google", "login.microsoft"];
        known.iter().any(|start| host.starts_with(start)) || self.agents.hosts.iter().any(|agent| agent == host)
    }

    fn failed(&self, begun: Instant, trouble: &Trouble) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let outage = state.outage.get_or_insert(Outage { since: begun, failures: 0, reported: None });
        outage.failures += 1;
        let least = if outage.failures > 1 { OUTAGE } else { LONG };
        if outage.since.elapsed() >= least && outage.reported.is_none_or(|reported| reported.elapsed() >= AGAIN) {
            outage.reported = Some(Instant::now());
            tracing::warn!("{}: {}; trying again, for up to {:?}", self.uri, trouble.words(), self.retry_timeout);
        }
    }

    fn succeeded(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Outage { since, reported: Some(_), .. }) = state.outage.take() {
            tracing::info!("{} answers again, after {:.0} s", self.uri, since.elapsed().as_secs_f64());
        }
    }

    fn has_met(&self, host: &str) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).met.contains(host)
    }

    fn meets(&self, host: String) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).met.insert(host);
    }
}

/// An answer that will be the same however often it is asked for.
fn refused(trouble: Trouble) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, trouble)
}

/// Whether a query asks for a listing: S3's and Google's, or Azure's.
fn is_listing(query: &str) -> bool {
    query.split('&').any(|pair| ["list-type=2", "comp=list"].contains(&pair))
}

/// Whether an answer is said to be a web page; some servers say so of everything.
fn is_text_for_people(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.starts_with("text/html") || kind.starts_with("application/xhtml")
}

/// Whether it is one.
fn is_web_page(body: &[u8]) -> bool {
    let start = body.trim_ascii_start();
    ["<!doctype html", "<html"]
        .iter()
        .any(|tag| start.len() >= tag.len() && start[..tag.len()].eq_ignore_ascii_case(tag.as_bytes()))
}
