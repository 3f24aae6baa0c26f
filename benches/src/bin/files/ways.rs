//! The ways to back the tree up.

use std::path::{Path, PathBuf};

use backstay_benches::{Shell, Variant};
use backstay_testkit::ScratchDir;

/// Everything that commands are made of.
pub(crate) struct Ways {
    programs: PathBuf,
    tree: PathBuf,
    /// Folder of everything that is written.
    base: PathBuf,
    recipient: String,
    has_restic: bool,
}

impl Ways {
    /// Makes a key to encrypt to.
    pub(crate) fn new(scratch: &ScratchDir, tree: PathBuf) -> Self {
        let programs = std::env::current_exe().expect("this program has a path");
        let programs = programs.parent().expect("and a folder").to_path_buf();
        let base = scratch.path().to_path_buf();
        let shell = Shell::of(None);
        let key = base.join("key").display().to_string();
        let recipient = shell.must(&format!("age-keygen -o {key} 2>/dev/null; age-keygen -y {key}"));
        let has_restic = shell.run("command -v restic").status.success();
        if !has_restic {
            say("restic is not installed and left out; scripts/setup.sh --restic installs it");
        }
        Self { programs, tree, base, recipient, has_restic }
    }

    /// A folder that exists and is empty before every run.
    fn output(&self) -> PathBuf {
        self.base.join("out")
    }

    fn fresh(&self, name: &str, command: String) -> Variant {
        let out = self.output();
        let before = format!("rm -rf {0}; mkdir -p {0}", out.display());
        Variant { name: name.to_owned(), command, before, output: out }
    }

    /// One whose repository stays from round to round, and is made by `prepare` in the first.
    fn kept(&self, name: &str, folder: &Path, prepare: &str, command: String) -> Variant {
        let before = format!("[ -e {0} ] || {{ {prepare} ; }}", folder.display());
        Variant { name: name.to_owned(), command, before, output: self.base.join("nothing") }
    }

    fn ours(&self, repository: &Path, flags: &str) -> String {
        format!(
            "{} --no-progress --repository {} {flags} {} >/dev/null",
            self.programs.join("backup-config").display(),
            repository.display(),
            self.tree.display()
        )
    }

    fn encrypted(&self) -> String {
        let recipient = &self.recipient;
        format!("--option encryption.recipients={recipient} --option encryption.allow-single-recipient=true")
    }

    fn restic(&self, repository: &Path, command: &str) -> String {
        let at = repository.display();
        format!("RESTIC_PASSWORD=x RESTIC_CACHE_DIR={at}.cache restic -q -r {at} {command}")
    }

    fn tar(&self) -> String {
        format!("tar -C {} -cf - .", self.tree.display())
    }

    /// First backups. The peers come first.
    pub(crate) fn first(&self) -> Vec<Variant> {
        let out = self.output();
        let at = out.display();
        let zstd = format!("{} | zstd -q -3 -T2 -o {at}/a.tar.zst; sync {at}/a.tar.zst", self.tar());
        let mut variants = vec![self.fresh("tar \\| zstd -3 -T2", zstd)];
        if self.has_restic {
            let repository = out.join("restic");
            let backup = self.restic(&repository, &format!("backup {}", self.tree.display()));
            let mut variant = self.fresh("restic, first", backup);
            variant.before = format!("{}; {}", variant.before, self.restic(&repository, "init"));
            variants.push(variant);
        }
        let repository = out.join("ours");
        variants.push(self.fresh("backup-config, encrypted", self.ours(&repository, &self.encrypted())));
        variants.push(self.fresh(
            "backup-config --plaintext --allow '*'",
            self.ours(&repository, "--plaintext --allow '*'"),
        ));
        variants.push(self.looking(&repository));
        variants
    }

