//! An S3 server in memory that is faster than its clients, for the benchmark of checkpoints. It checks no signature,
//! reads bodies into memory that it uses again and again, and sends ranges from there, without a copy in either
//! direction.
#![allow(dead_code, reason = "each program that includes this file uses a part of it")]

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::{self, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::SystemTime,
};

mod http;

use http::{Request, Response};
use s3s::dto::{Timestamp, TimestampFormat};

/// The one bucket of the server.
const BUCKET: &str = "bucket";
/// Bodies are kept in pieces of this size, whose memory is used again: fresh memory costs a page fault per 4 KiB.
const PIECE: usize = 8 << 20;

/// Bytes that follow each other.
type Pieces = Vec<Arc<Vec<u8>>>;

/// The server, until the process ends.
pub struct MemoryS3 {
    address: SocketAddr,
}

impl MemoryS3 {
    /// Serves on `port` of the loopback interface; 0 takes any that is free.
    pub fn start(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        let address = listener.local_addr()?;
        let contents = Arc::new(Contents::default());
        thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let contents = Arc::clone(&contents);
                // A connection that breaks is its client's concern.
                thread::spawn(move || drop(serve(socket, &contents)));
            }
        });
        Ok(Self { address })
    }

    /// The address of the server.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The environment variables that a client needs.
    pub fn env(&self) -> Vec<(String, String)> {
        let endpoint = self.endpoint();
        let variables = [
            ("AWS_ENDPOINT_URL", endpoint.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "anyone"),
            ("AWS_SECRET_ACCESS_KEY", "anything"),
        ];
        variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }
}

fn serve(mut socket: TcpStream, contents: &Contents) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut input = BufReader::with_capacity(1 << 16, socket.try_clone()?);
    while let Some(request) = Request::read(&mut input)? {
        if request.header("expect").is_some() {
            socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let body = contents.receive(&mut input, request.length)?;
        contents.respond(&request, body).write(&mut socket, request.method != "HEAD")?;
    }
    Ok(())
}

/// Everything that the server holds.
#[derive(Default)]
struct Contents {
    state: Mutex<State>,
    /// Memory for pieces, with bytes of old ones.
    free: Mutex<Vec<Vec<u8>>>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Object>,
    /// The parts of the uploads in progress, by number.
    uploads: HashMap<String, BTreeMap<u32, Pieces>>,
    /// How many names have been given to versions and uploads.
    named: u64,
}

#[derive(Clone)]
struct Object {
    pieces: Pieces,
    etag: String,
    modified: SystemTime,
}

impl Object {
    fn len(&self) -> usize {
        self.pieces.iter().map(|piece| piece.len()).sum()
    }
}

impl State {
    fn name(&mut self) -> String {
        self.named += 1;
        format!("\"{}\"", self.named)
    }

    /// Creates or replaces an object; returns its version, and what the old one consisted of.
    fn put(&mut self, key: &str, pieces: Pieces) -> (String, Pieces) {
        let etag = self.name();
        let object = Object { pieces, etag: etag.clone(), modified: SystemTime::now() };
        let old = self.objects.insert(key.into(), object);
        (etag, old.map(|object| object.pieces).unwrap_or_default())
    }
}

impl Contents {
    fn receive(&self, input: &mut impl Read, length: usize) -> io::Result<Pieces> {
        let mut pieces = Vec::with_capacity(length.div_ceil(PIECE));
        for start in (0..length).step_by(PIECE) {
            let mut piece = self.free.lock().unwrap().pop().unwrap_or_default();
            piece.resize(PIECE.min(length - start), 0);
            input.read_exact(&mut piece)?;
            pieces.push(Arc::new(piece));
        }
        Ok(pieces)
    }

    fn recycle(&self, pieces: Pieces) {
        let unused = pieces.into_iter().filter_map(|piece| Arc::try_unwrap(piece).ok());
        self.free.lock().unwrap().extend(unused.filter(|piece| piece.len() == PIECE));
    }

    fn respond(&self, request: &Request, body: Pieces) -> Response {
        let mut state = self.state.lock().unwrap();
        let key = match request.path.strip_prefix(BUCKET) {
            Some(key) => key.trim_start_matches('/'),
            None => return Response::error(404, "NoSuchBucket"),
        };
        let upload = request.query("uploadId");
        match (request.method.as_str(), upload) {
            ("GET", None) if key.is_empty() => list(&state, request),
            ("GET" | "HEAD", None) => match state.objects.get(key) {
                Some(object) => get(object, request),
                None => Response::error(404, "NoSuchKey"),
            },
            ("PUT", Some(upload)) => {
                let number = request.query("partNumber").and_then(|number| number.parse::<u32>().ok());
                let etag = state.name();
                let (Some(parts), Some(number)) = (state.uploads.get_mut(upload), number) else {
                    return Response::error(404, "NoSuchUpload");
                };
                let old = parts.insert(number, body);
                self.recycle(old.unwrap_or_default());
                Response::ok().header("ETag", etag)
            }
            ("POST", None) if request.query("uploads").is_some() => {
                let id = state.name().replace('"', "u");
                state.uploads.insert(id.clone(), BTreeMap::new());
                Response::xml(format!(
                    "<InitiateMultipartUploadResult><Bucket>{BUCKET}</Bucket><Key>{key}</Key><UploadId>{id}</UploadId>\
                     </InitiateMultipartUploadResult>"
                ))
            }
            ("POST", Some(upload)) => {
                let Some(parts) = state.uploads.remove(upload) else { return Response::error(404, "NoSuchUpload") };
                let (etag, old) = state.put(key, parts.into_values().flatten().collect());
                self.recycle(old);
                Response::xml(format!(
                    "<CompleteMultipartUploadResult><Bucket>{BUCKET}</Bucket><Key>{key}</Key><ETag>{etag}</ETag>\
                     </CompleteMultipartUploadResult>"
                ))
            }
            ("DELETE", Some(upload)) => {
                self.recycle(state.uploads.remove(upload).unwrap_or_default().into_values().flatten().collect());
                Response::empty(204)
            }
            ("PUT", None) => match request.header("x-amz-copy-source") {
                Some(source) => copy(&mut state, source, key),
                None => self.put(&mut state, key, request, body),
            },
            ("DELETE", None) => {
                let old = state.objects.remove(key).map(|object| object.pieces);
                self.recycle(old.unwrap_or_default());
                Response::empty(204)
            }
            _ => Response::error(501, "NotImplemented"),
        }
    }

