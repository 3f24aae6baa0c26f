//! An S3 server with the bucket `backups`, and its faults.

use backstay_testkit::s3::{Credential, S3Options, S3Server};
use tokio::runtime::Runtime;

use super::Stage;

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
            .credential(Credential::writer("writer", "writer-secret"));
        let server = runtime.block_on(S3Server::start(options)).unwrap();
        Self { server, _runtime: runtime }
    }

    /// Address of a folder of the bucket.
    pub fn place(&self, folder: &str) -> String {
        format!("s3://backups/{folder}?endpoint={}&path-style=true&region=us-east-1", self.server.endpoint())
    }

    /// A stage whose repository is a folder of the bucket, with a role that can only add.
    pub fn stage(&self) -> Stage {
        let mut stage = Stage::bare();
        stage.flags[1] = self.place("wal");
        let role = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        stage.environment.push(role("AWS_ACCESS_KEY_ID", "writer"));
        stage.environment.push(role("AWS_SECRET_ACCESS_KEY", "writer-secret"));
        stage.put(0, 7);
        let registered = stage.archive(&["--register"]);
        assert_eq!(registered.code, 0, "{registered:?}");
        std::fs::remove_file(stage.segment_path(0)).unwrap();
        stage
    }
}
