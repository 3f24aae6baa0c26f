use std::fs;
use std::path::Path;
use std::process::Command;

use crate::{Error, Result};

/// The account servers run as when the tests run as root, which PostgreSQL refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    name: String,
    uid: u32,
    gid: u32,
}

impl Account {
    /// The account to start servers as: `None` (the caller's own) unless the caller is root.
    ///
    /// # Errors
    /// When root runs on a machine that has neither `postgres` nor `nobody`.
    pub fn for_servers() -> Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let passwd = fs::read_to_string("/etc/passwd").map_err(Error::io("read", "/etc/passwd"))?;
        ["postgres", "nobody"].into_iter().find_map(|name| Self::parse(&passwd, name)).map(Some).ok_or_else(
            || Error::NotInstalled {
                what: "an unprivileged account (postgres or nobody)".to_owned(),
                command: "scripts/setup.sh".to_owned(),
            },
        )
    }

    fn parse(passwd: &str, name: &str) -> Option<Self> {
        let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        let uid = fields.next()?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Self { name: name.to_owned(), uid, gid })
    }

    /// The login name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The numeric user id.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// The numeric group id.
    pub fn gid(&self) -> u32 {
        self.gid
    }

    /// The command that runs `command` as this account, with its groups and nothing of root's.
    pub(crate) fn wrap(&self, command: &Command) -> Command {
        let mut wrapped = Command::new("setpriv");
        wrapped
            .arg(format!("--reuid={}", self.uid))
            .arg(format!("--regid={}", self.gid))
            .arg("--init-groups");
        wrapped.arg("--").arg(command.get_program()).args(command.get_args());
        copy_surroundings(command, &mut wrapped);
        wrapped
    }

    /// Gives one file or directory to this account.
    pub(crate) fn give(&self, path: &Path) -> Result<()> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
            .map_err(Error::io("change the owner of", path))
    }
}

/// Copies the environment changes and the directory, all that the standard library lets us read back.
pub(crate) fn copy_surroundings(from: &Command, to: &mut Command) {
    for (name, value) in from.get_envs() {
        match value {
            Some(value) => to.env(name, value),
            None => to.env_remove(name),
        };
    }
    if let Some(directory) = from.get_current_dir() {
        to.current_dir(directory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        let passwd = "postgres-old:x:7:8::/:/bin/sh\npostgres:x:101:104:admin:/var/lib:/bin/bash\n";
        let account = Account::parse(passwd, "postgres").unwrap();
        assert_eq!((account.uid(), account.gid()), (101, 104));
        assert_eq!(Account::parse(passwd, "nobody"), None);
    }
}