    /// Writes an object if its conditions hold.
    fn put(&self, state: &mut State, key: &str, request: &Request, body: Pieces) -> Response {
        let current = state.objects.get(key).map(|object| object.etag.as_str());
        match (request.header("if-none-match"), request.header("if-match"), current) {
            (Some(_), _, Some(_)) => return Response::error(412, "PreconditionFailed"),
            (_, Some(_), None) => return Response::error(404, "NoSuchKey"),
            (_, Some(wanted), Some(current)) if wanted != current => {
                return Response::error(412, "PreconditionFailed");
            }
            _ => {}
        }
        let (etag, old) = state.put(key, body);
        self.recycle(old);
        Response::ok().header("ETag", etag)
    }
}

fn copy(state: &mut State, source: &str, key: &str) -> Response {
    let source = http::decoded(source);
    let source = source.trim_start_matches('/').strip_prefix(BUCKET).unwrap_or_default().trim_start_matches('/');
    let Some(object) = state.objects.get(source).cloned() else { return Response::error(404, "NoSuchKey") };
    let modified = written(SystemTime::now(), TimestampFormat::DateTime);
    let (etag, _) = state.put(key, object.pieces);
    Response::xml(format!(
        "<CopyObjectResult><ETag>{etag}</ETag><LastModified>{modified}</LastModified></CopyObjectResult>"
    ))
}

/// An object or a range of it.
fn get(object: &Object, request: &Request) -> Response {
    let len = object.len();
    let described = |response: Response| {
        let response = response.header("ETag", object.etag.clone()).header("Accept-Ranges", "bytes".into());
        response.header("Last-Modified", written(object.modified, TimestampFormat::HttpDate))
    };
    let Some(wanted) = request.header("range") else {
        return described(Response::ok()).body(object.pieces.clone(), 0..len);
    };
    let bounds = wanted.strip_prefix("bytes=").and_then(|bounds| bounds.split_once('-'));
    let start = bounds.and_then(|(start, _)| start.parse::<usize>().ok());
    let end = bounds.map_or(len, |(_, last)| last.parse::<usize>().map_or(len, |last| len.min(last.saturating_add(1))));
    match start {
        Some(start) if start < end => {
            let range = format!("bytes {start}-{}/{len}", end - 1);
            described(Response::empty(206)).header("Content-Range", range).body(object.pieces.clone(), start..end)
        }
        _ => Response::error(416, "InvalidRange"),
    }
}

fn list(state: &State, request: &Request) -> Response {
    let (prefix, delimiter) = (request.query("prefix").unwrap_or(""), request.query("delimiter").unwrap_or(""));
    let (mut contents, mut folders) = (String::new(), BTreeSet::new());
    for (key, object) in state.objects.iter().filter(|(key, _)| key.starts_with(prefix)) {
        let rest = &key[prefix.len()..];
        match rest.split_once(delimiter).filter(|_| !delimiter.is_empty()) {
            Some((folder, _)) => {
                folders.insert(format!("{prefix}{folder}{delimiter}"));
            }
            None => contents.push_str(&format!(
                "<Contents><Key>{key}</Key><Size>{}</Size><ETag>{}</ETag><LastModified>{}</LastModified></Contents>",
                object.len(),
                object.etag,
                written(object.modified, TimestampFormat::DateTime)
            )),
        }
    }
    let folders: String =
        folders.iter().map(|folder| format!("<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>")).collect();
    Response::xml(format!(
        "<ListBucketResult><Name>{BUCKET}</Name><Prefix>{prefix}</Prefix><IsTruncated>false</IsTruncated>\
         {contents}{folders}</ListBucketResult>"
    ))
}

/// A time as S3 writes it: in listings as `DateTime`, in headers as `HttpDate`.
fn written(time: SystemTime, format: TimestampFormat) -> String {
    let mut text = Vec::new();
    Timestamp::from(time).format(format, &mut text).expect("a time of today");
    String::from_utf8(text).expect("it is ASCII")
}