    /// With a look into every file. It stops at what it finds, so what it finds in this tree is allowed file by file first.
    fn looking(&self, repository: &Path) -> Variant {
        let allowed = self.base.join("allowed").display().to_string();
        let flags = format!("--plaintext $(cat {allowed})");
        let mut variant =
            self.fresh("backup-config --plaintext, looking for secrets", self.ours(repository, &flags));
        variant.before =
            format!("[ -e {allowed} ] || {{ {} ; }}; {}", self.find_allowed(&allowed), variant.before);
        variant
    }

    /// Writes flags that allow what a look finds, once.
    fn find_allowed(&self, to: &str) -> String {
        format!(
            "{} --plaintext --dry-run --json --repository {}/none {} | jq -r '[.findings[].path] | unique[] | \"--allow \" + .' >{to} || true",
            self.programs.join("backup-config").display(),
            self.base.display(),
            self.tree.display()
        )
    }

    /// What the usual script does.
    pub(crate) fn slow(&self) -> Vec<Variant> {
        let at = self.output().display().to_string();
        let gzip = format!("tar -C {} -czf {at}/a.tar.gz .; sync {at}/a.tar.gz", self.tree.display());
        vec![self.fresh("tar -czf", gzip)]
    }

    /// Nothing changed since the last backup.
    pub(crate) fn unchanged(&self) -> Vec<Variant> {
        let find = format!("find {} -printf '%s %T@ %i\\n' >/dev/null", self.tree.display());
        let mut variants = Vec::new();
        if self.has_restic {
            let repository = self.base.join("restic-kept");
            let backup = self.restic(&repository, &format!("backup {}", self.tree.display()));
            let prepare = format!("{}; {backup}", self.restic(&repository, "init"));
            variants.push(self.kept("restic, unchanged", &repository, &prepare, backup));
        }
        variants.push(self.fresh("find with stat of every file", find));
        for (name, folder, flags) in [
            ("backup-config, encrypted, unchanged", "ours-kept", self.encrypted()),
            ("backup-config --plaintext, unchanged", "ours-open-kept", "--plaintext --allow '*'".to_owned()),
        ] {
            let repository = self.base.join(folder);
            let backup = self.ours(&repository, &flags);
            variants.push(self.kept(name, &repository, &backup, backup.clone()));
        }
        variants
    }

    /// One file in a hundred has a line more.
    pub(crate) fn changed(&self) -> Vec<Variant> {
        let touch = format!(
            "find {} -name '*.rs' -printf '%p\\n' | sort | awk 'NR % 100 == 1' | while read -r file; do echo '// more' >>\"$file\"; done; sleep 1.1",
            self.tree.display()
        );
        let mut variants = self.unchanged();
        variants.retain(|variant| !variant.name.starts_with("find"));
        for variant in &mut variants {
            variant.name = variant.name.replace("unchanged", "1 % changed");
            variant.before = format!("{}; {touch}", variant.before);
        }
        variants
    }

    /// Code with its history, which here is one commit.
    pub(crate) fn code(&self) -> Vec<Variant> {
        let (out, repository) =
            (self.output().display().to_string(), self.base.join("git").display().to_string());
        let tree = self.tree.display();
        let git = format!("git -C {repository} -c user.name=b -c user.email=b@example.com");
        let prepare = format!(
            "[ -e {repository} ] || {{ cp -a {tree} {repository}; git -C {repository} init -q; {git} add -A; {git} commit -qm all ; }}"
        );
        let bundle =
            format!("git -C {repository} bundle create -q {out}/a.bundle --all; sync {out}/a.bundle");
        let mut variants = vec![self.fresh("git bundle", bundle)];
        let ours = self.programs.join("backup-code");
        if ours.exists() {
            let encrypted = self.encrypted();
            let command = format!(
                "{} --no-progress --repository {out}/ours {encrypted} {repository} >/dev/null",
                ours.display()
            );
            variants.push(self.fresh("backup-code, encrypted", command));
        }
        variants.iter_mut().for_each(|variant| variant.before = format!("{prepare}; {}", variant.before));
        variants
    }
}

fn say(words: &str) {
    use std::io::Write as _;
    // Nobody reads it back.
    let _ = writeln!(std::io::stderr(), "{words}");
}
