//! An S3 server with a bucket, and what was written into it.

use std::time::Duration;

use backstay_testkit::s3::{Credential, Effect, FaultRule, Faults, Misbehaviour, S3Options, S3Server};
use tokio::runtime::Runtime;

use super::Bench;

const YEAR: i64 = 365 * 24 * 3600;

/// A store with the bucket `backups`, the credentials `admin` and `reader`, and a thread of its own.
pub struct Bucket {
    pub server: S3Server,
    // Dropped last.
    _runtime: Runtime,
}

impl Bucket {
    pub fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let options = S3Options::memory()
            .bucket("backups")
            .credential(Credential::admin("admin", "admin-secret"))
            .credential(Credential::reader("reader", "reader-secret"));
        let server = runtime.block_on(S3Server::start(options)).unwrap();
        Self { server, _runtime: runtime }
    }

    /// Lets programs reach it, as the repository `bucket` or by any other address below that of the result.
    pub fn lend(&self, bench: &mut Bench) {
        bench.become_role("admin");
        let place = address("backups", &self.server.endpoint());
        let text = format!("[[repository]]\nname = \"bucket\"\n[repository.s3]\n{place}");
        bench.write("backstay.toml", &text);
    }

    /// The same beside folders of these names; that many of all must take part.
    pub fn lend_beside(&self, bench: &mut Bench, folders: &[&str], quorum: usize) {
        self.lend(bench);
        let mut text = format!("quorum = {quorum}\n");
        for name in folders {
            text.push_str(&format!("[[repository]]\nname = \"{name}\"\npath = \"{name}\"\n"));
        }
        text.push_str(&std::fs::read_to_string(bench.path("backstay.toml")).unwrap());
        bench.write("backstay.toml", &text);
    }

    /// Runs a program that stores a set, while something goes wrong with each kind of write twice.
    #[track_caller]
    pub fn expect_patience(&self, bench: &Bench, program: &str, args: &[&str]) {
        for (operation, effect) in passing() {
            let before = self.manifests();
            self.fail(FaultRule::on(operation, effect).key_contains("/sets/").first(2));
            bench.run(program, args).expect(0);
            self.heal();
            assert_eq!(self.manifests(), before + 1, "{operation}");
        }
        let (ended, list) = bench.json("verify-backups", &["--full"]);
        assert_eq!(ended.code, 0, "{list}");
    }

    /// Runs a program that stores a set whose largest object has that name, while something goes wrong with it for good.
    #[track_caller]
    pub fn expect_refusals(&self, bench: &Bench, program: &str, args: &[&str], largest: &str) {
        let before = self.manifests();
        for (operation, part, effect, code) in lasting(largest) {
            self.fail(FaultRule::on(operation, effect).key_contains(part));
            let ended = bench.run(program, args).expect(code);
            assert!(
                ended.stderr.starts_with("error: ") && ended.stderr.contains("bucket"),
                "{}",
                ended.stderr
            );
            self.heal();
            assert_eq!(self.manifests(), before, "{operation}");
        }
        bench.run(program, args).expect(0);
        assert_eq!(self.manifests(), before + 1);
    }

    /// Makes the store refuse every request, because its clock is a year ahead.
    pub fn refuse_clocks(&self) {
        self.server.faults().set(Faults::default().clock_skew_seconds(YEAR));
    }

    /// Makes the store one that is a year ahead, and takes requests all the same.
    pub fn live_in_the_future(&self) {
        self.refuse_clocks();
        // A date that fits this host, or the store would refuse its signatures.
        self.server.faults().misbehave([Misbehaviour::WrongDate(-YEAR)]);
    }

    /// Lets one thing go wrong.
    pub fn fail(&self, rule: FaultRule) {
        self.server.faults().set(Faults::default().rule(rule));
    }

    /// Lets nothing go wrong any more, after something did.
    #[track_caller]
    pub fn heal(&self) {
        assert!(self.server.faults().fired() > 0, "nothing went wrong");
        self.server.faults().clear();
    }

    /// How many manifests of sets were written.
    pub fn manifests(&self) -> usize {
        let history = self.history();
        let is_manifest = |line: &&str| line.starts_with("PutObject") && line.ends_with("manifest.json");
        history.lines().filter(is_manifest).count()
    }

    /// Everything that was ever written or deleted, aside from leases, results of verifications, and probes.
    pub fn history(&self) -> String {
        let passing =
            |key: &str| ["/leases/", "/proofs/", "/probe/"].iter().any(|folder| key.contains(folder));
        let log = self.server.access_log().into_iter();
        let done = log.filter(|record| record.status < 300 && !reads(&record.operation));
        let keys = done.map(|record| format!("{} {}", record.operation, record.key.unwrap_or_default()));
        keys.filter(|line| !passing(line)).collect::<Vec<_>>().join("\n")
    }
}

