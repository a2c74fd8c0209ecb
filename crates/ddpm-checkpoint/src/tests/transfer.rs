//! Transfers in parts: every byte in its place, in whichever order parts land, and a digest of all in order.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use object_store::PutPayload;
use proptest::{prelude::*, sample::Index};
use sha2::{Digest, Sha256};

use super::*;
use crate::{
    digest::{InOrder, hash_beside},
    download::cut,
    manifest::hex,
};

proptest! {
    #[test]
    fn parts_that_land_in_any_order_are_hashed_in_theirs(
        lens in proptest::collection::vec(0usize..70, 0..8),
        part_bytes in 1usize..40,
        order in proptest::collection::vec(any::<Index>(), 600),
    ) {
        let mut places: Vec<Vec<u8>> = lens.iter().map(|len| vec![0; *len]).collect();
        let whole: Vec<u8> = (0..lens.iter().sum::<usize>()).map(|at| (at * 7 + at / 256) as u8).collect();
        let mut parts = cut(places.iter_mut().map(Vec::as_mut_slice), part_bytes);
        let mut at = 0;
        for (index, part) in parts.iter().enumerate() {
            prop_assert_eq!((part.index, part.range.start), (index, at));
            prop_assert!(part.len() == part_bytes || (part.len() > 0 && index + 1 == parts.len()));
            at = part.range.end;
        }
        prop_assert_eq!(at, whole.len() as u64);
        let mut digest = InOrder::default();
        for next in &order[..parts.len()] {
            let mut part = parts.swap_remove(next.index(parts.len()));
            let mut bytes = whole[part.range.start as usize..part.range.end as usize].iter();
            part.places.iter_mut().flat_map(|place| place.iter_mut()).for_each(|byte| *byte = *bytes.next().unwrap());
            digest.land(part.index, part.places);
        }
        prop_assert_eq!(digest.finish(), hex(&Sha256::digest(&whole)));
        prop_assert_eq!(places.concat(), whole);
    }
}

#[test]
fn what_is_sent_is_hashed_meanwhile() {
    let store = Store::open("memory://").unwrap();
    let pieces = [vec![], vec![1; 3], vec![2; (1 << 20) + 1]];
    let file: PutPayload = pieces.iter().cloned().map(bytes::Bytes::from).collect();
    let hashed = store.block_on(async { hash_beside(file).await });
    assert_eq!(hashed.unwrap(), hex(&Sha256::digest(pieces.concat())));
}

/// The second of several parts lands after the others, and other responses are cut off.
#[test]
fn parts_that_land_late_or_in_pieces_are_put_where_they_belong() {
    let server = Server::new();
    let store = server.store();
    let manifest = write(&store, 1, 1, &[("weights", values(7_000_000, 1)), ("exp_avg", values(3_000_001, 2))]);
    server.fail(json!([
        { "op": "GetObject", "key": "ckpt/", "times": 1, "fault": { "cut_answer": { "at": 3_000_001 } } },
        { "op": "GetObject", "key": "ckpt/", "times": 1, "fault": { "delay": { "ms": 300 } } },
        { "op": "GetObject", "key": "ckpt/", "skip": 3, "times": 1, "fault": { "cut_answer": { "at": 17 } } },
    ]));
    let read = read_shard(&store, &manifest, 0).unwrap();
    assert_eq!(bits(&read[0]), bits(&values(7_000_000, 1)));
    assert_eq!(bits(&read[1]), bits(&values(3_000_001, 2)));
}

/// A response that says that it is complete and is not says nothing about the object.
#[test]
fn a_response_that_is_too_short_is_a_failure_of_the_store() {
    let memory = Store::open("memory://").unwrap();
    let manifest = save(&memory, 10, 1);
    let size = manifest.shards[0].size;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let env = [
        ("AWS_ENDPOINT_URL", format!("http://{}", listener.local_addr().unwrap())),
        ("AWS_ALLOW_HTTP", "true".into()),
        ("AWS_REGION", "us-east-1".into()),
        ("AWS_ACCESS_KEY_ID", "rig".into()),
        ("AWS_SECRET_ACCESS_KEY", "rig-secret".into()),
    ];
    thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(|socket| cut_short(socket, size)));
    let env = env.map(|(name, value)| (name.to_string(), value));
    let store = Store::open_in(&env, "s3://bucket/run", StoreOptions::default(), |_| Ok(())).unwrap();
    let error = read_shard(&store, &manifest, 0).unwrap_err();
    assert!(matches!(error, CheckpointError::Store { .. }), "{error}");
    assert!(error.to_string().contains(&format!("{} bytes instead of the {size} requested", size - 1)), "{error}");
}

/// Answers one request for an object of `size` bytes, without the last one.
fn cut_short(mut socket: TcpStream, size: u64) {
    let mut lines = BufReader::new(socket.try_clone().unwrap()).lines().map_while(Result::ok);
    let heads = lines.next().is_some_and(|line| line.starts_with("HEAD"));
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    let range =
        format!("206 Partial Content\r\nContent-Range: bytes 0-{}/{size}\r\nContent-Length: {}", size - 1, size - 1);
    let head = if heads { format!("200 OK\r\nContent-Length: {size}") } else { range };
    let etag = "ETag: \"1\"\r\nLast-Modified: Thu, 01 Jan 1970 00:00:00 GMT\r\nConnection: close";
    let _ = write!(socket, "HTTP/1.1 {head}\r\n{etag}\r\n\r\n");
    if !heads {
        let _ = socket.write_all(&vec![0; size as usize - 1]);
    }
}
