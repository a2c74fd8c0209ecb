//! Malicious and damaged files: each is refused, nothing is run, and nothing large is allocated.

mod common;

use common::{data, legacy, message, read_all};
use proptest::prelude::*;

/// A dictionary with one tensor, `x`, made by `_rebuild_tensor_v2` from a storage of four floats and these arguments.
fn one_tensor(arguments: &[u8]) -> Vec<u8> {
    let start = b"\x80\x02}X\x01\x00\x00\x00xctorch._utils\n_rebuild_tensor_v2\n(";
    let storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ";
    let program = [start.as_slice(), storage, arguments, b"\x89}tRs."].concat();
    let mut file = legacy(&program);
    // The list of keys, ["0"], then the four floats.
    file.truncate(file.len() - 1);
    file.extend_from_slice(b"X\x01\x00\x00\x000a.\x04\x00\x00\x00\x00\x00\x00\x00");
    file.extend_from_slice(&[0; 16]);
    file
}

#[test]
fn programs_that_need_more_than_tensors_are_refused() {
    let system = b"cposix\nsystem\n(S'touch /tmp/torch-pickle'\ntR.";
    let eval = b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x031+1\x85R.";
    let cases: [(&str, Vec<u8>, &str); 14] = [
        ("a command", legacy(system), "`posix.system`"),
        ("an expression", legacy(eval), "`builtins.eval`"),
        ("another storage", legacy(b"ctorch\nComplexFloatStorage\n."), "`torch.ComplexFloatStorage`"),
        ("a name of two lines", legacy(b"\x80\x04\x8c\x03o\ns\x8c\x01x\x93."), "`o\\ns.x`"),
        ("an instance", legacy(b"(ios\nsystem\n."), "instruction 0x69"),
        ("a new object", legacy(b"ccollections\nOrderedDict\n)\x81."), "instruction 0x81"),
        ("an extension", legacy(b"\x82\x01."), "instruction 0x82"),
        ("a call of a text", legacy(b"S'os.system'\n)R."), "calls an object that is not a function"),
        (
            "a call with other arguments",
            legacy(b"ccollections\nOrderedDict\n]\x85R."),
            "passes 1 arguments to OrderedDict",
        ),
        ("attributes of a list", legacy(b"]}b."), "attributes of an object that is not a dict"),
        ("a number", legacy(b"K\x07."), "does not contain a dictionary"),
        ("a numbered entry", legacy(b"}K\x01K\x02s."), "not named by text"),
        ("an entry of text", legacy(b"}X\x01\x00\x00\x00aX\x01\x00\x00\x00bs."), "entry `a` is not a tensor"),
        ("the wrong file", b"GIF89a".to_vec(), "not a file that torch.save writes"),
    ];
    for (what, file, expected) in cases {
        let error = message(&file);
        assert!(error.contains(expected), "{what}: {error}");
    }
}

#[test]
fn invalid_programs_are_refused() {
    let cases: [(&str, &[u8]); 12] = [
        ("an empty stack", b"."),
        ("nothing to duplicate", b"2"),
        ("no mark", b"t."),
        ("an item below a mark", b"K\x01(0."),
        ("an unknown memo", b"h\x07."),
        ("an odd dict", b"(K\x01d."),
        ("items of a list", b"]K\x01K\x02s."),
        ("a long beyond the end", b"\x8b\xff\xff\xff\xff."),
        ("a text beyond the end", b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff."),
        ("a text that is none", b"X\x02\x00\x00\x00\xff\xfe."),
        ("a reference to a number", b"K\x01Q."),
        ("no end", b"K\x01"),
    ];
    for (what, program) in cases {
        let error = message(&legacy(program));
        assert!(error.starts_with("it is damaged: "), "{what}: {error}");
    }
}

#[test]
fn views_stay_within_their_storage() {
    assert!(read_all(&one_tensor(b"K\x00K\x02K\x02\x86K\x02K\x01\x86")).is_ok());
    let cases: [(&str, &[u8], &str); 8] = [
        ("one too many", b"K\x01K\x02K\x02\x86K\x02K\x01\x86", "extends beyond its storage"),
        ("a far offset", b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7fK\x01\x85K\x01\x85", "extends beyond its storage"),
        (
            "a huge shape",
            b"K\x00J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86K\x00K\x00\x86",
            "has more elements than its storage",
        ),
        ("a huge stride", b"K\x00K\x03\x85\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85", "extends beyond its storage"),
        ("a negative length", b"K\x00J\xff\xff\xff\xff\x85K\x01\x85", "non-negative integers"),
        ("a negative stride", b"K\x03K\x04\x85J\xff\xff\xff\xff\x85", "non-negative integers"),
        ("more lengths than strides", b"K\x00K\x02K\x02\x86K\x01\x85", "non-negative integers"),
        (
            "too many dimensions",
            b"K\x00(K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01t(K\x01t",
            "non-negative integers",
        ),
    ];
    for (what, arguments, expected) in cases {
        let error = message(&one_tensor(arguments));
        assert!(error.contains(expected), "{what}: {error}");
    }
    // A repeated element costs more memory than its file: refused, however small.
    let error = message(&one_tensor(b"K\x00K\x05\x85K\x00\x85"));
    assert!(error.contains("repeats"), "{error}");
}

#[test]
fn deep_and_circular_objects_are_cheap() {
    // A million nested tuples; a list that contains itself; a tuple of a tuple twice, sixty times over.
    let nested = [vec![b')'], vec![0x85; 1_000_000], vec![b'.']].concat();
    assert!(message(&legacy(&nested)).contains("does not contain a dictionary"));
    assert!(message(&legacy(b"]q\x00h\x00a.")).contains("does not contain a dictionary"));
    let doubled = [b")".as_slice(), &b"q\x00h\x00\x86".repeat(60), b"."].concat();
    assert!(message(&legacy(&doubled)).contains("does not contain a dictionary"));
}

#[test]
fn truncated_and_changed_files_are_refused() {
    for file in ["kinds.pt", "kinds-legacy.pt"] {
        let whole = data(file);
        for length in 0..whole.len() {
            assert!(read_all(&whole[..length]).is_err(), "{length} bytes of {file} were read");
        }
    }
    // Any single bit of the data: the archive has checksums.
    let whole = data("kinds.pt");
    let marker = (-1.5f32).to_le_bytes();
    let at = whole.windows(4).position(|bytes| bytes == marker).unwrap();
    for bit in 0..8 {
        let mut changed = whole.clone();
        changed[at] ^= 1 << bit;
        let error = read_all(&changed).unwrap_err().to_string();
        assert!(error.contains("the data of parameter does not match its checksum"), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_program_ends(program in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read_all(&legacy(&program));
    }

    /// Instructions are rare among all bytes.
    #[test]
    fn any_program_of_instructions_ends(
        program in prop::collection::vec(
            prop::sample::select(b"(.0)]}tsudaelKMJXUqhrj2QRb\x85\x86\x87\x88\x8a\x8c\x93\x94N\x00\x01\x02\x03".to_vec()),
            0..200,
        ),
    ) {
        let _ = read_all(&legacy(&program));
    }

    #[test]
    fn any_change_to_a_real_file_is_read_or_refused(
        is_legacy in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut file = data(if is_legacy { "kinds-legacy.pt" } else { "kinds.pt" });
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        let _ = read_all(&file);
    }
}
