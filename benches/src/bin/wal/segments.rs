//! Real segments: what `pgbench` and a table of messages write, taken from a server's archive.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use backstay_benches::{Shell, data};
use backstay_testkit::{PostgresOptions, StopMode, TestPostgres};

use crate::archiver::SEGMENT;

const DATABASE: &str = "desk";
/// Transfers between accounts, changed documents, new messages.
const WORKLOAD: &str = r"
\set account random(1, 100000 * :scale)
\set message random(1, 50000)
\set delta random(-5000, 5000)
begin;
update pgbench_accounts set abalance = abalance + :delta where aid = :account;
insert into pgbench_history (tid, bid, aid, delta, mtime) values (1, 1, :account, :delta, current_timestamp);
end;
update message set about = jsonb_set(about, '{score}', to_jsonb(random())) where id = :message;
insert into message
    select nextval('message_id'), account, kind, now(), subject, body, about from message where id = :message;
";

/// A run of segments, and the cluster as it was before the first of them.
#[derive(Debug)]
pub(crate) struct Segments {
    folder: PathBuf,
    names: Vec<String>,
}

impl Segments {
    /// Takes those in `folder`; makes `count` new ones there when it has fewer.
    pub(crate) fn take(folder: &Path, count: usize) -> Self {
        let archive = folder.join("archive");
        if whole(&archive).len() < count {
            make(folder, count);
        }
        let mut names = whole(&archive);
        names.truncate(count);
        Self { folder: folder.to_owned(), names }
    }

    /// Their names, in order.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// The file of one of them.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join("archive").join(name)
    }

    /// The data directory that they are replayed onto.
    pub(crate) fn base(&self) -> PathBuf {
        self.folder.join("base")
    }

    /// Makes a data directory as archiver and tools see it: segments, status files, the control file.
    pub(crate) fn play_field(&self, shell: &Shell, data: &Path, with_segments: bool) {
        if data.exists() {
            fs::remove_dir_all(data).expect("the play field is ours");
        }
        let status = data.join("pg_wal/archive_status");
        [data, &data.join("global"), &data.join("pg_wal"), &status]
            .iter()
            .for_each(|path| shell.folder(path));
        for file in ["PG_VERSION", "global/pg_control"] {
            shell.write(&data.join(file), fs::read(self.base().join(file)).expect("a file of the cluster"));
        }
        shell.write(&data.join("segments"), self.names.join("\n"));
        for name in self.names.iter().filter(|_| with_segments) {
            let target = data.join("pg_wal").join(name);
            if fs::hard_link(self.file(name), &target).is_err() {
                fs::copy(self.file(name), &target).expect("room for the segments");
            }
            shell.write(&status.join(format!("{name}.ready")), "");
        }
        let _ = shell.run(&format!("chmod 700 {}", data.display()));
    }
}

fn whole(archive: &Path) -> Vec<String> {
    let entries = fs::read_dir(archive).into_iter().flatten().flatten();
    let whole = entries.filter(|entry| entry.metadata().is_ok_and(|meta| meta.len() == SEGMENT));
    let mut names: Vec<String> = whole.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

fn make(folder: &Path, count: usize) {
    let _ = fs::remove_dir_all(folder);
    let options = PostgresOptions::default()
        .setting("shared_buffers", "256MB")
        .setting("max_wal_size", "1GB")
        .setting("archive_mode", "on")
        .setting("archive_command", "true");
    let mut server = TestPostgres::start_blocking(&options).expect("PostgreSQL starts");
    let shell = Shell::of(server.account());
    let archive = folder.join("archive");
    [folder, &archive].iter().for_each(|path| shell.folder(path));
    data::load(&server, DATABASE, 10);
    let sql = "create sequence message_id start 10000000";
    let _ = server.psql(DATABASE, sql).expect("a sequence");
    server.stop(StopMode::Fast).expect("the server stops");
    // The cold copy: what comes later is replayed onto it.
    let copied = format!("cp -a {} {}", server.data_directory().display(), folder.join("base").display());
    let _ = Shell::of(None).must(&copied);
    let line = format!("archive_command = 'cp %p {}/%f'\n", archive.display());
    server.append_configuration(&line).expect("the configuration is writable");
    server.restart().expect("the server starts again");
    let script = server.scratch().path().join("workload.sql");
    shell.write(&script, WORKLOAD);
    while whole(&archive).len() < count {
        let mut pgbench = server.client("pgbench").expect("pgbench belongs to the server");
        pgbench
            .args(["-n", "-c", "4", "-j", "1", "-T", "5", "-D", "scale=13", "-f"])
            .arg(&script)
            .arg(DATABASE);
        let status = pgbench.stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(status.is_ok_and(|status| status.success()), "pgbench failed: {}", script.display());
    }
    // Only whole runs are replayed: the end of the last segment is the end of the log.
    let _ = server.psql(DATABASE, "select pg_switch_wal()").expect("a switch");
    server.stop(StopMode::Fast).expect("the server stops");
}
