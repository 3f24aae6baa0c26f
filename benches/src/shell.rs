use std::path::Path;
use std::process::{Command, Output};

use backstay_testkit::Account;

/// Runs lines of shell as the account that PostgreSQL runs as, so that the server may read what they write.
#[derive(Clone, Debug)]
pub struct Shell {
    prefix: String,
    owner: Option<(u32, u32)>,
}

impl Shell {
    /// A shell of this account; of the caller's own without one.
    #[must_use]
    pub fn of(account: Option<&Account>) -> Self {
        let owner = account.map(|account| (account.uid(), account.gid()));
        let prefix = owner
            .map(|(uid, gid)| format!("setpriv --reuid={uid} --regid={gid} --init-groups "))
            .unwrap_or_default();
        Self { prefix, owner }
    }

    /// What to write before a program so that it runs as the account.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Runs a line to its end.
    ///
    /// # Panics
    /// When the shell cannot be started.
    #[must_use]
    pub fn run(&self, line: &str) -> Output {
        let command = format!("exec {}bash -e -o pipefail -c \"$1\"", self.prefix);
        let mut bash = Command::new("bash");
        bash.args(["-c", &command, "shell", line]).current_dir("/").env("LC_ALL", "C").env("TZ", "UTC");
        bash.output().expect("bash is there")
    }

    /// Runs a line that has to succeed, and returns what it printed.
    ///
    /// # Panics
    /// When it fails, with what it wrote.
    #[must_use]
    pub fn must(&self, line: &str) -> String {
        let output = self.run(line);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{line}\nended with {}: {errors}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout)
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Writes a file that belongs to the account.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, path: &Path, content: impl AsRef<[u8]>) {
        std::fs::write(path, content).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
        if let Some((uid, gid)) = self.owner {
            std::os::unix::fs::chown(path, Some(uid), Some(gid)).expect("root may give files away");
        }
    }

    /// Makes a folder that belongs to the account; one that is there is fine.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn folder(&self, path: &Path) {
        std::fs::create_dir_all(path).unwrap_or_else(|error| panic!("create {}: {error}", path.display()));
        if let Some((uid, gid)) = self.owner {
            std::os::unix::fs::chown(path, Some(uid), Some(gid)).expect("root may give folders away");
        }
    }
}
