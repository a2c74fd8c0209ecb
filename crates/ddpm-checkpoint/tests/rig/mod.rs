//! A fault rig: an S3 server on a directory, behind a proxy that fails by rule.
//!
//! Every request and response passes through [`Rig`], which identifies the operation, finds the first rule that
//! applies, and then refuses, loses, delays, truncates or alters the message. The server behind it is a real one and
//! checks every signature.
#![allow(dead_code, reason = "each test that includes this file uses a part of it")]

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    sync::Mutex,
    time::Duration,
};

use futures::{StreamExt, stream, stream::BoxStream};
use http_body_util::{BodyExt, StreamBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Frame, Incoming},
    header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, IF_MATCH},
    http::{request::Parts, uri::PathAndQuery},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use s3s::{auth::SimpleAuth, host::SingleDomain, service::S3Service, service::S3ServiceBuilder};

use tokio::{net::TcpListener, runtime::Runtime, time::sleep};

mod rules;

pub use rules::{Fault, Op, Rule};

/// The one bucket of the server.
pub const BUCKET: &str = "bucket";
const KEY_ID: &str = "rig";
const SECRET: &str = "rig-secret";

/// The domain of a server with virtual-hosted addressing.
const DOMAIN: &str = "s3.rig";

/// Where a request puts the bucket name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// First in the path, as with MinIO.
    Path,
    /// First in the host name, as with AWS. The name does not resolve: the rig acts as the client's HTTP proxy.
    VirtualHost,
}

/// The server and its proxy, on their own threads, until dropped.
pub struct Rig {
    address: SocketAddr,
    addressing: Addressing,
    proxy: Arc<Proxy>,
    runtime: Option<Runtime>,
}

struct Proxy {
    root: PathBuf,
    addressing: Addressing,
    server: S3Service,
    rules: Mutex<Vec<Watched>>,
    /// Operation, key and headers of each request that arrived.
    seen: Mutex<Vec<(Op, String, HeaderMap)>>,
    /// Parts of uploads currently being received or delayed, and the maximum so far.
    parts: Mutex<(usize, usize)>,
}

/// A rule with its counters.
struct Watched {
    rule: Rule,
    /// How many requests have matched it.
    matched: u64,
    /// Whether it has made one of them fail.
    fired: bool,
}

type Answer = Response<StreamBody<BoxStream<'static, io::Result<Frame<Bytes>>>>>;

impl Rig {
    /// Serves the directory `root` on `port` of the loopback interface; 0 takes any that is free.
    pub fn start(root: &Path, port: u16, addressing: Addressing, rules: Vec<Rule>) -> io::Result<Self> {
        std::fs::create_dir_all(root.join(BUCKET))?;
        let files = s3s_fs::FileSystem::new(root).map_err(|e| io::Error::other(format!("{e:?}")))?;
        let mut server = S3ServiceBuilder::new(files);
        server.set_auth(SimpleAuth::from_single(KEY_ID, SECRET));
        if addressing == Addressing::VirtualHost {
            server.set_host(SingleDomain::new(DOMAIN).map_err(io::Error::other)?);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", port)))?;
        let address = listener.local_addr()?;
        let proxy = Arc::new(Proxy {
            root: root.into(),
            addressing,
            server: server.build(),
            rules: Mutex::default(),
            seen: Mutex::default(),
            parts: Mutex::default(),
        });
        let serving = Arc::clone(&proxy);
        runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let proxy = Arc::clone(&serving);
                let service = service_fn(move |request| Arc::clone(&proxy).answer(request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
            }
        });
        let rig = Self { address, addressing, proxy, runtime: Some(runtime) };
        rig.set_rules(rules);
        Ok(rig)
    }

    /// Replaces the rules and returns the old ones that never fired: a test that relied on them has tested nothing.
    pub fn set_rules(&self, rules: Vec<Rule>) -> Vec<Rule> {
        let rules = rules.into_iter().map(|rule| Watched { rule, matched: 0, fired: false }).collect();
        let old = std::mem::replace(&mut *self.proxy.rules.lock().unwrap(), rules);
        old.into_iter().filter(|watched| !watched.fired).map(|watched| watched.rule).collect()
    }

