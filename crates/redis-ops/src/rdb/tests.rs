use proptest::prelude::*;

use super::checksum::Crc64;
use super::*;

/// An RDB of everything in `body`, with its checksum.
fn rdb(magic: &[u8], body: &[u8]) -> Vec<u8> {
    let mut bytes = [magic, body, &[255]].concat();
    let mut crc = Crc64::new();
    crc.update(&bytes);
    bytes.extend_from_slice(&crc.value().to_le_bytes());
    bytes
}

fn text(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()][..], text].concat()
}

fn key(kind: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[kind][..], &text(name), value].concat()
}

fn expiring(at: i64) -> Vec<u8> {
    [&[252][..], &at.to_le_bytes()].concat()
}

/// The compressed form of "#!lua name=mine\n" and as many x as fit into 100 bytes.
fn compressed_library() -> Vec<u8> {
    let code = [&[16][..], b"#!lua name=mine\nx", &[0xe0, 74, 0]].concat();
    [&[0xc3, u8::try_from(code.len()).unwrap(), 0x40, 100][..], &code].concat()
}

/// A file of many kinds of values, all of which follow one another without a gap.
fn sample() -> Vec<u8> {
    let stream_3 = [
        &[1][..],
        &text(&[0; 16]),
        &text(b"listpack"),
        &[2, 5, 0, 5, 0, 0, 0, 2],
        &[1],
        &text(b"group"),
        &[5, 0, 2, 1],
        &[9; 24],
        &[1, 1],
        &text(b"consumer"),
        &[9; 16],
        &[1],
        &[9; 16],
    ]
    .concat();
    let body = [
        [&[250][..], &text(b"redis-ver"), &text(b"7.0.15")].concat(),
        [&[250][..], &text(b"ctime"), &[0xc2, 0, 0, 0, 0x50]].concat(),
        [&[245][..], &compressed_library()].concat(),
        [&[247][..], &[0x81, 1, 2, 3, 4, 5, 6, 7, 8], &[2, 1, 5], &text(b"aux"), &[4], &[0; 8], &[0]]
            .concat(),
        vec![254, 0, 251, 12, 2],
        key(0, b"string", &text(b"value")),
        key(0, b"integer", &[0xc1, 1, 1]),
        [expiring(1), key(0, b"gone", &text(b"x"))].concat(),
        [expiring(2_000_000_000_000), vec![249, 3], key(0, b"later", &text(b"x"))].concat(),
        key(1, b"list", &[&[2][..], &text(b"a"), &text(b"b")].concat()),
        key(
            3,
            b"scores",
            &[&[3][..], &text(b"a"), &[1, b'5'], &text(b"b"), &[255], &text(b"c"), &[253]].concat(),
        ),
        key(4, b"hash", &[&[1][..], &text(b"f"), &text(b"v")].concat()),
        key(5, b"scores2", &[&[1][..], &text(b"a"), &[0; 8]].concat()),
        key(7, b"module", &[&[9, 1, 7, 2, 0x40, 200, 3][..], &[0; 4], &[5], &text(b"s"), &[0]].concat()),
        key(18, b"quick", &[&[2, 2][..], &text(b"lp"), &[1], &text(b"plain")].concat()),
        key(21, b"stream", &stream_3),
        vec![254, 5, 248, 0x80, 0, 0, 1, 0],
        [vec![253, 0, 0, 0, 0x60], key(20, b"set", &text(b"listpack"))].concat(),
        key(
            24,
            b"fields",
            &[
                &5_000_000_i64.to_le_bytes()[..],
                &[2, 0],
                &text(b"f"),
                &text(b"v"),
                &[9],
                &text(b"g"),
                &text(b"w"),
            ]
            .concat(),
        ),
    ]
    .concat();
    rdb(b"REDIS0012", &body)
}

fn facts(pieces: &[&[u8]]) -> Result<RdbFacts, RdbError> {
    let mut scanner = RdbScanner::new();
    for piece in pieces {
        scanner.push(piece)?;
    }
    scanner.finish()
}

#[test]
fn everything_is_counted() {
    let facts = facts(&[&sample()]).unwrap();
    assert_eq!((facts.magic, facts.version, facts.checksum), (Magic::Redis, 12, Checksum::Right));
    assert_eq!(facts.contents, Contents::Counted);
    assert_eq!(facts.length, sample().len() as u64);
    assert_eq!(facts.aux["redis-ver"], "7.0.15");
    assert_eq!(facts.aux["ctime"], "1342177280");
    assert_eq!(facts.functions, ["mine"]);
    assert_eq!(facts.module_keys, 1);
    let first = DatabaseFacts { keys: 11, expires: 2, expired: 1, field_expires: 0 };
    let second = DatabaseFacts { keys: 2, expires: 1, expired: 0, field_expires: 1 };
    assert_eq!(facts.databases, [(0, first), (5, second)].into());
}

