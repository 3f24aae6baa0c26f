//! Full restores, and restores onto what is there.

use backstay_benches::{Shell, Variant, table, verdicts};

use crate::judge;
use crate::lab::{Lab, Place};

/// Name for tables, name of folders, command that restores, and the same with what makes it reuse files.
struct Restorer {
    name: String,
    folder: &'static str,
    full: String,
    delta: Option<String>,
}

impl Lab {
    /// Takes the backups that are restored, with every tool.
    pub(crate) fn prepare_restores(&self) {
        let (root, run) = (Shell::of(None), self.shell.prefix());
        if let Some(peer) = &self.pgbackrest {
            let start = self.pgbackrest(peer, Place::Kept, 3);
            let archive = format!("{start} archive-push");
            let _ =
                root.must(&self.before(Place::Kept, &format!("{run}{start} stanza-create"), Some(&archive)));
            let _ = root.must(&format!("{run}{start} backup --type=full"));
        }
        if let Some(program) = &self.wal_rus {
            let start = self.wal_rus(program, Place::Kept, 3);
            let folder = self.repository(Place::Kept, "wal-rus");
            let more = format!("{run}mkdir -p {}", folder.display());
            let _ = root.must(&self.before(Place::Kept, &more, Some(&format!("{start} wal-push"))));
            let data = self.postgres.data_directory().display();
            let _ = root.must(&format!("{run}{start} backup-push {data}"));
        }
        if self.has("backup-cluster") && self.has("restore-cluster") {
            let archive = self.ours("archive-wal", Place::Kept);
            let _ = root.must(&self.before(Place::Kept, &self.new_repository(Place::Kept), Some(&archive)));
            let _ = root.must(&self.our_backup(Place::Kept, 3));
        }
    }

    fn restorers(&self) -> Vec<Restorer> {
        let mut all = Vec::new();
        if let Some(peer) = &self.pgbackrest {
            let start = self.pgbackrest(peer, Place::Kept, 3);
            let full = format!("{start} --pg1-path=TO restore");
            let delta = Some(format!("{full} --delta"));
            all.push(Restorer { name: peer.name(), folder: "to-pgbackrest", full, delta });
        }
        if let Some(program) = &self.wal_rus {
            let full = format!("{} backup-fetch TO LATEST", self.wal_rus(program, Place::Kept, 3));
            all.push(Restorer { name: "wal-rus".to_owned(), folder: "to-wal-rus", full, delta: None });
        }
        if self.has("restore-cluster") {
            let start = self.ours("restore-cluster", Place::Kept);
            let full = format!("{start} --no-progress --no-proof --jobs 2 --data-directory TO");
            let delta = Some(format!("{full} --delta"));
            all.push(Restorer { name: "restore-cluster".to_owned(), folder: "to-ours", full, delta });
        }
        all
    }

    /// A command that restores into `folder`, as the server's account, and all of it durable.
    fn into(&self, folder: &str, command: &str) -> String {
        let to = self.path(folder);
        let to = to.display().to_string();
        format!("{}{}; sync -f {to}", self.shell.prefix(), command.replace("TO", &to))
    }

    fn emptied(&self, folder: &str) -> String {
        let to = self.path(folder);
        format!("rm -rf {0}; {1}mkdir -m 700 {0}", to.display(), self.shell.prefix())
    }

    /// The table of full restores.
    pub(crate) fn restores(&self) -> String {
        let nowhere = || self.path("nowhere");
        let mut variants: Vec<Variant> = self
            .restorers()
            .into_iter()
            .map(|one| Variant {
                command: self.into(one.folder, &one.full),
                before: self.emptied(one.folder),
                name: one.name,
                output: nowhere(),
            })
            .collect();
        let data = self.postgres.data_directory().display();
        variants.push(Variant {
            name: "cp -a".to_owned(),
            command: self.into("to-copy", &format!("cp -a {data}/. TO/")),
            before: self.emptied("to-copy"),
            output: nowhere(),
        });
        let (variants, results) = self.measure(variants);
        let bars = verdicts(&judge::restores(&variants, &results));
        format!("{}\n\n{bars}", table(&variants, &results, &[]))
    }

    /// The table of restores onto a data directory that is nearly right.
    pub(crate) fn deltas(&self) -> String {
        let root = Shell::of(None);
        let mut variants = Vec::new();
        for one in self.restorers() {
            let Some(delta) = &one.delta else { continue };
            let (folder, command) = (one.folder, self.into(one.folder, delta));
            let _ = root.must(&format!("{}\n{}", self.emptied(folder), self.into(folder, &one.full)));
            let mut add = |what: &str, before: String| {
                let flag = if one.name == "restore-cluster" { "delta" } else { "--delta" };
                let name = format!("{}, {flag}, {what}", one.name);
                variants.push(Variant {
                    name,
                    command: command.clone(),
                    before,
                    output: self.path("nowhere"),
                });
            };
            add("intact", "true".to_owned());
            add("1 % damaged", self.chore(&format!("damage {}", self.path(folder).display())));
        }
        let (variants, results) = self.measure(variants);
        let bars = verdicts(&judge::deltas(&variants, &results));
        format!("{}\n\n{bars}", table(&variants, &results, &[]))
    }
}
