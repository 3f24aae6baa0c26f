use std::io::Write;
use std::process::{Command, Stdio};

use age::secrecy::ExposeSecret;
use proptest::prelude::*;

use super::*;
use crate::codec::Compressors;

fn pair() -> (Identities, Recipients, String) {
    let identity = age::x25519::Identity::generate();
    let text = identity.to_string().expose_secret().to_owned();
    let identities = Identities::parse(&text).unwrap();
    let recipients = identities.recipients();
    (identities, recipients, text)
}

/// Something that compresses, longer than a frame.
fn content() -> Vec<u8> {
    (0u32..700_000).flat_map(|n| (n / 3).to_le_bytes()).collect()
}

/// What comes out, which is the same whether the object is in memory or arrives in pieces.
fn open(stored: &[u8], identities: &Identities) -> Result<Vec<u8>, SealError> {
    let whole = unseal(stored, identities);
    let mut content = Vec::new();
    let streamed = unseal_through(Pieces(stored), identities, 1 << 30, &mut content);
    match (&whole, streamed) {
        (Ok(whole), Ok(seal)) => assert_eq!((seal, &content), (Seal::of(whole), whole)),
        (Err(SealError::Key), Err(UnsealError::Object(SealError::Key))) => {}
        (Err(_), Err(UnsealError::Object(_))) => {}
        (whole, streamed) => panic!("{whole:?} and {streamed:?}"),
    }
    whole
}

/// Gives a few bytes at a time, or many.
struct Pieces<'a>(&'a [u8]);

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = [1, 47, 48, 49, 70_000][self.0.len() % 5].min(self.0.len()).min(buffer.len());
        buffer[..length].copy_from_slice(&self.0[..length]);
        self.0 = &self.0[length..];
        Ok(length)
    }
}

#[test]
fn what_was_sealed_comes_back_with_and_without_encryption() {
    let (identities, recipients, _) = pair();
    for recipients in [Recipients::none(), recipients] {
        for content in [content(), b"x".to_vec(), Vec::new()] {
            let (sealed, stored) = seal(&content, 3, &recipients).unwrap();
            assert_eq!(Seal::read(&stored[..stored.len().min(SEAL_WITHIN as usize)]).unwrap(), sealed);
            assert_eq!(sealed, Seal::of(&content));
            assert_eq!(open(&stored, &identities).unwrap(), content);
        }
    }
}

#[test]
fn a_note_is_read_without_a_key_and_changes_neither_seal_nor_content() {
    let (identities, recipients, _) = pair();
    let note = [b'n'; MAX_NOTE];
    for recipients in [Recipients::none(), recipients] {
        for content in [content(), Vec::new()] {
            let options = SealOptions::default().recipients(recipients.clone()).note(&note);
            let (sealed, stored) = seal_from(&content[..], &options).unwrap();
            let mut streamed = Vec::new();
            seal_through(sealed, &content[..], &options, &mut streamed).unwrap();
            for stored in [&stored[..], &streamed] {
                let beginning = &stored[..stored.len().min(NOTE_WITHIN as usize)];
                assert_eq!(
                    Seal::read(&beginning[..beginning.len().min(SEAL_WITHIN as usize)]).unwrap(),
                    sealed
                );
                assert_eq!(read_note(beginning).unwrap().unwrap(), note);
                assert_eq!(open(stored, &identities).unwrap(), content);
            }
            let (_, without) = seal_from(&content[..], &options.note(&[])).unwrap();
            assert_eq!(read_note(&without[..without.len().min(NOTE_WITHIN as usize)]).unwrap(), None);
        }
    }
}

#[test]
fn a_flipped_bit_of_a_note_is_noticed() {
    let (identities, recipients, _) = pair();
    for recipients in [Recipients::none(), recipients] {
        let options = SealOptions::default().recipients(recipients).note(b"note");
        let (_, stored) = seal_from(&b"content"[..], &options).unwrap();
        for at in 0..stored.len() * 8 {
            let mut flipped = stored.to_vec();
            flipped[at / 8] ^= 1 << (at % 8);
            assert!(open(&flipped, &identities).is_err(), "bit {at}");
        }
    }
}