#[test]
fn every_flipped_bit_is_noticed() {
    let good = sample();
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            assert!(facts(&[&bad]).is_err(), "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn no_part_of_a_file_is_a_whole_one() {
    let good = sample();
    for end in 0..good.len() {
        assert!(facts(&[&good[..end]]).is_err(), "cut at {end}");
    }
    let error = facts(&[&good, b"x"]).unwrap_err();
    assert!(matches!(error, RdbError::Length { problem: "goes on behind its end", .. }), "{error}");
}

#[test]
fn a_missing_checksum_is_said() {
    let mut bytes = sample();
    let end = bytes.len() - 8;
    bytes[end..].fill(0);
    assert_eq!(facts(&[&bytes]).unwrap().checksum, Checksum::Absent);
}

#[test]
fn unknown_types_end_the_counting_but_not_the_check() {
    let body = [vec![254, 0], key(0, b"known", &text(b"v")), key(77, b"new", &text(b"v"))].concat();
    let mut bytes = rdb(b"REDIS0099", &body);
    let known = facts(&[&bytes]).unwrap();
    assert_eq!((known.keys(), known.checksum), (1, Checksum::Right));
    assert!(matches!(known.contents, Contents::Unknown { .. }));
    bytes[20] ^= 1;
    assert!(matches!(facts(&[&bytes]).unwrap_err(), RdbError::Checksum { .. }));
}

#[test]
fn what_is_no_rdb_is_refused_at_once() {
    for bytes in [&b"HTTP/1.1 200"[..], b"REDISabcd", b"REDIS0000", b"VALKEY\0\0\0", b"-NOAUTH x"] {
        let mut scanner = RdbScanner::new();
        assert!(matches!(scanner.push(bytes), Err(RdbError::Magic { .. })), "{bytes:?}");
        assert!(scanner.push(b"").is_err());
    }
}

fn shifted(input: &[u8], expiries: Expiries) -> Vec<u8> {
    let mut output = Vec::new();
    shift_expires(input, &mut output, expiries).unwrap();
    output
}

#[test]
fn kept_expiries_change_no_byte() {
    assert_eq!(shifted(&sample(), Expiries::Keep), sample());
}

#[test]
fn shifted_expiries_change_nothing_else() {
    let there = shifted(&sample(), Expiries::Shift(1_000));
    let before = facts(&[&sample()]).unwrap();
    let after = facts(&[&there]).unwrap();
    // The one in seconds became one in milliseconds: four bytes more.
    assert_eq!(after.length, before.length + 4);
    assert_eq!(after.databases, before.databases);
    let find = |needle: &[u8]| memchr::memmem::find(&there, needle).is_some();
    assert!(find(&expiring(2_000_000_001_000)) && find(&5_001_000_i64.to_le_bytes()));
    assert!(find(&expiring(0x6000_0000 * 1_000 + 1_000)));
}

#[test]
fn stripped_expiries_are_gone() {
    let there = shifted(&sample(), Expiries::Strip);
    let after = facts(&[&there]).unwrap();
    assert_eq!((after.keys(), after.expires()), (13, 0));
    assert_eq!(after.length, sample().len() as u64 - 9 - 9 - 5);
}

#[test]
fn valkey_fields_have_their_own_expiries() {
    let fields = [
        &[2][..],
        &text(b"f"),
        &text(b"v"),
        &(-1_i64).to_le_bytes(),
        &text(b"g"),
        &text(b"w"),
        &7_000_i64.to_le_bytes(),
    ];
    let bytes = rdb(b"VALKEY080", &[vec![254, 0], key(22, b"hash", &fields.concat())].concat());
    let facts = facts(&[&bytes]).unwrap();
    assert_eq!((facts.magic, facts.databases[&0].field_expires), (Magic::Valkey, 1));
    let there = shifted(&bytes, Expiries::Shift(50));
    assert!(memchr::memmem::find(&there, &7_050_i64.to_le_bytes()).is_some());
    assert!(memchr::memmem::find(&there, &(-1_i64).to_le_bytes()).is_some());
    assert_eq!(shifted(&there, Expiries::Shift(-50)), bytes);
}

#[test]
fn what_is_unknown_is_not_rewritten() {
    let bytes = rdb(b"REDIS0099", &[vec![254, 0], key(77, b"new", &text(b"v"))].concat());
    let error = shift_expires(&bytes[..], Vec::new(), Expiries::Strip).unwrap_err();
    assert!(error.to_string().contains("type 77"), "{error}");
}

fn pieces_of<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

proptest! {
    #[test]
    fn pieces_do_not_matter(cuts in prop::collection::vec(any::<usize>(), 0..60)) {
        let sample = sample();
        let pieces = pieces_of(&sample, &cuts);
        prop_assert_eq!(facts(&pieces).unwrap(), facts(&[&sample]).unwrap());
        let mut shift = ShiftExpires::new(Expiries::Shift(77));
        let mut output = Vec::new();
        for piece in &pieces {
            shift.push(piece, &mut output).unwrap();
        }
        shift.finish(&mut output).unwrap();
        prop_assert_eq!(output, shifted(&sample, Expiries::Shift(77)));
    }

    #[test]
    fn no_bytes_make_it_fail_badly(body in prop::collection::vec(any::<u8>(), 0..300), magic in 0..3) {
        let magic = [&b"REDIS0012"[..], b"REDIS0099", b"VALKEY080"][usize::try_from(magic).unwrap()];
        let bytes = rdb(magic, &body);
        let _ = facts(&[&bytes]);
        let _ = shift_expires(&bytes[..], Vec::new(), Expiries::Strip);
    }
}