    /// How many requests for this operation on keys that contain `key` have arrived, including failed ones.
    pub fn seen(&self, op: Op, key: &str) -> usize {
        let seen = self.proxy.seen.lock().unwrap();
        seen.iter().filter(|(its_op, its_key, _)| *its_op == op && its_key.contains(key)).count()
    }

    /// This header of each request for this operation; empty where it is missing.
    pub fn sent(&self, op: Op, header: &str) -> Vec<String> {
        let seen = self.proxy.seen.lock().unwrap();
        let requests = seen.iter().filter(|(its_op, ..)| *its_op == op);
        let values = requests.map(|(_, _, headers)| headers.get(header).map_or("", |value| value.to_str().unwrap()));
        values.map(Into::into).collect()
    }

    /// The maximum number of parts that were in flight at once.
    pub fn most_parts(&self) -> usize {
        self.proxy.parts.lock().unwrap().1
    }

    /// The address of the proxy.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The environment variables that a client needs.
    pub fn env(&self) -> Vec<(String, String)> {
        match self.addressing {
            Addressing::Path => s3_env(&self.endpoint()),
            Addressing::VirtualHost => {
                let mut env = s3_env(&format!("http://{BUCKET}.{DOMAIN}"));
                env.push(("AWS_VIRTUAL_HOSTED_STYLE_REQUEST".into(), "true".into()));
                env.push(("AWS_PROXY_URL".into(), self.endpoint()));
                env
            }
        }
    }
}