/// What goes wrong twice with writes of sets, and is not noticed.
fn passing() -> [(&'static str, Effect); 8] {
    [
        ("PutObject", Effect::InternalError),
        ("PutObject", Effect::LoseReply),
        ("UploadPart", Effect::SlowDown),
        ("UploadPart", Effect::DropRequest),
        ("UploadPart", Effect::CutUpload(1000)),
        ("UploadPart", Effect::Delay(Duration::from_millis(300))),
        ("CompleteMultipartUpload", Effect::InternalError),
        ("CompleteMultipartUpload", Effect::LoseReply),
    ]
}

/// What goes wrong with each write of a set whose largest object has that name, and the exit code that it leads to.
///
/// All attempts at a store that is down take half a minute: those with `BACKSTAY_SOAK` only.
fn lasting(largest: &str) -> Vec<(&'static str, &str, Effect, i32)> {
    let mut lasting = vec![
        ("PutObject", "manifest.json", Effect::AccessDenied, 2),
        ("UploadPart", largest, Effect::AccessDenied, 2),
        ("CompleteMultipartUpload", largest, Effect::AccessDenied, 2),
    ];
    if std::env::var_os("BACKSTAY_SOAK").is_some() {
        lasting.push(("PutObject", "manifest.json", Effect::InternalError, 5));
        lasting.push(("UploadPart", largest, Effect::DropRequest, 5));
    }
    lasting
}

/// What goes wrong twice with reads, and is not noticed.
pub fn unreadable_for_now() -> [Effect; 5] {
    [
        Effect::InternalError,
        Effect::ServiceUnavailable,
        Effect::DropRequest,
        Effect::CutReply(100),
        Effect::Delay(Duration::from_millis(300)),
    ]
}

/// What goes wrong with each read of an object, and the exit code that it leads to.
///
/// One that answers nothing but errors ends in 5 after all attempts, which takes a minute: with `BACKSTAY_SOAK` only.
pub fn unreadable() -> Vec<(Effect, i32)> {
    let mut lasting = vec![
        (Effect::AccessDenied, 2),
        (Effect::Error { status: 404, code: "NoSuchKey".to_owned() }, 3),
        (Effect::FlipReplyBit(200), 3),
    ];
    if std::env::var_os("BACKSTAY_SOAK").is_some() {
        lasting.extend([(Effect::InternalError, 5), (Effect::DropRequest, 5)]);
    }
    lasting
}

fn reads(operation: &str) -> bool {
    ["Get", "Head", "List"].iter().any(|verb| operation.starts_with(verb))
}

/// The section of a configuration that means a bucket.
pub fn address(bucket: &str, endpoint: &str) -> String {
    format!(
        "bucket = \"{bucket}\"\nprefix = \"shop\"\nendpoint = \"{endpoint}\"\npath-style = true\nregion = \"us-east-1\"\n"
    )
}

impl Bench {
    /// Uses the credential of that name.
    pub fn become_role(&mut self, name: &str) {
        self.set("AWS_ACCESS_KEY_ID", name);
        self.set("AWS_SECRET_ACCESS_KEY", format!("{name}-secret"));
    }
}
