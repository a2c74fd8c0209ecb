//! Credentials and options of S3, by what reaches the server.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use super::{
    environment::{answer, responding},
    *,
};

#[test]
fn a_session_token_and_the_options_of_a_bucket_reach_the_server() {
    let server = Server::new();
    let with = |options: &[(&str, &str)]| {
        let mut env = server.rig.env();
        env.extend(options.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        Store::open_in(&env, "s3://bucket/run", StoreOptions::default(), |_| Ok(())).unwrap()
    };
    let store = with(&[
        ("AWS_SESSION_TOKEN", "the-token"),
        ("AWS_REQUEST_PAYER", "requester"),
        ("AWS_SERVER_SIDE_ENCRYPTION", "aws:kms"),
        ("AWS_SSE_KMS_KEY_ID", "the-key"),
        ("AWS_SSE_BUCKET_KEY_ENABLED", "true"),
    ]);
    save(&store, 10, 1);
    assert_eq!(latest(&store), Some((10, vec![])));
    remove(&store, &manifest_name(10));
    let of_all = [("x-amz-security-token", "the-token"), ("x-amz-request-payer", "requester")];
    let of_new_objects = [
        ("x-amz-server-side-encryption", "aws:kms"),
        ("x-amz-server-side-encryption-aws-kms-key-id", "the-key"),
        ("x-amz-server-side-encryption-bucket-key-enabled", "true"),
    ];
    let check = |op: Op, (name, value): (&str, &str)| {
        let sent = server.rig.sent(op, name);
        assert!(!sent.is_empty() && sent.iter().all(|sent| sent == value), "{name} of {op:?}: {sent:?}");
    };
    use Op::*;
    for op in [
        CreateMultipartUpload,
        UploadPart,
        CompleteMultipartUpload,
        PutObject,
        HeadObject,
        ListObjectsV2,
        GetObject,
        DeleteObject,
    ] {
        of_all.into_iter().for_each(|header| check(op, header));
    }
    for op in [CreateMultipartUpload, PutObject] {
        of_new_objects.into_iter().for_each(|header| check(op, header));
    }
}

#[test]
fn credentials_that_have_expired_are_renewed() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "the-pod").unwrap();
    let given = AtomicU64::new(0);
    // The first key has expired when it is given; the second has not for long.
    let service = responding(move |head| {
        assert!(head.contains("authorization: the-pod"), "{head}");
        let n = given.fetch_add(1, Ordering::Relaxed) + 1;
        let year = if n == 1 { 2020 } else { 2099 };
        let credentials = json!({
            "AccessKeyId": format!("key-{n}"),
            "SecretAccessKey": "secret",
            "Token": format!("token-{n}"),
            "Expiration": format!("{year}-01-01T00:00:00Z"),
        });
        answer("200 OK\r\nContent-Type: application/json", &credentials.to_string())
    });
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&heads);
    let server = responding(move |head| {
        seen.lock().unwrap().push(head.to_owned());
        let empty = "<ListBucketResult><Name>bucket</Name><KeyCount>0</KeyCount></ListBucketResult>";
        answer("200 OK\r\nContent-Type: application/xml", empty)
    });
    let env = [
        ("AWS_ENDPOINT_URL", server),
        ("AWS_ALLOW_HTTP", "true".into()),
        ("AWS_REGION", "us-east-1".into()),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{service}/credentials")),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token.to_str().unwrap().into()),
    ];
    let env = env.map(|(name, value)| (name.into(), value));
    let store = Store::open_in(&env, "s3://bucket/run", StoreOptions::default(), |_| Ok(())).unwrap();
    for _ in 0..3 {
        assert_eq!(store.list().unwrap(), [0; 0]);
    }
    let heads = heads.lock().unwrap();
    let signed = |n: u32| {
        let parts = [format!("Credential=key-{n}/"), format!("x-amz-security-token: token-{n}\r\n")];
        move |head: &&String| parts.iter().all(|part| head.contains(part))
    };
    assert_eq!((heads.iter().filter(signed(1)).count(), heads.iter().filter(signed(2)).count()), (1, 2), "{heads:?}");
}