#[test]
fn a_note_that_is_too_long_is_refused() {
    let options = SealOptions::default().note(&[0; MAX_NOTE + 1]);
    assert!(seal_from(&b""[..], &options).is_err());
    assert!(seal_through(Seal::of(b""), &b""[..], &options, Vec::new()).is_err());
}

#[test]
fn the_digest_is_what_the_format_says() {
    let content = b"content";
    let xxh3 = xxhash_rust::xxh3::xxh3_128(content);
    let said = [&xxh3.to_be_bytes()[..], &7u64.to_le_bytes()].concat();
    assert_eq!(Seal::of(content), Seal { length: 7, digest: Sha256Hex::of(&said) });
    // As stock xxhsum and sha256sum say.
    let known = "29b027c8ffcf9448114b7f5a160779b6c249a5d6e08a099e0eaf7ab46107d04b";
    assert_eq!(Seal::of(content).digest.to_string(), known);
}

#[test]
fn one_pass_and_two_passes_store_the_same_whatever_the_number_of_threads() {
    let (identities, recipients, _) = pair();
    let content = content();
    let (_, expected) = seal(&content, 3, &Recipients::none()).unwrap();
    for threads in [1, 2, 5] {
        let options = SealOptions::default().threads(threads);
        let (sealed, stored) = seal_from(&content[..], &options).unwrap();
        assert_eq!(stored, expected, "{threads} threads");
        assert_eq!(Seal::of_reader(&content[..]).unwrap(), sealed);
        let mut streamed = Vec::new();
        seal_through(sealed, &content[..], &options, &mut streamed).unwrap();
        assert_eq!(streamed, expected, "{threads} threads");
        let mut encrypted = Vec::new();
        seal_through(sealed, &content[..], &options.recipients(recipients.clone()), &mut encrypted).unwrap();
        assert_eq!(open(&encrypted, &identities).unwrap(), content);
    }
}

#[test]
fn content_that_changes_between_two_readings_is_never_sealed() {
    let mut content = content();
    let sealed = Seal::of(&content);
    content[2_000_000] ^= 1;
    let mut stored = Vec::new();
    let options = SealOptions::default().threads(2);
    assert!(seal_through(sealed, &content[..], &options, &mut stored).is_err());
    assert!(open(&stored, &Identities::none()).is_err());
}

#[test]
fn a_reader_that_fails_stops_every_thread() {
    struct Broken(usize);
    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(1).ok_or_else(|| io::Error::other("worn out"))?;
            buffer.fill(self.0 as u8);
            Ok(buffer.len())
        }
    }
    for reads in [0, 1, 40] {
        let error = seal_from(Broken(reads), &SealOptions::default().threads(3)).unwrap_err();
        assert_eq!(error.to_string(), "worn out");
    }
}

#[test]
fn the_seal_lies_within_its_bytes_whatever_the_number_of_recipients() {
    let many: Vec<String> = (0..40).flat_map(|_| pair().1.texts()).collect();
    let recipients = Recipients::parse(many.iter().map(String::as_str)).unwrap();
    let (sealed, stored) = seal(b"content", 3, &recipients).unwrap();
    assert_eq!(Seal::read(&stored[..SEAL_WITHIN as usize]).unwrap(), sealed);
}

#[test]
fn without_its_key_only_the_seal_can_be_read() {
    let ((_, recipients, _), (other, _, _)) = (pair(), pair());
    let (_, stored) = seal(b"content", 3, &recipients).unwrap();
    for identities in [Identities::none(), other] {
        assert!(matches!(open(&stored, &identities), Err(SealError::Key)));
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let (identities, recipients, _) = pair();
    for recipients in [Recipients::none(), recipients] {
        let (_, stored) = seal(&content()[..5000], 3, &recipients).unwrap();
        for bit in 0..stored.len() * 8 {
            let mut flipped = stored.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&flipped, &identities).is_err(), "bit {bit} of {}", stored.len() * 8);
        }
    }
}

#[test]
fn every_truncation_is_noticed() {
    let (_, stored) = seal(&content()[..5000], 3, &Recipients::none()).unwrap();
    for length in 0..stored.len() {
        assert!(open(&stored[..length], &Identities::none()).is_err(), "{length}");
    }
}

