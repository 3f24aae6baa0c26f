//! Full backups.

use backstay_benches::{Variant, table, verdicts};

use crate::judge;
use crate::lab::{Lab, Place};

impl Lab {
    /// The table of backups to a local disk.
    pub(crate) fn backups(&self) -> String {
        let mut variants = Vec::new();
        for level in [3, 1] {
            self.tools(&mut variants, Place::Disk, level);
        }
        self.stock(&mut variants);
        let (variants, results) = self.measure(variants);
        let against = judge::position(&variants, "zst 3").into_iter().collect::<Vec<_>>();
        let bars = verdicts(&judge::backups(&variants, &results));
        format!("{}\n\n{bars}", table(&variants, &results, &against))
    }

    /// The table of backups to the S3 server on loopback.
    pub(crate) fn backups_to_s3(&self) -> String {
        let mut variants = Vec::new();
        self.tools(&mut variants, Place::S3, 3);
        let (variants, results) = self.measure(variants);
        let bars = verdicts(&judge::backups_to_s3(&variants, &results));
        format!("{}\n\n{bars}", table(&variants, &results, &[]))
    }

    /// The tools that keep a repository and archive the log.
    fn tools(&self, variants: &mut Vec<Variant>, place: Place, level: u32) {
        let run = self.shell.prefix();
        if let Some(peer) = &self.pgbackrest {
            let start = self.pgbackrest(peer, place, level);
            let before = self.before(
                place,
                &format!("{run}{start} stanza-create"),
                Some(&format!("{start} archive-push")),
            );
            let command = format!("{run}{start} backup --type=full");
            variants.push(self.variant(
                &format!("{} zst {level}", peer.name()),
                before,
                command,
                place,
                "pgbackrest",
            ));
        }
        if let Some(program) = &self.wal_rus {
            let start = self.wal_rus(program, place, level);
            let folder = self.repository(place, "wal-rus");
            let before = self.before(
                place,
                &format!("{run}mkdir -p {}", folder.display()),
                Some(&format!("{start} wal-push")),
            );
            let command = format!("{run}{start} backup-push {}", self.postgres.data_directory().display());
            variants.push(self.variant(&format!("wal-rus zstd {level}"), before, command, place, "wal-rus"));
        }
        if self.has("backup-cluster") {
            let before =
                self.before(place, &self.new_repository(place), Some(&self.ours("archive-wal", place)));
            let command = self.our_backup(place, level);
            variants.push(self.variant(
                &format!("backup-cluster zstd {level}"),
                before,
                command,
                place,
                "ours",
            ));
        }
    }

    /// Makes a repository of ours, with the cluster as the one of its stanza.
    pub(crate) fn new_repository(&self, place: Place) -> String {
        let folder = self.repository(place, "ours");
        let make = if place == Place::S3 { String::new() } else { format!("mkdir {}; ", folder.display()) };
        let line = format!(
            "cd {}; {} --register",
            self.postgres.data_directory().display(),
            self.ours("archive-wal", place)
        );
        format!("{}bash -e <<'END'\n{make}{line}\nEND\n", self.shell.prefix())
    }

    /// Our backup, as the server's account.
    pub(crate) fn our_backup(&self, place: Place, level: u32) -> String {
        format!(
            "{}{} {} --no-progress --option compression.level={level} --jobs 2 --host {} --port {} --username {}",
            self.shell.prefix(),
            self.login(),
            self.ours("backup-cluster", place),
            self.postgres.socket_directory().display(),
            self.postgres.port(),
            self.postgres.user()
        )
    }

    /// What one would take without any of these tools.
    fn stock(&self, variants: &mut Vec<Variant>) {
        let (out, login) = (self.path("out/stock"), self.login());
        let (out, run) = (out.display(), self.shell.prefix());
        let program = self.postgres.install().program("pg_basebackup").expect("it belongs to the server");
        let base = format!("{run}{login} {} -X none -c fast -D {out}", program.display());
        let data = self.postgres.data_directory();
        let tar = format!("tar -C {} --exclude=./pg_wal --exclude=./postmaster.pid -cf - .", data.display());
        let rows = [
            ("pg_basebackup -Ft", format!("{base} -Ft")),
            (
                "pg_basebackup, server zstd 3, 2 workers",
                format!("{base} -Ft --compress=server-zstd:level=3,workers=2"),
            ),
            (
                "tar \\| zstd -3 -T2",
                format!("mkdir {out}; {tar} | zstd -q -3 -T2 -o {out}/t.zst; sync -f {out}"),
            ),
            (
                "tar \\| zstd -1 -T2",
                format!("mkdir {out}; {tar} | zstd -q -1 -T2 -o {out}/t.zst; sync -f {out}"),
            ),
        ];
        for (name, command) in rows {
            let before = self.before(Place::Disk, "", None);
            variants.push(self.variant(name, before, command, Place::Disk, "stock"));
        }
    }

    fn variant(&self, name: &str, before: String, command: String, place: Place, tool: &str) -> Variant {
        // Not every tool waits for the disk by itself.
        let command = if place == Place::Disk {
            format!("{command}; sync -f {}", self.path("out").display())
        } else {
            command
        };
        let name = if place == Place::S3 { format!("{name} to S3") } else { name.to_owned() };
        Variant { name, command, before, output: self.repository(place, tool) }
    }
}