/// The environment variables for an S3 server that has the rig's credentials, or accepts any.
pub fn s3_env(endpoint: &str) -> Vec<(String, String)> {
    let variables = [
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", KEY_ID),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
    ];
    variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Proxy {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> io::Result<Answer> {
        let is_part = request.method() == Method::PUT && request.uri().query().unwrap_or("").contains("partNumber");
        if is_part {
            let mut parts = self.parts.lock().unwrap();
            parts.0 += 1;
            parts.1 = parts.1.max(parts.0);
        }
        let answer = self.respond(request).await;
        self.parts.lock().unwrap().0 -= is_part as usize;
        answer
    }

    async fn respond(&self, request: Request<Incoming>) -> io::Result<Answer> {
        let (mut parts, mut body) = request.into_parts();
        // A client that uses us as a proxy puts the host before the path.
        let target = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        parts.uri = target.parse().map_err(io::Error::other)?;
        let (op, key) = name(&parts, self.addressing);
        let fault = self.fault(op, &key);
        self.seen.lock().unwrap().push((op, key.clone(), parts.headers.clone()));
        let (limit, rate) = match fault {
            Some(Fault::CutRequest { at }) => (at, u64::MAX),
            Some(Fault::Slow { bytes_per_s }) => (usize::MAX, bytes_per_s),
            _ => (usize::MAX, u64::MAX),
        };
        let mut content = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(bytes) = frame.map_err(io::Error::other)?.into_data() else { continue };
            sleep(time(bytes.len(), rate)).await;
            content.extend_from_slice(&bytes);
            if content.len() >= limit {
                return Err(closed());
            }
        }
        match &fault {
            Some(Fault::Refuse { status, code }) => return Ok(error(*status, code)),
            Some(Fault::CutRequest { .. }) => return Err(closed()),
            Some(Fault::QuotedEtag)
                if parts.headers.get(IF_MATCH).is_some_and(|etag| etag.as_bytes().starts_with(b"\"")) =>
            {
                return Ok(error(412, "PreconditionFailed"));
            }
            Some(Fault::Delay { ms }) => sleep(Duration::from_millis(*ms)).await,
            Some(Fault::Overwrite) => drop(std::fs::remove_file(self.root.join(BUCKET).join(&key))),
            Some(Fault::Flip { at }) if !content.is_empty() => flip(&mut content, *at),
            _ => (),
        }
        let sent = !content.is_empty();
        parts.extensions.clear();
        let request = Request::from_parts(parts, s3s::Body::from(content));
        let answer = self.server.call(request).await.map_err(|e| io::Error::other(format!("{e:?}")))?;
        let (parts, mut body) = answer.into_parts();
        // s3s-fs reads a file to its end even if only a range was requested.
        let length = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let mut content = Vec::new();
        while content.len() < length.unwrap_or(usize::MAX)
            && let Some(frame) = body.frame().await
        {
            content.extend_from_slice(&frame.map_err(io::Error::other)?.into_data().unwrap_or_default());
        }
        let whole = Response::from_parts(parts, ());
        match fault {
            Some(Fault::Deny { status, code }) => Ok(error(status, &code)),
            Some(Fault::LoseAnswer) => Err(closed()),
            Some(Fault::CutAnswer { at }) => {
                content.truncate(at);
                let pieces = vec![Ok(Frame::data(content.into())), Err(closed())];
                Ok(whole.map(|()| StreamBody::new(stream::iter(pieces).boxed())))
            }
            Some(Fault::Slow { bytes_per_s }) => {
                let pieces: Vec<_> = content.chunks(1 << 16).map(Bytes::copy_from_slice).collect();
                let crawl = stream::iter(pieces).then(move |piece| async move {
                    sleep(time(piece.len(), bytes_per_s)).await;
                    Ok(Frame::data(piece))
                });
                Ok(whole.map(|()| StreamBody::new(crawl.boxed())))
            }
            Some(Fault::Flip { at }) if !sent && !content.is_empty() => {
                flip(&mut content, at);
                Ok(whole.map(|()| once(content)))
            }
            _ => Ok(whole.map(|()| once(content))),
        }
    }

    /// The fault of the first rule that fires for this request.
    fn fault(&self, op: Op, key: &str) -> Option<Fault> {
        let mut rules = self.rules.lock().unwrap();
        rules.iter_mut().find_map(|Watched { rule, matched, fired }| {
            if rule.op.is_some_and(|wanted| wanted != op) || !key.contains(&rule.key) {
                return None;
            }
            *matched += 1;
            let at = matched.checked_sub(rule.skip + 1)?;
            // A fixed pseudo-random sequence, so that a failing test fails again.
            let chance = (at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let chance = (chance ^ (chance >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33;
            let fires = rule.times.is_none_or(|times| at < times) && chance % 100 < rule.percent;
            *fired |= fires;
            fires.then(|| rule.fault.clone())
        })
    }
}

/// The operation, and its key or prefix.
fn name(request: &Parts, addressing: Addressing) -> (Op, String) {
    let query = request.uri.query().unwrap_or("");
    let asks = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    let path = request.uri.path().trim_start_matches('/');
    let key = match addressing {
        Addressing::Path => path.split_once('/').map_or("", |(_, key)| key),
        Addressing::VirtualHost => path,
    };
    let op = match request.method {
        Method::POST if asks("uploads") => Op::CreateMultipartUpload,
        Method::POST if asks("uploadId") => Op::CompleteMultipartUpload,
        Method::PUT if asks("partNumber") => Op::UploadPart,
        Method::PUT if request.headers.contains_key("x-amz-copy-source") => Op::CopyObject,
        Method::PUT => Op::PutObject,
        Method::GET if key.is_empty() => Op::ListObjectsV2,
        Method::GET => Op::GetObject,
        Method::HEAD => Op::HeadObject,
        Method::DELETE if asks("uploadId") => Op::AbortMultipartUpload,
        Method::DELETE => Op::DeleteObject,
        _ => Op::Other,
    };
    let prefix = query.split('&').find_map(|pair| pair.strip_prefix("prefix=")).unwrap_or("");
    let key = if key.is_empty() { prefix } else { key };
    (op, key.replace("%2F", "/"))
}

fn flip(bytes: &mut [u8], at: usize) {
    let at = at % bytes.len();
    bytes[at] ^= 1;
}

fn time(bytes: usize, bytes_per_s: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / bytes_per_s as f64)
}

fn closed() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

fn once(content: Vec<u8>) -> StreamBody<BoxStream<'static, io::Result<Frame<Bytes>>>> {
    StreamBody::new(stream::iter([Ok(Frame::data(Bytes::from(content)))]).boxed())
}

fn error(status: u16, code: &str) -> Answer {
    let xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>by rule</Message></Error>"
    );
    let mut answer = Response::new(());
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(xml.len()));
    answer.map(|()| once(xml.into_bytes()))
}
