//! An S3 server with a bucket, and what was written into it.

use backstay_testkit::s3::{Credential, Faults, Misbehaviour, S3Options, S3Server};
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
