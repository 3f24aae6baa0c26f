use proptest::prelude::*;

use super::*;
use crate::position::Offset;

type Seen = (u64, u64, String, Option<u32>, bool);

fn scan(pieces: &[&[u8]]) -> Result<(Vec<Seen>, CommandScanner), RespError> {
    let mut scanner = CommandScanner::new(Offset(100), StreamState::default());
    let mut seen = Vec::new();
    for piece in pieces {
        scanner.scan(piece, |command| {
            let words =
                command.arguments().map(|argument| String::from_utf8_lossy(argument.bytes).into_owned());
            let text = words.collect::<Vec<_>>().join(" ");
            seen.push((
                command.start.0,
                command.end.0,
                text,
                command.after.database,
                command.after.in_transaction,
            ));
        })?;
    }
    Ok((seen, scanner))
}

fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn sample() -> Vec<u8> {
    [
        command(&[b"SELECT", b"3"]),
        command(&[b"set", b"key", b"a\r\n$b"]),
        b"\n".to_vec(),
        command(&[b"MULTI"]),
        command(&[b"INCR", b""]),
        command(&[b"PING"]),
        command(&[b"EXEC"]),
        b"\r\n*0\r\n".to_vec(),
        command(&[b"REPLCONF", b"GETACK", b"*"]),
        command(&[b"SET", b"long", &[7; 1000]]),
    ]
    .concat()
}

#[test]
fn commands_are_found_with_their_ranges_database_and_transaction() {
    let (seen, scanner) = scan(&[&sample()]).unwrap();
    let words: Vec<_> = seen.iter().map(|seen| (seen.2.as_str(), seen.3, seen.4)).collect();
    let long = format!("SET long {}", "\u{7}".repeat(64));
    assert_eq!(
        words,
        [
            ("SELECT 3", Some(3), false),
            ("set key a\r\n$b", Some(3), false),
            ("", Some(3), false),
            ("MULTI", Some(3), true),
            ("INCR ", Some(3), true),
            ("PING", Some(3), true),
            ("EXEC", Some(3), false),
            ("", Some(3), false),
            ("", Some(3), false),
            ("REPLCONF GETACK *", Some(3), false),
            (&long, Some(3), false),
        ]
    );
    assert_eq!(seen[0].0, 100);
    assert!(seen.windows(2).all(|pair| pair[0].1 == pair[1].0), "no gaps: {seen:?}");
    assert_eq!(scanner.boundary(), Offset(100 + sample().len() as u64));
    assert_eq!(scanner.offset(), scanner.cut());
}

#[test]
fn a_stream_is_cut_outside_transactions_only() {
    let open =
        [command(&[b"SET", b"a", b"1"]), command(&[b"MULTI"]), command(&[b"SET", b"b", b"2"])].concat();
    let (seen, scanner) = scan(&[&open, b"*1\r\n$4\r\nEX"]).unwrap();
    assert_eq!(scanner.cut(), Offset(seen[0].1));
    assert_eq!(scanner.boundary(), Offset(seen[2].1));
    assert!(scanner.state().in_transaction);
}

#[test]
fn arguments_know_where_they_lie() {
    let bytes = command(&[b"SET", b"key", b"value", b"PXAT", b"1700000000000"]);
    let mut scanner = CommandScanner::new(Offset(0), StreamState::default());
    scanner
        .scan(&bytes, |command| {
            assert!(command.is_whole());
            for argument in command.arguments() {
                let start = usize::try_from(argument.start.0).unwrap();
                assert_eq!(&bytes[start..start + argument.bytes.len()], argument.bytes);
            }
            assert_eq!(command.argument(4).unwrap().bytes, b"1700000000000");
            assert!(command.argument(5).is_none());
        })
        .unwrap();
}

#[test]
fn what_is_kept_is_bounded() {
    let words: Vec<&[u8]> = std::iter::repeat_n(&[1_u8; 500][..], 500).collect();
    let capture = Capture { arguments: 3, bytes: 40 };
    let mut scanner = CommandScanner::new(Offset(0), StreamState::default()).capture(capture);
    let mut met = 0;
    scanner
        .scan(&command(&words), |command| {
            met += 1;
            assert_eq!(command.arguments().count(), 3);
            assert!(command.arguments().all(|argument| argument.bytes.len() == 40 && argument.len == 500));
            assert!(!command.is_whole());
        })
        .unwrap();
    assert_eq!(met, 1);
}

#[test]
fn what_no_primary_sends_is_an_error_with_its_place() {
    for (bytes, at) in [
        (&b"PING\r\n"[..], 100),
        (b"*1\r\n#4\r\n", 104),
        (b"*1\r\n$-1\r\n", 104 + 1),
        (b"*x\r\n", 101),
        (b"*99999999999\r\n", 101),
        (b"*1\r\n$99999999999999999999\r\n", 105),
        (b"*1\r\n$1\r\nabc", 109),
        (b"\rx", 101),
        (b"*000000000000000000000000000000000001\r\n", 101),
    ] {
        let error = scan(&[bytes]).unwrap_err();
        assert_eq!(error.at, Offset(at), "{:?}: {error}", String::from_utf8_lossy(bytes));
    }
    let mut scanner = CommandScanner::new(Offset(0), StreamState::default());
    assert!(scanner.scan(b"?", |_| ()).is_err());
    assert!(scanner.scan(&command(&[b"PING"]), |_| ()).is_err(), "nothing is read after an error");
}

proptest! {
    #[test]
    fn pieces_do_not_matter(cuts in prop::collection::vec(0_usize..1300, 0..20)) {
        let sample = sample();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(sample.len())).collect();
        cuts.extend([0, sample.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &sample[pair[0]..pair[1]]).collect();
        prop_assert_eq!(scan(&pieces).unwrap().0, scan(&[&sample]).unwrap().0);
    }

    #[test]
    fn no_bytes_make_it_fail_badly(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..6)) {
        let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        let _ = scan(&pieces);
    }

    #[test]
    fn what_is_wrong_and_where_does_not_depend_on_the_pieces(bytes in "[*$\r\n0-9a]{0,24}", size in 1_usize..8) {
        let whole = scan(&[bytes.as_bytes()]).map(|(seen, _)| seen);
        let pieces: Vec<&[u8]> = bytes.as_bytes().chunks(size).collect();
        prop_assert_eq!(whole, scan(&pieces).map(|(seen, _)| seen));
    }

    #[test]
    fn damaged_streams_are_errors_or_other_commands(at in 0_usize..1200, bit in 0_u8..8) {
        let mut sample = sample();
        let at = at % sample.len();
        sample[at] ^= 1 << bit;
        let _ = scan(&[&sample]);
    }
}