#[test]
fn frames_that_another_program_made_are_read_too() {
    let content: Vec<u8> = (0..7_000_000_u32).map(|at| (at / 3 % 251) as u8).collect();
    let one = zstd::stream::encode_all(&content[..], 1).unwrap();
    let mut small = Vec::new();
    for piece in content.chunks(700_001) {
        small.extend(zstd::bulk::compress(piece, 1).unwrap());
    }
    let (half, rest) = content.split_at(3_000_000);
    let mixed =
        [zstd::bulk::compress(half, 1).unwrap(), zstd::bulk::compress(&rest[..9], 1).unwrap()].concat();
    let mixed = [mixed, zstd::stream::encode_all(&rest[9..], 1).unwrap()].concat();
    for frames in [one, small, mixed] {
        let mut stored = Seal::of(&content).frame();
        stored.extend(frames);
        stored.extend(end_frame(xxh3_128(&stored)));
        assert!(open(&stored, &Identities::none()).unwrap() == content);
    }
}

#[test]
fn a_bomb_does_not_explode() {
    let mut stored = Seal::of(b"small").frame();
    stored.extend(Compressors::new(3).zstd(&vec![0; 64 << 20]).unwrap().iter());
    stored.extend(end_frame(xxh3_128(&stored)));
    let refused = open(&stored, &Identities::none());
    assert!(matches!(refused, Err(SealError::Damaged { problem }) if problem.contains("were sealed")));
}

#[test]
fn a_forged_length_is_refused_before_anything_is_written() {
    let mut stored = seal(&content(), 3, &Recipients::none()).unwrap().1.to_vec();
    stored[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut written = Vec::new();
    let refused = unseal_through(&stored[..], &Identities::none(), 1 << 30, &mut written);
    assert!(matches!(refused, Err(UnsealError::Object(SealError::Damaged { .. }))), "{refused:?}");
    assert_eq!(written.len(), 0);
}

#[test]
fn trouble_at_either_end_is_not_taken_for_damage() {
    struct Broken<'a>(Pieces<'a>);
    impl Read for Broken<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(io::Error::other("worn out")),
                read => Ok(read),
            }
        }
    }
    let (identities, recipients, _) = pair();
    for recipients in [Recipients::none(), recipients] {
        let (_, stored) = seal(&content(), 3, &recipients).unwrap();
        for length in [0, 100, 400, stored.len() / 2, stored.len()] {
            let input = Broken(Pieces(&stored[..length]));
            let refused = unseal_through(input, &identities, 1 << 30, &mut io::sink());
            let told =
                matches!(&refused, Err(UnsealError::Input { source }) if source.to_string() == "worn out");
            assert!(told, "{length}: {refused:?}");
        }
        let mut room = [0; 1_000_000];
        let refused = unseal_through(&stored[..], &identities, 1 << 30, &mut &mut room[..]);
        assert!(matches!(refused, Err(UnsealError::Output { .. })), "{refused:?}");
    }
}

#[test]
fn stock_programs_open_both_forms() {
    let (_, recipients, key) = pair();
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("key");
    std::fs::write(&key_file, key).unwrap();
    let content = content();
    let (_, plain) = seal(&content, 3, &Recipients::none()).unwrap();
    let (_, encrypted) = seal(&content, 3, &recipients).unwrap();
    let opened = pipe(Command::new("age").arg("-d").arg("-i").arg(&key_file), &encrypted);
    for frames in [plain.to_vec(), opened] {
        assert_eq!(pipe(Command::new("zstd").args(["-d", "-c"]), &frames), content);
    }
}

fn pipe(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeding = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    feeding.join().unwrap().unwrap();
    assert!(output.status.success(), "{command:?}");
    output.stdout
}

proptest! {
    #[test]
    fn any_bytes_are_opened_or_refused(bytes: Vec<u8>, age: bool) {
        let beginning = if age { AGE } else { &[][..] };
        let _ = open(&[beginning, &bytes].concat(), &Identities::none());
    }
}
