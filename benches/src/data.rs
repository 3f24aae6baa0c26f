//! A database that compresses like one in use: `pgbench`'s tables, a table of messages in real English, and many small
//! tables.
//!
//! Sentences come from the documentation of the machine, because text made of a short list of words has no long
//! repetitions and flatters whoever codes single letters best. The choice is seeded: two loads on one machine are equal.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use backstay_testkit::TestPostgres;
use flate2::read::GzDecoder;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

const SEED: u64 = 20_261_123;
/// Where sentences are found.
const LIBRARIES: [&str; 4] =
    ["/usr/share/doc", "/usr/share/perl", "/usr/lib/python3", "/usr/share/common-licenses"];
/// Most bytes taken from one file, so that no text dominates.
const OF_ONE_FILE: u64 = 30_000;
/// Bytes of sentences that are enough, and fewer than which are too few.
const ENOUGH: usize = 40_000_000;
const TOO_FEW: usize = 4_000_000;
/// Statements after the rows are loaded.
const FINISH: &str = "
    alter table message add primary key (id);
    create index on message (account);
    create index on message (sent_at);
    do $$ begin
        for i in 1..200 loop
            execute format('create table small_%s (id int primary key, name text unique, body jsonb)', i);
            if i % 2 = 0 then
                execute format('insert into small_%s select g, md5(g::text), jsonb_build_object(''n'', g)
                                from generate_series(1, %s) g', i, 3 * i);
            end if;
        end loop;
    end $$;
    vacuum analyze;
    checkpoint;";

/// Fills the new database `name`; 100 percent are about 3 GB on the server.
///
/// # Panics
/// When a program fails, or the machine has too little documentation to take sentences from.
pub fn load(server: &TestPostgres, name: &str, percent: u64) {
    server.create_database(name).expect("a new database");
    let scale = (130 * percent / 100).max(1).to_string();
    let mut pgbench = server.client("pgbench").expect("pgbench belongs to the server");
    let status = pgbench.args(["-i", "-q", "-s", &scale, name]).stderr(Stdio::null()).status();
    assert!(status.is_ok_and(|status| status.success()), "pgbench could not fill the database");
    let columns =
        "id bigint, account uuid, kind text, sent_at timestamptz, subject text, body text, about jsonb";
    server.psql(name, &format!("create table message ({columns})")).expect("a new table");
    copy(server, name, 6_200 * percent);
    server.psql(name, FINISH).expect("indexes and small tables");
}

fn copy(server: &TestPostgres, database: &str, rows: u64) {
    let mut psql = server.client("psql").expect("psql belongs to the server");
    let mut child = psql
        .args(["-qX", "-d", database, "-c", "copy message from stdin"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("psql starts");
    let input = BufWriter::with_capacity(1 << 20, child.stdin.take().expect("a pipe was asked for"));
    write_rows(input, &sentences(), rows).expect("psql reads to the end");
    assert!(child.wait().is_ok_and(|status| status.success()), "the messages could not be copied");
}

fn write_rows(mut out: impl Write, sentences: &[String], rows: u64) -> io::Result<()> {
    const KINDS: [&str; 6] = ["email", "email", "email", "call", "note", "invoice"];
    const STAGES: [&str; 5] = ["new", "waiting", "offered", "won", "lost"];
    const NAMES: [&str; 12] = [
        "amira", "bjorn", "chiara", "dmitri", "elif", "fatou", "goran", "hana", "iker", "joanna", "kwame",
        "leila",
    ];
    let mut random = StdRng::seed_from_u64(SEED);
    let accounts: Vec<u128> = (0..20_000).map(|_| random.random()).collect();
    let any = |list: &[&'static str], random: &mut StdRng| *list.choose(random).expect("not empty");
    let sentence = |random: &mut StdRng| sentences.choose(random).map_or("", String::as_str);
    for id in 1..=rows {
        let account = accounts.choose(&mut random).expect("not empty");
        let seconds = id * 240 + random.random_range(0..240);
        let (day, time) = (seconds / 86_400, seconds % 86_400);
        let (first, last) = (any(&NAMES, &mut random), any(&NAMES, &mut random));
        let long = random.random_range(0..20) == 0;
        let count = if long { random.random_range(20..60) } else { random.random_range(2..9) };
        let body: Vec<&str> = (0..count).map(|_| sentence(&mut random)).collect();
        writeln!(
            out,
            "{id}\t{account:032x}\t{}\t{}-{:02}-{:02} {:02}:{:02}:{:02}+00\t{}\t{}\t\
             {{\"owner\": \"{first}.{last}@example.com\", \"stage\": \"{}\", \"amount\": {}.{:02}, \"read\": {}, \
             \"message_id\": \"<{:024x}@mail.example.com>\", \"score\": {:.6}}}",
            any(&KINDS, &mut random),
            2020 + day / 336,
            1 + day % 336 / 28,
            1 + day % 28,
            time / 3600,
            time / 60 % 60,
            time % 60,
            sentence(&mut random),
            body.join(" "),
            any(&STAGES, &mut random),
            random.random_range(10..50_000),
            random.random_range(0..100),
            random.random_bool(0.7),
            random.random::<u128>() >> 32,
            random.random::<f64>(),
        )?;
    }
    out.flush()
}

/// Sentences of the machine's documentation, safe in COPY text.
fn sentences() -> Vec<String> {
    let mut files = BTreeSet::new();
    LIBRARIES.iter().for_each(|root| walk(Path::new(root), &mut files));
    let mut found = Vec::new();
    let mut bytes = 0;
    for file in files {
        let Some(text) = text_of(&file) else { continue };
        for sentence in text.split(['.', ';', ':', '!', '?']) {
            let words = sentence.split_whitespace().collect::<Vec<_>>().join(" ");
            let letters = words.chars().filter(|letter| letter.is_alphabetic() || *letter == ' ').count();
            let plain = !words.contains('\\') && letters * 5 > words.len() * 4;
            if plain && (30..400).contains(&words.len()) {
                bytes += words.len();
                found.push(words);
            }
        }
        if bytes > ENOUGH {
            break;
        }
    }
    assert!(bytes >= TOO_FEW, "only {bytes} bytes of sentences in {LIBRARIES:?}: install some documentation");
    found
}

fn text_of(file: &Path) -> Option<String> {
    let opened = File::open(file).ok()?;
    let mut bytes = Vec::new();
    let zipped = file.extension().is_some_and(|extension| extension == "gz");
    let reader: Box<dyn Read> = if zipped { Box::new(GzDecoder::new(opened)) } else { Box::new(opened) };
    reader.take(OF_ONE_FILE).read_to_end(&mut bytes).ok()?;
    // A cut letter at the end is no reason to leave a text out.
    let valid =
        std::str::from_utf8(&bytes).or_else(|error| std::str::from_utf8(&bytes[..error.valid_up_to()]));
    valid.ok().filter(|text| !text.contains('\0')).map(ToOwned::to_owned)
}

fn walk(folder: &Path, files: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&entry.path(), files),
            Ok(kind) if kind.is_file() => drop(files.insert(entry.path())),
            _ => {}
        }
    }
}
