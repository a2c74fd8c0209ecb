//! Mistakes in the user's server settings, and misbehaving servers: each is reported in one sentence that names the
//! problem and one with the remedy, and never causes a panic, an empty listing, or a minute of silence.

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::Arc,
    thread,
};

use super::*;

/// Variables, an address, and a part of the expected remedy.
type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str);

const NO_ID: (&str, &str) = ("AWS_ACCESS_KEY_ID", "");
const NO_SECRET: (&str, &str) = ("AWS_SECRET_ACCESS_KEY", "");
const AZURE_ACCOUNT: (&str, &str) = ("AZURE_STORAGE_ACCOUNT_NAME", "account");

/// The environment for an S3 server, in which `changes` replace variables, or remove them if the value is empty.
fn env(endpoint: &str, changes: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut env = rig::s3_env(endpoint);
    env.retain(|(name, _)| changes.iter().all(|(changed, _)| *changed != name.as_str()));
    env.extend(changes.iter().map(|(name, value)| (name.to_string(), value.to_string())));
    env
}

fn open(env: &[(String, String)], uri: &str, retry_s: u64) -> Result<Store, CheckpointError> {
    let options = StoreOptions { retry_timeout: Duration::from_secs(retry_s), ..StoreOptions::default() };
    Store::open_in(env, uri, options, |_| Ok(()))
}

/// The error of listing a store, which must fail.
fn refusal(env: &[(String, String)], uri: &str) -> String {
    // Much longer than a test may take: permanent errors must not be retried.
    let error = open(env, uri, 600).and_then(|store| store.list()).expect_err("the listing succeeded");
    let text = error.to_string();
    assert!(!text.contains('<') || text.contains("<ListAllMyBucketsResult>"), "raw XML: {text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

/// A raw HTTP response; `head` is the status, followed by any headers.
pub fn answer(head: &str, body: &str) -> String {
    format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

/// A server that gives this response to every request.
fn answering(answer: String) -> String {
    responding(move |_| answer.clone())
}

/// A server that responds to each request, which has no body, by its head.
pub fn responding(respond: impl Fn(&str) -> String + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let respond = Arc::new(respond);
    thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            let respond = Arc::clone(&respond);
            thread::spawn(move || {
                let mut head = [0; 8192];
                let length = socket.read(&mut head).unwrap_or(0);
                let _ = socket.write_all(respond(&String::from_utf8_lossy(&head[..length])).as_bytes());
            });
        }
    });
    format!("http://{address}")
}

