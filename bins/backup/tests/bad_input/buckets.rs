//! Buckets that cannot be reached, refuse the credential, do not exist, or tell another time.

use backstay_testkit::{PostgresOptions, TestPostgres};

use super::support::table::{Row, World, Wrong, check};
use super::support::{Bench, Bucket, address};
use super::{ALL, BACKUP, LIST, PRUNE, STORAGE, VERIFY};

const CLOCK: &str = "let a time service (chrony, systemd-timesyncd) set this machine's clock";
const PERMISSIONS: &str =
    "hint: check the credentials and permissions; `check-storage` tries every operation";

/// A bucket that holds a repository with one set, and the database that was backed up.
pub(super) struct Buckets {
    bucket: Bucket,
    server: TestPostgres,
    set: String,
}

impl Buckets {
    fn new() -> Self {
        let server = TestPostgres::start_blocking(&PostgresOptions::default()).unwrap();
        let mut world = Self { bucket: Bucket::start(), server, set: "no set yet".to_owned() };
        let (ended, report) = world.bench().json(BACKUP, &["--repository", "bucket"]);
        ended.expect(0);
        report["sets"][0]["set"].as_str().unwrap().clone_into(&mut world.set);
        world
    }
}

impl World for Buckets {
    fn bench(&self) -> Bench {
        self.bucket.server.faults().clear();
        let mut bench = Bench::new();
        self.bucket.lend(&mut bench);
        bench.reach(&self.server, "postgres");
        bench
    }

    fn outside(&self) -> String {
        self.bucket.history()
    }

    fn redact(&self, text: String) -> String {
        text.replace(&self.set, "SET")
    }
}

fn refused_clock(_: &mut Bench, world: &Buckets) {
    world.bucket.refuse_clocks();
}

fn future(_: &mut Bench, world: &Buckets) {
    world.bucket.live_in_the_future();
}

fn unreachable(bench: &mut Bench, _: &Buckets) {
    let place = address("backups", "http://127.0.0.1:1");
    bench.write("backstay.toml", &format!("[[repository]]\nname = \"bucket\"\n[repository.s3]\n{place}"));
}

fn missing(bench: &mut Bench, world: &Buckets) {
    let place = address("nothing", &world.bucket.server.endpoint());
    bench.write("backstay.toml", &format!("[[repository]]\nname = \"bucket\"\n[repository.s3]\n{place}"));
}

fn wrong_secret(bench: &mut Bench, _: &Buckets) {
    bench.set("AWS_SECRET_ACCESS_KEY", "guess");
}

/// What is run on the repository in the bucket.
fn on_it(program: &str) -> String {
    let rule = if program == PRUNE { " --keep-last 1" } else { "" };
    format!("{program} --repository bucket{rule}")
}

/// A row of this world.
fn row(kind: Wrong, case: &'static str, run: impl Into<String>) -> Row<Buckets> {
    Row::new(kind, case, run)
}

pub(super) fn rows() -> Vec<Row<Buckets>> {
    let mut rows = clocks();
    rows.extend(places());
    rows
}

fn clocks() -> Vec<Row<Buckets>> {
    let kind = Wrong::Clock;
    let both = "the clock of this host shows …, the clock of the store …";
    let mut rows = vec![
        row(kind, "probing a store that refuses this machine's clock", on_it(STORAGE))
            .given(refused_clock)
            .ends(
                1,
                format!(
                    "bucket (s3://backups/shop…): unsafe\n…the clock of this machine is wrong: …→ {CLOCK}…"
                ),
            ),
        row(kind, "probing a store that is a year ahead", on_it(STORAGE))
            .given(future)
            .ends(1, format!("bucket (s3://backups/shop…): unsafe\n…  unsafe          clock …→ {CLOCK}…")),
        row(kind, "pruning a store that is a year ahead", on_it(PRUNE))
            .given(future)
            .ends(2, format!("bucket: 0 sets removed, 0 objects, 0 B\n! nothing was touched: {both}")),
        row(kind, "listing a store that is a year ahead", on_it(LIST)).given(future).ends(0, "…SET … good …"),
        row(kind, "verifying a store that is a year ahead", on_it(VERIFY))
            .given(future)
            .ends(0, "SET passed    quick bucket\n…"),
    ];
    rows.extend(ALL.into_iter().filter(|program| *program != STORAGE).map(|program| {
        row(kind, "a store that refuses this machine's clock", on_it(program)).given(refused_clock).ends(
            2,
            format!(
                "error: repository bucket: open failed: cannot read backstay.json, because the store refuses this \
                 machine's clock: 403 RequestTimeTooSkewed: …the clock of this machine is wrong: it says …, the store \
                 says …\nhint: {CLOCK}…"
            ),
        )
    }));
    rows
}

fn places() -> Vec<Row<Buckets>> {
    let nobody = "at the moment: …Connection refused…";
    let no_bucket = "the store at s3://nothing/shop… does not exist: 404 NoSuchBucket…";
    let denied = "not allowed to read backstay.json: 403 SignatureDoesNotMatch…";
    vec![
        row(Wrong::UnreachableServer, "a store that cannot be reached", on_it(LIST)).given(unreachable).ends(
            5,
            format!(
                "error: repository bucket: open failed: cannot read backstay.json {nobody}\n\
                 hint: run the same command again"
            ),
        ),
        row(Wrong::UnreachableServer, "probing a store that cannot be reached", on_it(STORAGE))
            .given(unreachable)
            .ends(
                5,
                format!(
                    "bucket (s3://backups/shop…): unknown\n  unknown         round-trip            \
                     a small object could not be written and read: …{nobody}→ run the same command again\n…"
                ),
            ),
        row(Wrong::Password, "the secret of the store is wrong", on_it(LIST))
            .given(wrong_secret)
            .ends(2, format!("error: repository bucket: open failed: {denied}\n{PERMISSIONS}")),
        row(Wrong::Password, "backing up with a wrong secret of the store", on_it(BACKUP))
            .given(wrong_secret)
            .ends(2, format!("error: repository bucket: open failed: {denied}\n{PERMISSIONS}")),
        row(Wrong::NoRepository, "there is no such bucket", on_it(LIST)).given(missing).ends(
            2,
            format!("error: …{no_bucket}\nhint: check the place, or create the bucket or directory"),
        ),
        row(Wrong::NoRepository, "backing up into a bucket that does not exist", on_it(BACKUP))
            .given(missing)
            .ends(
                2,
                format!("error: …{no_bucket}\nhint: check the place, or create the bucket or directory"),
            ),
        row(Wrong::Unwritable, "backing up with a credential that only reads", on_it(BACKUP))
            .given(|bench, _| bench.become_role("reader"))
            .ends(2, format!("…error: …not allowed to store …: 403 AccessDenied…\n{PERMISSIONS}")),
        row(Wrong::Unwritable, "pruning with a credential that only reads", on_it(PRUNE))
            .given(|bench, _| bench.become_role("reader"))
            .ends(2, format!("…error: …not allowed to store …: 403 AccessDenied…\n{PERMISSIONS}")),
    ]
}

#[test]
fn buckets() {
    check(&Buckets::new(), &rows());
}
