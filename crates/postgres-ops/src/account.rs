//! Who runs a server: PostgreSQL refuses to run as root, so root hands it to an unprivileged account.

use std::io;
use std::path::Path;

use backstay_backup_core::process::CommandSpec;

/// Accounts that root may hand a server to, in order of preference.
const ACCOUNTS: [&str; 2] = ["postgres", "nobody"];

/// An account of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Account {
    /// For changes of owners.
    pub(crate) fn ids(self) -> (rustix::process::Uid, rustix::process::Gid) {
        (rustix::process::Uid::from_raw(self.uid), rustix::process::Gid::from_raw(self.gid))
    }

    /// The account to run a server as; `None` keeps the own one, which only root may not.
    pub(crate) fn for_servers() -> io::Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let accounts = std::fs::read_to_string("/etc/passwd")?;
        ACCOUNTS
            .iter()
            .find_map(|name| Self::find(&accounts, name))
            .map(Some)
            .ok_or_else(|| io::Error::other("no account postgres or nobody to run the server"))
    }

    fn find(passwd: &str, name: &str) -> Option<Self> {
        let fields = passwd
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields[0] == name)?;
        Some(Self { uid: fields.get(2)?.parse().ok()?, gid: fields.get(3)?.parse().ok()? })
    }
}

/// The program itself, or the same program under another account.
pub(crate) fn command_as(program: &Path, account: Option<Account>) -> CommandSpec {
    let spec = match account {
        None => CommandSpec::new(program),
        Some(Account { uid, gid }) => CommandSpec::new("/usr/bin/setpriv")
            .args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".to_owned()])
            .arg(program),
    };
    spec.env("LC_ALL", "C").env("PATH", "/usr/bin:/bin").directory("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_by_whole_names() {
        let passwd =
            "root:x:0:0::/:/bin/sh\npostgresql:x:7:8::/:/bin/sh\npostgres:x:101:102::/:/bin/sh\nbroken\n";
        assert_eq!(Account::find(passwd, "postgres"), Some(Account { uid: 101, gid: 102 }));
        assert_eq!(Account::find(passwd, "nobody"), None);
    }
}