#[test]
fn an_invalid_environment_is_refused_before_anything_is_sent() {
    let server = "http://127.0.0.1:9";
    let cases: &[Case] = &[
        (&[("AWS_ENDPOINT_URL", "127.0.0.1:9000")], "s3://b/x", "write AWS_ENDPOINT_URL=http://127.0.0.1:9000"),
        (&[("AWS_ENDPOINT_URL", "localhost:9000")], "s3://b/x", "write AWS_ENDPOINT_URL=http://localhost:9000"),
        (&[("AWS_ENDPOINT_URL_S3", "s3.example.com")], "s3://b/x", "write AWS_ENDPOINT_URL_S3=https://s3.example.com"),
        (&[("AWS_ENDPOINT_URL", "s3://b")], "s3://b/x", "is not a URL; write it as https://host:port"),
        (&[("AWS_ENDPOINT_URL", "http://a b:9")], "s3://b/x", "is not a URL"),
        (&[("AWS_ENDPOINT_URL", "http://h:99999")], "s3://b/x", "is not a URL"),
        (&[("AWS_ENDPOINT_URL", "http://h:9/b")], "s3://b/x", "set AWS_ENDPOINT_URL=http://h:9"),
        (&[("AWS_ENDPOINT_URL", "http://u:p@h:9")], "s3://b/x", "put keys in their own variables"),
        (&[("AWS_ENDPOINT_URL", "http://h:9/?x=1")], "s3://b/x", "end it before the ?"),
        (&[("AWS_METADATA_ENDPOINT", "10.0.0.1")], "s3://b/x", "write AWS_METADATA_ENDPOINT=http://10.0.0.1"),
        (&[("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true")], "s3://b/x", "set AWS_ENDPOINT_URL=http://b.127.0.0.1:9"),
        (&[("AWS_ALLOW_HTTP", "maybe")], "s3://b/x", "AWS_ALLOW_HTTP=maybe is neither true nor false"),
        (&[("AWS_ALLOW_HTTP", "")], "s3://b/x", "set AWS_ALLOW_HTTP=true"),
        (&[("AWS_REGION", "us east 1")], "s3://b/x", "AWS_REGION=us east 1 is not a region name"),
        (&[("AWS_SECRET_ACCESS_KEY", "")], "s3://b/x", "AWS_SECRET_ACCESS_KEY is not; set both"),
        (&[("AWS_ACCESS_KEY_ID", "")], "s3://b/x", "AWS_ACCESS_KEY_ID is not; set both"),
        (&[("AWS_SECRET_ACCESS_KEY", "secret\n")], "s3://b/x", "AWS_SECRET_ACCESS_KEY has a space or a line break"),
        (&[("AWS_SESSION_TOKEN", " token")], "s3://b/x", "AWS_SESSION_TOKEN has a space"),
        (&[], "s3://my bucket/x", "is not a bucket name"),
        (&[], "s3://host:9000/b/x", "a server address goes into AWS_ENDPOINT_URL"),
        (&[], "s3:///x", "the bucket name is missing"),
        (&[("GOOGLE_BASE_URL", "localhost:4443")], "gs://b/x", "write GOOGLE_BASE_URL=http://localhost:4443"),
        (&[("AZURE_STORAGE_ENDPOINT", "localhost:1")], "az://c/x", "write AZURE_STORAGE_ENDPOINT=http://localhost:1"),
        (&[("GOOGLE_BASE_URL", "http://h:1")], "gs://b/x", "set GOOGLE_ALLOW_HTTP=true"),
        (&[("AZURE_STORAGE_ENDPOINT", "http://h:1"), AZURE_ACCOUNT], "az://c/x", "set AZURE_ALLOW_HTTP=true"),
        (&[("AZURE_ALLOW_HTTP", "maybe")], "az://c/x", "AZURE_ALLOW_HTTP=maybe is neither true nor false"),
        (&[("AWS_SERVER_SIDE_ENCRYPTION", "kms")], "s3://b/x", "it can be AES256, aws:kms, aws:kms:dsse or sse-c"),
        (&[("AWS_SSE_KMS_KEY_ID", "k")], "s3://b/x", "set AWS_SERVER_SIDE_ENCRYPTION=aws:kms"),
        (&[NO_ID, NO_SECRET, ("AWS_PROFILE", "ours")], "s3://b/x", "export-credentials --profile ours --format env"),
        (&[NO_ID, NO_SECRET, ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://h")], "s3://b/x", "set both, or neither"),
    ];
    for (changes, uri, remedy) in cases {
        let error = open(&env(server, changes), uri, 1).expect_err(remedy);
        assert!(matches!(error, CheckpointError::Address { .. }), "{changes:?}: {error}");
        let text = error.to_string();
        assert!(text.contains(remedy), "{changes:?}: {text}");
        assert!(!text.contains("secret\n") && !text.contains("u:p"), "a secret is shown: {text}");
    }
    // Keys in the environment come before a profile.
    open(&env(server, &[("AWS_PROFILE", "ours")]), "s3://b/x", 1).unwrap();
    // A slash at the end is not part of the address, even where it would be doubled.
    let server = Server::new();
    let store = open(&env(&format!("{}/", server.rig.endpoint()), &[]), "s3://bucket/run/", 1).unwrap();
    save(&store, 10, 1);
    assert_eq!(store.list().unwrap(), [10]);
}

#[test]
fn refusals_are_reported_with_a_remedy_and_not_retried() {
    let server = Server::new();
    let endpoint = server.rig.endpoint();
    let here = |changes: &[(&str, &str)]| env(&endpoint, changes);
    let text = refusal(&here(&[]), "s3://nowhere/run");
    assert!(text.contains("has no such bucket") && text.contains("Create it"), "{text}");
    let text = refusal(&here(&[("AWS_SECRET_ACCESS_KEY", "wrong")]), "s3://bucket/run");
    assert!(text.contains("SignatureDoesNotMatch") && text.contains("Check AWS_ACCESS_KEY_ID and"), "{text}");
    let text = refusal(&here(&[("AWS_ACCESS_KEY_ID", "who")]), "s3://bucket/run");
    assert!(text.contains("Check AWS_ACCESS_KEY_ID and") || text.contains("Use credentials"), "{text}");
    for (status, code, remedy) in [
        (403, "AccessDenied", "Use credentials that may list, read, write and delete"),
        (403, "InvalidAccessKeyId", "Check AWS_ACCESS_KEY_ID"),
        (400, "ExpiredToken", "and AWS_SESSION_TOKEN"),
        (400, "InvalidToken", "Set AWS_SESSION_TOKEN"),
        (403, "RequestTimeTooSkewed", "Set the clock"),
        (405, "MethodNotAllowed", "the server speaks this protocol"),
    ] {
        server.fail(json!([{ "fault": { "refuse": { "status": status, "code": code } } }]));
        let text = refusal(&here(&[]), "s3://bucket/run");
        assert!(text.contains(code) && text.contains(remedy), "{text}");
        assert_eq!(text.matches(". ").count(), 1, "two sentences: {text}");
    }
    server.fail(json!([{ "fault": { "refuse": { "status": 503, "code": "SlowDown" } } }]));
    let text = open(&here(&[]), "s3://bucket/run", 0).unwrap().list().unwrap_err().to_string();
    assert!(text.contains("503 Service Unavailable, SlowDown: by rule") && text.contains("try again"), "{text}");
}

#[test]
fn the_region_of_a_misplaced_bucket_is_reported() {
    let redirect = "301 Moved Permanently\r\nx-amz-bucket-region: eu-west-1\r\nContent-Type: application/xml";
    let moved = answer(redirect, "<Error><Code>PermanentRedirect</Code></Error>");
    let malformed = "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>";
    let signed = answer("400 Bad Request\r\nContent-Type: application/xml", malformed);
    for answer in [moved, signed] {
        let text = refusal(&env(&answering(answer), &[]), "s3://bucket/run");
        assert!(text.contains("in the region eu-west-1") && text.contains("Set AWS_REGION=eu-west-1"), "{text}");
    }
}

#[test]
fn a_response_that_is_not_a_listing_is_an_error_and_never_an_empty_store() {
    let xml = |body: &str| answering(answer("200 OK\r\nContent-Type: application/xml", body));
    let buckets =
        xml("<?xml version=\"1.0\"?>\n<ListAllMyBucketsResult xmlns=\"x\"><Buckets/></ListAllMyBucketsResult>");
    let text = refusal(&env(&buckets, &[]), "s3://bucket/run");
    assert!(text.contains("<ListAllMyBucketsResult>") && text.contains("Check AWS_ENDPOINT_URL"), "{text}");
    for body in ["<Error><Code>InternalFailure</Code></Error>", "<html><body>log in</body></html>", "{}", ""] {
        let error = open(&env(&xml(body), &[]), "s3://bucket/run", 0).unwrap().list();
        assert!(matches!(error, Err(CheckpointError::Store { .. })), "{body}: {error:?}");
    }
    let empty = xml("<ListBucketResult><Name>bucket</Name><KeyCount>0</KeyCount></ListBucketResult>");
    assert_eq!(open(&env(&empty, &[]), "s3://bucket/run", 0).unwrap().list().unwrap(), [0; 0]);
}

#[test]
fn a_web_page_is_not_a_store_response() {
    for status in ["200 OK", "403 Forbidden", "404 Not Found", "407 Proxy Authentication Required"] {
        let head = format!("{status}\r\nContent-Type: text/html; charset=utf-8\r\nETag: \"1\"");
        let page = answer(&head, "<html>please log in</html>");
        let env = env(&answering(page), &[]);
        let text = refusal(&env, "s3://bucket/run");
        assert!(text.contains("responds with a web page") && text.contains("no_proxy"), "{text}");
        let store = open(&env, "s3://bucket/run", 0).unwrap();
        assert!(matches!(store.find_run(), Err(CheckpointError::Store { .. })), "{status}: taken for an absent run");
        assert!(matches!(store.read_manifest(1), Err(CheckpointError::Store { .. })), "{status}: taken for a manifest");
    }
}

#[test]
fn connection_failures_are_reported_with_their_cause() {
    let closed = format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let text = open(&env(&closed, &[]), "s3://bucket/run", 0).unwrap().list().unwrap_err().to_string();
    assert!(text.contains("Connection refused") && text.contains("Check AWS_ENDPOINT_URL"), "{text}");
    // Retrying does not help with a server without TLS.
    let plain = answering(answer("400 Bad Request", ""));
    let text = refusal(&env(&plain.replace("http://", "https://"), &[]), "s3://bucket/run");
    assert!(text.contains("no encrypted connection") && text.contains("write http://"), "{text}");
    // The other way round, with the message of Go servers such as MinIO.
    let encrypted = answering(answer("400 Bad Request", "Client sent an HTTP request to an HTTPS server.\n"));
    let text = refusal(&env(&encrypted, &[]), "s3://bucket/run");
    assert!(text.contains("to an HTTPS server") && text.contains("Write https://"), "{text}");
}

#[test]
fn missing_credentials_are_reported_without_retries() {
    // In place of a cloud instance's metadata service: it is absent, has no role, or denies access.
    let closed = format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let roleless = answering(answer("404 Not Found", ""));
    let guarded = answering(answer("403 Forbidden", "not from here"));
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join(".aws/credentials");
    for (metadata, has_file) in [(closed, false), (roleless, false), (guarded, true)] {
        if has_file {
            std::fs::create_dir(file.parent().unwrap()).unwrap();
            std::fs::write(&file, "[default]").unwrap();
        }
        let home = ("HOME", home.path().to_str().unwrap());
        let none = [NO_ID, NO_SECRET, ("AWS_METADATA_ENDPOINT", &metadata), home];
        let text = refusal(&env("http://127.0.0.1:9", &none), "s3://bucket/run");
        let advice = format!("{} is not read, but `eval \"$(aws configure export-credentials", file.display());
        assert!(text.contains("AWS_SECRET_ACCESS_KEY are not set") && text.contains(&advice) == has_file, "{text}");
    }
}
