//! Looks for secrets in anything: the findings do not depend on the pieces that the bytes come in, and a line more before
//! them moves each finding by one line and changes nothing else.
#![no_main]

use std::io::Read;

use backstay_file_ops::ArchivePath;
use backstay_file_ops::scan::Scanner;
use libfuzzer_sys::fuzz_target;

/// What secrets begin with; the first bytes of the alphabet of this target stand for them.
const PARTS: [&str; 40] = [
    "-----BEGIN RSA PRIVATE KEY-----\n",
    "-----BEGIN CERTIFICATE-----\n",
    "PuTTY-User-Key-File-2:",
    "AGE-SECRET-KEY-1",
    "PrivateKey = ",
    "AKIA",
    "aws_secret_key = ",
    "ghp_",
    "github_pat_",
    "glpat-",
    "xoxb-1-",
    "hooks.slack.com/services/T12345678/B12345678/",
    "sk_live_",
    "AIza",
    "SG.",
    "key-",
    "-us1",
    "SK",
    "_authToken=",
    "pypi-AgEIcHlwaS5vcmc",
    "dop_v1_",
    "hvs.",
    "shpat_",
    "123456789:AA",
    "discord.com/api/webhooks/1234567890123456/",
    "sk-proj-",
    "AccountKey=",
    "eyJ",
    "\"auth\": \"",
    "root:$6$salt$",
    "Authorization: Bearer ",
    "postgres://app:",
    "password = ",
    "api_key: ",
    "client_secret=",
    "0123456789abcdef0123456789abcdef",
    "q8Zr4Tn6Yb2Wx5Vc9Kd3Hf7Gj1Ls0Mp4Aq8Ze6Rt",
    "\n",
    "@",
    "==",
];
/// Beyond that many bytes a file is taken for text or none by its beginning alone.
const LONGEST: usize = 8_000;

struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.1.min(buffer.len()).min(self.0.len());
        let (now, later) = self.0.split_at(length);
        buffer[..length].copy_from_slice(now);
        self.0 = later;
        Ok(length)
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((length, input)) = input.split_first() else { return };
    let mut content = Vec::new();
    for byte in input {
        match PARTS.get(usize::from(*byte)) {
            Some(part) => content.extend_from_slice(part.as_bytes()),
            None => content.push(*byte),
        }
    }
    if content.len() > LONGEST {
        return;
    }
    let scanner = Scanner::new(&[]).expect("no pattern");
    let path = ArchivePath::parse(b"etc/app.conf").expect("a path");
    let scan = |content: &[u8], length: usize| {
        let found = scanner.scan(&path, Pieces(content, length)).expect("memory can be read");
        found.into_iter().map(|finding| (finding.line, finding.rule)).collect::<Vec<_>>()
    };
    let whole = scan(&content, usize::MAX);
    assert_eq!(scan(&content, usize::from(*length) + 1), whole);
    let lines = content.split(|byte| *byte == b'\n').count() as u64;
    assert!(whole.iter().all(|(line, _)| line.is_some_and(|line| (1..=lines).contains(&line))));
    let moved: Vec<_> = whole.iter().map(|(line, rule)| (line.map(|line| line + 1), *rule)).collect();
    assert_eq!(scan(&[b"\n".as_slice(), &content].concat(), usize::MAX), moved);
});
