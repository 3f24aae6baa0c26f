//! The ways to push and to get a segment that are compared.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use backstay_benches::{PgBackRest, Shell};

/// Credentials and bucket of the benchmark's own S3 server.
pub(crate) const KEY: &str = "bench";
pub(crate) const SECRET: &str = "bench-secret";
pub(crate) const BUCKET: &str = "bench";
const PASSED: &str = "AWS_ACCESS_KEY_ID=bench AWS_SECRET_ACCESS_KEY=bench-secret AWS_REGION=us-east-1";

/// Who does the work.
#[derive(Clone, Debug)]
pub(crate) enum Tool {
    /// The fork and exec of the loop itself.
    Nothing,
    /// `cp`, and everything forced to disk.
    Copy,
    /// The zstd program, and everything forced to disk.
    Zstd(u32),
    PgBackRest {
        peer: PgBackRest,
        codec: &'static str,
        background: bool,
    },
    WalRus(PathBuf),
    Ours {
        level: i32,
        /// Whether it pushes or fetches ahead, as it does by default.
        ahead: bool,
    },
}

/// One row of a table.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) name: String,
    pub(crate) tool: Tool,
    /// Latency of the S3 server in milliseconds; `None` is a local disk.
    pub(crate) s3: Option<u64>,
    /// Milliseconds between two calls.
    pub(crate) pause_ms: u64,
}

/// Where one run takes place.
#[derive(Debug)]
pub(crate) struct Site<'a> {
    pub(crate) shell: &'a Shell,
    /// Everything of this run.
    pub(crate) folder: &'a Path,
    /// Folder of our programs.
    pub(crate) programs: &'a Path,
    /// Port of the S3 server, when the run uses one.
    pub(crate) port: Option<u16>,
}

impl Site<'_> {
    /// The data directory that the commands see.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The repository on disk.
    pub(crate) fn repository(&self) -> PathBuf {
        self.folder.join("repository")
    }

    /// Makes what the tool wants to find: an empty repository and its configuration.
    pub(crate) fn prepare(&self, tool: &Tool) {
        for name in ["repository", "spool", "lock", "log"] {
            let path = self.folder.join(name);
            let _ = std::fs::remove_dir_all(&path);
            self.shell.folder(&path);
            let _ = self.shell.must(&format!("chmod 700 {}", path.display()));
        }
        if let Tool::PgBackRest { peer, codec, background } = tool {
            self.shell.write(&self.folder.join("pgbackrest.conf"), self.pgbackrest(codec, *background));
            let create = format!("{} --no-online stanza-create", self.start(peer));
            let _ = self.shell.must(&create);
        }
        if let Tool::Ours { .. } = tool {
            let line = format!("cd {}; {} --register", self.data().display(), self.ours("archive-wal"));
            let _ = self.shell.must(&line);
        }
    }

    fn pgbackrest(&self, codec: &str, background: bool) -> String {
        let (folder, data) = (self.folder.display(), self.data());
        let mut text = format!(
            "[bench]\npg1-path={}\n\n[global]\nlock-path={folder}/lock\nlog-path={folder}/log\n\
             spool-path={folder}/spool\n\
             log-level-file=off\nlog-level-console=warn\nprocess-max=2\n",
            data.display()
        );
        text.push_str(if codec == "lz4" {
            "compress-type=lz4\n"
        } else {
            "compress-type=zst\ncompress-level=3\n"
        });
        if background {
            text.push_str("archive-async=y\narchive-get-queue-max=1GiB\n");
        }
        match self.port {
            None => _ = writeln!(text, "repo1-path={}", self.repository().display()),
            Some(port) => {
                _ = writeln!(
                    text,
                    "repo1-type=s3\nrepo1-path=/bench\nrepo1-s3-bucket={BUCKET}\nrepo1-s3-endpoint=localhost\n\
                     repo1-s3-region=us-east-1\nrepo1-s3-key={KEY}\nrepo1-s3-key-secret={SECRET}\n\
                     repo1-s3-uri-style=path\n\
                     repo1-storage-host=http://127.0.0.1\nrepo1-storage-port={port}"
                );
            }
        }
        text
    }

    fn start(&self, peer: &PgBackRest) -> String {
        let (program, folder) = (peer.program().display(), self.folder.display());
        format!("{program} --config={folder}/pgbackrest.conf --stanza=bench")
    }

    fn wal_rus(&self, program: &Path) -> String {
        let place = match self.port {
            None => format!("WALG_FILE_PREFIX={}", self.repository().display()),
            Some(port) => format!(
                "{PASSED} WALG_S3_PREFIX=s3://{BUCKET}/bench AWS_ENDPOINT=http://127.0.0.1:{port} \
                 AWS_S3_FORCE_PATH_STYLE=true"
            ),
        };
        format!(
            "{place} WALG_COMPRESSION_METHOD=zstd WALG_COMPRESSION_LEVEL=3 WALG_UPLOAD_CONCURRENCY=2 \
             WALG_DOWNLOAD_CONCURRENCY=2 WALG_LOG_LEVEL=ERROR PGDATA={} {}",
            self.data().display(),
            program.display()
        )
    }

    /// Our program with its repository.
    pub(crate) fn ours(&self, program: &str) -> String {
        let spool = self.folder.join("spool");
        let start =
            format!("{} --option wal.spool={}", self.programs.join(program).display(), spool.display());
        match self.port {
            None => format!("{start} --repository {}", self.repository().display()),
            Some(port) => format!(
                "HOME=/nonexistent {PASSED} {start} --repository \
                 \"s3://{BUCKET}/r?endpoint=http://127.0.0.1:{port}&region=us-east-1&path-style=true\""
            ),
        }
    }

    /// The command that pushes `%p`.
    pub(crate) fn push(&self, tool: &Tool) -> String {
        let to = self.repository();
        let to = to.display();
        let durable =
            |end: &str| format!("&& sync {to}/.%f.tmp && mv {to}/.%f.tmp {to}/%f{end} && sync {to}");
        match tool {
            Tool::Nothing => "true".to_owned(),
            Tool::Copy => format!("cp %p {to}/.%f.tmp {}", durable("")),
            Tool::Zstd(level) => format!("zstd -q -{level} %p -o {to}/.%f.tmp {}", durable(".zst")),
            Tool::PgBackRest { peer, .. } => format!("{} archive-push %p", self.start(peer)),
            Tool::WalRus(program) => format!("{} wal-push %p", self.wal_rus(program)),
            Tool::Ours { level, ahead } => {
                let start = self.ours("archive-wal");
                let ahead = if *ahead { "" } else { "--no-look-ahead " };
                format!("{start} --option compression.level={level} {ahead}%p")
            }
        }
    }

    /// The command that gets `%f`.
    pub(crate) fn get(&self, tool: &Tool) -> String {
        let from = self.repository();
        let from = from.display();
        match tool {
            Tool::Nothing => unreachable!("nothing gets nothing"),
            Tool::Copy => format!("cp {from}/%f %p"),
            Tool::Zstd(_) => format!("zstd -dq {from}/%f.zst -o %p"),
            Tool::PgBackRest { peer, .. } => format!("{} archive-get %f %p", self.start(peer)),
            Tool::WalRus(program) => format!("{} wal-fetch %f %p", self.wal_rus(program)),
            Tool::Ours { ahead, .. } => {
                let ahead = if *ahead { "" } else { "--no-prefetch " };
                format!("{} {ahead}%f %p", self.ours("restore-wal"))
            }
        }
    }
}
