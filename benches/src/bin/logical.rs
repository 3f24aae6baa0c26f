//! Logical backup and restore beside the usual script and the better pipelines.
//!
//! Everything ends durable (fsync). The database is that of [`backstay_benches::data`]; the server is PostgreSQL of this
//! machine with its defaults for durability. The binaries are those next to this one.
#![expect(clippy::print_stdout, reason = "a benchmark reports to its terminal")]

use std::path::{Path, PathBuf};

use backstay_benches::{Variant, data, measure_rounds, table};
use backstay_testkit::s3::{Credential, S3Options, S3Server};
use backstay_testkit::{PostgresOptions, ScratchDir, StopMode, TestPostgres};
use clap::Parser;

/// The database that is backed up.
const DATABASE: &str = "desk";
/// Credentials of the benchmark's own S3 server.
const KEY: &str = "bench";
const SECRET: &str = "bench-secret";

/// Measures logical backup and restore; prints Markdown tables.
#[derive(Debug, Parser)]
struct Args {
    /// Rounds; every variant runs once in each.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Size of the database in percent of about 3 GB.
    #[arg(long, default_value_t = 75)]
    percent: u64,
    /// Which tables to make.
    #[arg(long, default_values = ["backup", "restore"])]
    part: Vec<String>,
}

struct Lab {
    postgres: TestPostgres,
    scratch: ScratchDir,
    programs: PathBuf,
    s3: S3Server,
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let lab = Lab::open(args.percent).await;
    let size = lab
        .postgres
        .psql(DATABASE, "select pg_size_pretty(pg_database_size(current_database()))")
        .expect("a size");
    println!("Database: {size}; PostgreSQL {}; {} rounds\n", lab.postgres.install().major(), args.rounds);
    if args.part.iter().any(|part| part == "backup") {
        let variants = lab.backups();
        let server = lab.postgres.process().expect("it runs").pid();
        println!("{}\n", table(&variants, &measure_rounds(&variants, args.rounds, server), &[0, 2]));
    }
    if args.part.iter().any(|part| part == "restore") {
        let variants = lab.restores();
        let server = lab.postgres.process().expect("it runs").pid();
        println!("{}\n", table(&variants, &measure_rounds(&variants, args.rounds, server), &[0]));
    }
    lab.close().await;
}

impl Lab {
    async fn open(percent: u64) -> Self {
        let options = PostgresOptions::default()
            .fsync(true)
            .setting("shared_buffers", "512MB")
            .setting("maintenance_work_mem", "256MB")
            .setting("max_wal_size", "4GB")
            .setting("checkpoint_timeout", "30min");
        let postgres = TestPostgres::start(options).await.expect("PostgreSQL starts");
        data::load(&postgres, DATABASE, percent);
        let programs = std::env::current_exe().expect("this program has a path");
        let programs = programs.parent().expect("and a folder").to_path_buf();
        let s3 = S3Server::start(
            S3Options::memory().opaque_etags().bucket("bench").credential(Credential::admin(KEY, SECRET)),
        )
        .await
        .expect("the S3 server starts");
        Self { postgres, scratch: ScratchDir::create("bench", None).expect("a scratch folder"), programs, s3 }
    }

    fn folder(&self) -> &Path {
        self.scratch.path()
    }

    /// Environment of the peers' client programs.
    fn login(&self) -> String {
        format!(
            "export PGHOST=127.0.0.1 PGPORT={} PGUSER={} PGPASSFILE={} PATH={}:$PATH;",
            self.postgres.port(),
            self.postgres.user(),
            self.postgres.passfile().display(),
            self.postgres.install().bin().display()
        )
    }

    fn ours(&self, program: &str) -> String {
        format!(
            "PGPASSFILE={} {} --no-progress --database-url '{}'",
            self.postgres.passfile().display(),
            self.programs.join(program).display(),
            self.postgres.url_without_password(DATABASE)
        )
    }

    fn variant(&self, name: &str, command: &str) -> Variant {
        let output = self.folder().join("out");
        let login = self.login();
        let shown = output.display();
        Variant {
            name: name.to_owned(),
            command: format!("{login} {}", command.replace("OUT", &shown.to_string())),
            before: format!("rm -rf {shown}; mkdir -p {shown}"),
            output,
        }
    }

    fn backups(&self) -> Vec<Variant> {
        let ours = self.ours("backup-database");
        let s3 = format!(
            "AWS_ACCESS_KEY_ID={} AWS_SECRET_ACCESS_KEY={} {ours} --repository 's3://bench/r?endpoint={}&region=us-east-1&path-style=true'",
            KEY,
            SECRET,
            self.s3.endpoint()
        );
        vec![
            self.variant(
                "the usual script: pg_dump -Fc -Z9 \\| gzip, copy",
                "pg_dump -Fc --verbose --compress=9 desk 2>/dev/null | gzip > OUT/a.gz && cp OUT/a.gz OUT/copy.gz && sync -f OUT && rm OUT/copy.gz",
            ),
            self.variant("pg_dump -Fc", "pg_dump -Fc desk > OUT/a.dump && sync -f OUT"),
            self.variant(
                "pg_dump -Fc -Z0 \\| zstd -3 -T0",
                "pg_dump -Fc -Z0 desk | zstd -q -3 -T0 -o OUT/a.zst && sync -f OUT",
            ),
            self.variant("backup-database", &format!("{ours} --repository OUT/r")),
            self.variant("backup-database --jobs 2", &format!("{ours} --repository OUT/r --jobs 2")),
            self.variant("backup-database --digests", &format!("{ours} --repository OUT/r --digests")),
            self.variant("backup-database to S3 on loopback", &s3),
        ]
    }

    fn restores(&self) -> Vec<Variant> {
        let keep = self.folder().join("keep");
        let kept = keep.display();
        let login = self.login();
        let make = format!(
            "{login} mkdir -p {kept}; pg_dump -Fc -Z0 -f {kept}/plain.dump desk; pg_dump -Fc -f {kept}/gz.dump desk; {} --repository {kept}/r",
            self.ours("backup-database")
        );
        let made = std::process::Command::new("bash").args(["-e", "-c", &make]).status();
        assert!(made.is_ok_and(|status| status.success()), "the backups to restore could not be made");
        let again = |name: &str, command: String| {
            let before = format!("{login} dropdb --if-exists again; psql -qd postgres -c checkpoint");
            let command = format!("{login} {command} && psql -qd again -c checkpoint");
            Variant { name: name.to_owned(), command, before, output: PathBuf::from("/nonexistent") }
        };
        let theirs = |file: &str| format!("createdb again && pg_restore -j2 -d again {kept}/{file}");
        let ours = format!(
            "{} --repository {kept}/r --target-database again --jobs 2",
            self.ours("restore-database")
        );
        vec![
            again("pg_restore -j2, uncompressed local file", theirs("plain.dump")),
            again("pg_restore -j2, local -Fc file", theirs("gz.dump")),
            again("restore-database --jobs 2, everything compared", ours),
        ]
    }

    async fn close(mut self) {
        self.s3.stop().await;
        if let Err(error) = self.postgres.stop(StopMode::Immediate) {
            println!("the server did not stop: {error}");
        }
    }
}
