//! HTTP/1.1 as S3's clients speak it: bodies have lengths, and connections stay open.

use std::{
    collections::HashMap,
    io::{self, BufRead, Write},
    ops::Range,
    sync::Arc,
};

/// The head of a request.
pub struct Request {
    pub method: String,
    /// Without the slash at its start.
    pub path: String,
    /// The length of the body.
    pub length: usize,
    query: HashMap<String, String>,
    headers: HashMap<String, String>,
}

impl Request {
    /// The next request; `None` at the end of the connection.
    pub fn read(input: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace();
        let (Some(method), Some(target)) = (words.next(), words.next()) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        };
        let (method, path) = (method.to_owned(), decoded(path.trim_start_matches('/')));
        let query = pairs.map(pair).collect();
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            if input.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match line.trim_end().split_once(':') {
                Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.trim().to_owned()),
                None => break,
            };
        }
        let length = headers.get("content-length").map_or(Ok(0), |length: &String| length.parse::<usize>());
        let length = length.map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(Some(Self { method, path, length, query, headers }))
    }

    /// The value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The value of a parameter, decoded; empty if it has none.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }
}

/// Replaces %20 and its kin.
pub fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, others @ ..] = rest {
        let code = others.get(..2).and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok());
        let (byte, left) = match (*first, code) {
            (b'%', Some(code)) => (code, &others[2..]),
            (byte, _) => (byte, others),
        };
        bytes.push(byte);
        rest = left;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A response, whose body is a range of pieces that follow each other.
pub struct Response {
    status: u16,
    headers: Vec<(&'static str, String)>,
    pieces: Vec<Arc<Vec<u8>>>,
    range: Range<usize>,
}

impl Response {
    pub fn ok() -> Self {
        Self::empty(200)
    }

    pub fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), pieces: Vec::new(), range: 0..0 }
    }

    pub fn xml(text: String) -> Self {
        let text = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{text}").into_bytes();
        let len = text.len();
        Self::ok().header("Content-Type", "application/xml".into()).body(vec![Arc::new(text)], 0..len)
    }

    pub fn error(status: u16, code: &str) -> Self {
        let error = Self::xml(format!("<Error><Code>{code}</Code><Message>{code}</Message></Error>"));
        Self { status, ..error }
    }

    pub fn header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    pub fn body(self, pieces: Vec<Arc<Vec<u8>>>, range: Range<usize>) -> Self {
        Self { pieces, range, ..self }
    }

    /// Writes the head, which states the length of the body, and the body unless the request was for the head.
    pub fn write(&self, out: &mut impl Write, with_body: bool) -> io::Result<()> {
        let mut head = format!("HTTP/1.1 {} -\r\nContent-Length: {}\r\n", self.status, self.range.len());
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        out.write_all(head.as_bytes())?;
        let mut at = 0;
        for piece in self.pieces.iter().filter(|_| with_body) {
            let (start, end) = (self.range.start.max(at), self.range.end.min(at + piece.len()));
            if start < end {
                out.write_all(&piece[start - at..end - at])?;
            }
            at += piece.len();
        }
        Ok(())
    }
}
